"""Celery entry points of the installation itself."""

from __future__ import annotations

from celery import shared_task
from django.utils import timezone

from config.api.idempotency import expire_keys


@shared_task(name="config.expire_keys")
def expire_idempotency_keys() -> None:
    """Beat, every ten minutes: forget what clients can no longer repeat."""
    expire_keys(now=timezone.now())
