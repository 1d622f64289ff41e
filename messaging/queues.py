"""The queue of each device, for people who look after it: how much waits, clear it, expire what is old.

A device's queue is its unsent rows. What lies in the broker under ``device.<id>`` is at most a wake-up per lane, so
clearing only that would stop nothing. Stopping a queue is pausing its device (:func:`devices.services.pause`).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog
from celery import current_app
from django.contrib.auth.models import User
from django.db.models import Sum
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from devices.models import Device
from messaging.ending import end_unsent_of
from messaging.models import Stream
from messaging.states import State

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Depth:
    """One device's queue. ``tasks`` and ``bytes`` are the broker's, None while it is away."""

    waiting: int
    tasks: int | None = None
    bytes: int | None = None


def depths(*, devices: Iterable[Device]) -> dict[int, Depth]:
    """By device id: one query and one trip to the broker, whatever their number (index stream_open_by_device)."""
    ids = [device.pk for device in devices]
    sums = (
        Stream.objects.filter(device_id__in=ids, is_open=True)
        .order_by()
        .values_list("device_id")
        .annotate(waiting_=Sum("waiting"))
    )
    waiting = dict(sums)
    lying = _lying(ids)
    return {pk: Depth(waiting.get(pk, 0), *lying.get(pk, (None, None))) for pk in ids}


def clear(*, device: Device, by: User | None = None) -> int:
    """Cancel everything the device has not sent; returns how many. What is at its gateway now ends as it ends.

    What an earlier attempt may have brought to the phone ends as unknown. Of a very long queue some may be left after a
    few seconds: calling it again goes on.
    """
    number = end_unsent_of(
        device_id=device.pk, state=State.CANCELLED, code="queue_cleared", text="The device's queue was cleared by hand."
    )
    _purge(device.pk)
    log.warning("queue.cleared", device_id=device.pk, messages=number, by=by.pk if by else None)
    return number


def expire_old(*, device: Device, older_than: timedelta, now: datetime, by: User | None = None) -> int:
    """Expire what the device has not sent and was made longer than ``older_than`` ago; returns how many."""
    number = end_unsent_of(
        device_id=device.pk,
        state=State.EXPIRED,
        code="expired",
        text="It was too old when somebody expired the device's old messages.",
        made_before=now - older_than,
    )
    log.warning("queue.expired", device_id=device.pk, messages=number, by=by.pk if by else None)
    return number


def _lying(ids: list[int]) -> dict[int, tuple[int, int]]:
    try:
        with (
            current_app.connection_for_read() as found,
            found.default_channel.client.pipeline(transaction=False) as pipeline,
        ):
            for pk in ids:
                pipeline.llen(f"device.{pk}")
                pipeline.memory_usage(f"device.{pk}")
            told = pipeline.execute()
    except (OperationalError, RedisError, ConnectionError, TimeoutError):
        return {}
    return {pk: (told[2 * place], told[2 * place + 1] or 0) for place, pk in enumerate(ids)}


def _purge(pk: int) -> None:
    """Take the wake-ups away too. Without a broker they stay and find nothing to claim."""
    try:
        with current_app.connection_for_read() as found:
            found.default_channel.queue_purge(f"device.{pk}")
    except (OperationalError, RedisError, ConnectionError, TimeoutError) as problem:
        log.warning("queue.not_purged", device_id=pk, error=type(problem).__name__)
