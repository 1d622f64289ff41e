"""Which process houses which sessions, what it was doing when it died, and trouble that many devices share."""

from __future__ import annotations

import uuid

from django.db import models
from django.db.models import Q

from devices.access import Access, OwnedQuerySet


class SessionHost(models.Model):
    """One process that houses sessions, for as long as it is heard of: ``lease_until`` covers all its shards.

    The row goes when the process ends or falls silent; a process that comes back later is a new one. A ``leaving`` host
    takes no more shards.
    """

    access = Access(owner=None)

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    name = models.CharField(max_length=200)
    lease_until = models.DateTimeField()
    leaving = models.BooleanField(default=False)
    started_at = models.DateTimeField()
    sessions = models.PositiveIntegerField(default=0)
    connects = models.PositiveIntegerField(default=0)
    memory_mb = models.PositiveIntegerField(default=0)

    objects = OwnedQuerySet.as_manager()

    class Meta:
        ordering = ["name", "id"]

    def __str__(self) -> str:
        return self.name


class SessionShard(models.Model):
    """One part of all session devices: those whose id leaves ``shard`` when divided by ``total``.

    ``fencing`` grows each time the shard is taken, so that later holders can be told from earlier ones.
    """

    access = Access(owner=None)

    shard = models.PositiveIntegerField(primary_key=True)
    total = models.PositiveIntegerField()
    host = models.ForeignKey(SessionHost, on_delete=models.SET_NULL, null=True, blank=True, related_name="shards")
    fencing = models.BigIntegerField(default=0)
    taken_at = models.DateTimeField(null=True, blank=True)

    objects = OwnedQuerySet.as_manager()

    class Meta:
        ordering = ["shard"]

    def __str__(self) -> str:
        return f"shard {self.shard} of {self.total}"


class RiskyCall(models.Model):
    """What a session host is about to do for a device that might bring the whole process down.

    ``process`` is set before the call and cleared after it. Found set by the next process, it means that the one before
    died in there: ``deaths`` counts these since the device's session was last opened in peace.
    """

    access = Access(owner=None)

    device = models.OneToOneField("devices.Device", on_delete=models.CASCADE, primary_key=True, related_name="+")
    process = models.UUIDField(null=True, blank=True)
    call = models.CharField(max_length=60)
    since = models.DateTimeField()
    deaths = models.PositiveSmallIntegerField(default=0)

    objects = OwnedQuerySet.as_manager()

    def __str__(self) -> str:
        return f"{self.call} for device {self.pk}"


class Incident(models.Model):
    """Many devices failed for one reason: a host without network, a gateway that does not answer.

    It ends by itself, and no device is blamed. ``told_at``: when the admins were told.
    """

    class Scope(models.TextChoices):
        HOST = "host", "Session host"
        GATEWAY = "gateway", "Gateway"

    access = Access(owner=None)

    scope = models.CharField(max_length=7, choices=Scope)
    subject = models.CharField(max_length=250)
    reason = models.CharField(max_length=300, blank=True)
    devices = models.PositiveIntegerField(default=0)
    started_at = models.DateTimeField()
    ended_at = models.DateTimeField(null=True, blank=True)
    told_at = models.DateTimeField(null=True, blank=True)

    objects = OwnedQuerySet.as_manager()

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["scope", "subject"], name="incident_open", condition=Q(ended_at=None)),
        ]
        ordering = ["-id"]

    def __str__(self) -> str:
        return f"{self.get_scope_display()} {self.subject}"
