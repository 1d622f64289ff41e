"""Who is at work: one row per worker process, renewed every few seconds by itself, and when the ticks last ran."""

from __future__ import annotations

import uuid

from django.db import models

from devices.access import Access, OwnedQuerySet


class WorkerProcess(models.Model):
    """One worker process since it started. It writes nothing but this row, so no two ever wait for each other.

    ``tasks`` counts Celery tasks, ``sent`` and ``failed`` messages: one task may carry many. ``figures`` holds what
    /metrics adds up, as counters since the start (:mod:`messaging.meters`).
    """

    access = Access(owner=None)

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    name = models.CharField(max_length=200)
    host = models.CharField(max_length=200)
    pid = models.PositiveIntegerField()
    queues = models.JSONField(default=list)
    threads = models.PositiveIntegerField(default=0)
    started_at = models.DateTimeField()
    seen_at = models.DateTimeField()
    left_at = models.DateTimeField(null=True, blank=True, help_text="When it ended by itself; empty if it was killed.")
    last_active_at = models.DateTimeField(null=True, blank=True, help_text="When it last had a task.")
    active_tasks = models.PositiveIntegerField(default=0)
    tasks = models.PositiveBigIntegerField(default=0)
    sent = models.PositiveBigIntegerField(default=0)
    failed = models.PositiveBigIntegerField(default=0)
    sent_per_minute = models.PositiveIntegerField(default=0)
    memory_mb = models.PositiveIntegerField(default=0)
    figures = models.JSONField(default=dict)

    objects = OwnedQuerySet.as_manager()

    class Meta:
        ordering = ["name", "-started_at"]
        verbose_name_plural = "worker processes"

    def __str__(self) -> str:
        return self.name


class Pulse(models.Model):
    """When a tick was last carried out: proves that beat, the broker and a control worker all do their part."""

    access = Access(owner=None)

    name = models.CharField(max_length=40, primary_key=True)
    at = models.DateTimeField()

    objects = OwnedQuerySet.as_manager()

    def __str__(self) -> str:
        return self.name
