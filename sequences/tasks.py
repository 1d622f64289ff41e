"""Celery entry points of sequences."""

from __future__ import annotations

from celery import shared_task
from django.utils import timezone

from sequences import services


@shared_task(name="sequences.tick")
def tick() -> None:
    """Beat, every two seconds: let leads in, hear what happened to them, hand due steps over."""
    services.tick(now=timezone.now())
