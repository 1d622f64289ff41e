"""Celery entry points of the installation itself."""

from __future__ import annotations

from celery import shared_task
from django.utils import timezone

from config import alerts, digest
from config.api.idempotency import expire_keys


@shared_task(name="config.expire_keys")
def expire_idempotency_keys() -> None:
    """Beat, every ten minutes: forget what clients can no longer repeat."""
    expire_keys(now=timezone.now())


@shared_task(name="config.failure_digest")
def failure_digest() -> None:
    """Beat, every minute: notice what has failed, and tell the admins when it is time."""
    digest.send_due(now=timezone.now())
    alerts.tell_due(now=timezone.now())
    alerts.tell_given_up(now=timezone.now())
