"""Celery entry points of messaging: parse, make one call. Times live in rows: never ETA, countdown or self.retry()."""

from __future__ import annotations

from celery import shared_task
from django.utils import timezone

from messaging import (
    days,
    ending,
    failures,
    look_ups,
    receipts,
    refreshing,
    retention,
    services,
    settling,
    squaring,
    workers,
)
from messaging.dispatch import failover, holding
from messaging.dispatch import recover as recovery
from messaging.dispatch.carrying import carry
from messaging.dispatch.release import release_due
from messaging.outgoing import delivering
from messaging.task_events import SendFailed


@shared_task(name="messaging.send", throws=(SendFailed,))
def send(*, message_id: int, release_no: int) -> None:
    """Carry one released message (and its device's next ones) to the gateway. Harmless when doubled or late.

    Raises SendFailed, after everything is recorded, if some failed for good: such a task is not a success.
    """
    carried = carry(message_id=message_id, release_no=release_no)
    if carried.failed:
        raise SendFailed.of(carried.failed, carried=carried.number)


@shared_task(name="messaging.refresh")
def refresh(*, device_id: int) -> None:
    """Connect a device anew because a person asked. Harmless when doubled or late."""
    refreshing.refresh(device_id=device_id)


@shared_task(name="messaging.pass_on_refreshes")
def pass_on_refreshes() -> None:
    """Beat, every two seconds: what people asked to be refreshed."""
    refreshing.pass_on()


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


@shared_task(name="messaging.free_held")
def free_held() -> None:
    """Beat, every half minute: messages held for a value go on once their lead was changed."""
    holding.free_changed()


@shared_task(name="messaging.settle")
def settle() -> None:
    """Beat, every five seconds: unknown outcomes, by look-up, by policy, by presumption."""
    look_ups.look_up(settling.settle_due())


@shared_task(name="messaging.wrap_up")
def wrap_up() -> None:
    """Beat, every two seconds: expire and finish batches, and end what is left of those that have ended."""
    services.wrap_up(now=timezone.now())
    ending.end_leftovers(now=timezone.now())


@shared_task(name="messaging.count_days")
def count_days() -> None:
    """Beat, every five seconds: what happened today, for charts."""
    days.take_in(now=timezone.now())


@shared_task(name="messaging.fail_over")
def fail_over() -> None:
    """Beat, every ten seconds: move messages away from devices that cannot send them, where their batch allows it."""
    failover.move_stuck()
    failover.move_tired()


@shared_task(name="messaging.square_counters")
def square_counters() -> None:
    """Beat, every minute: compare counters with rows, a bounded number at a time."""
    squaring.square_due(now=timezone.now())


@shared_task(name="messaging.pulse")
def pulse() -> None:
    """Beat, every five seconds: a sign that ticks are carried out."""
    workers.note_pulse(now=timezone.now())


@shared_task(name="messaging.archive_failed")
def archive_failed() -> None:
    """Beat, every hour: put away what failed long ago."""
    failures.archive(now=timezone.now())


@shared_task(name="messaging.let_go")
def let_go() -> None:
    """Beat, every minute: remove what is older than the installation keeps it."""
    retention.let_go(now=timezone.now())


@shared_task(name="messaging.tell_subscribers")
def tell_subscribers() -> None:
    """Beat, every two seconds: outgoing webhooks that are due."""
    delivering.pass_on(now=timezone.now())


@shared_task(name="messaging.tell_subscriber")
def tell_subscriber(*, subscriber_id: int) -> None:
    """Tell one subscriber what waits for it. Harmless when doubled or late."""
    delivering.deliver(subscriber_id=subscriber_id)


@shared_task(name="messaging.sweep_deliveries")
def sweep_deliveries() -> None:
    """Beat, every hour: forget what was told long ago."""
    delivering.sweep(now=timezone.now())
