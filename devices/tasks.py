"""Celery entry points of devices: parse, make one call."""

from __future__ import annotations

from celery import shared_task

from devices import pairing, pairing_run


@shared_task(name=pairing.PAIR_TASK)
def pair(*, attempt_id: int) -> None:
    """Run one attempt to pair a session, for some minutes. Harmless when doubled or late."""
    pairing_run.run(attempt_id=attempt_id)


@shared_task(name=pairing.LOG_OUT_TASK)
def log_out(*, device_id: int) -> None:
    """Unlink one session from its phone."""
    pairing_run.log_out(device_id=device_id)
