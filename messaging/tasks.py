"""Celery entry points of messaging: parse, make one call. Times live in rows: never ETA, countdown or self.retry()."""

from __future__ import annotations

from celery import shared_task
from django.utils import timezone

from messaging import look_ups, receipts, services, settling
from messaging.dispatch import recover as recovery
from messaging.dispatch.release import release_due
from messaging.dispatch.send import carry


@shared_task(name="messaging.send")
def send(*, message_id: int, release_no: int) -> None:
    """Carry one released message (and its device's next ones) to the gateway. Harmless when doubled or late."""
    carry(message_id=message_id, release_no=release_no)


@shared_task(name="messaging.release")
def release() -> None:
    """Beat, ten times a second: put what is due on the device queues."""
    release_due()


@shared_task(name="messaging.recover")
def recover() -> None:
    """Beat, every few seconds: look after what a crash left behind."""
    recovery.expire_leases()
    recovery.unstick_queued()
    recovery.republish_unclaimed()


@shared_task(name="messaging.wake_sleepers")
def wake_sleepers() -> None:
    """Beat, every half minute: the belt over the wake-ups."""
    recovery.wake_sleepers()


@shared_task(name="messaging.match_receipts")
def match_receipts() -> None:
    """Beat, every two seconds: receipts that came before their message was ready."""
    receipts.match_waiting()


@shared_task(name="messaging.settle")
def settle() -> None:
    """Beat, every five seconds: unknown outcomes, by look-up, by policy, by presumption."""
    look_ups.look_up(settling.settle_due())


@shared_task(name="messaging.wrap_up")
def wrap_up() -> None:
    """Beat, every two seconds: expire and finish batches."""
    services.wrap_up(now=timezone.now())
