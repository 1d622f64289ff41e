"""Celery entry points of campaigns."""

from __future__ import annotations

from celery import shared_task
from django.utils import timezone

from campaigns import services


@shared_task(name="campaigns.trigger")
def trigger(*, run_id: int) -> None:
    """Trigger one run right after its launch, without waiting for the tick."""
    services.trigger(run_id=run_id, now=timezone.now())


@shared_task(name="campaigns.tick")
def tick() -> None:
    """Beat, every two seconds: plan, trigger, resume, watch and finish runs."""
    services.tick(now=timezone.now())
