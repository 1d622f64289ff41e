"""The one path for what gateways tell, by webhook or through an open session: receipts, replies, news of devices."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

import structlog

from devices.gateways.base import DeviceEvent, News, Receipt, Reply
from devices.models import Device
from messaging.dispatch.pool import Pool, shared_pool
from messaging.dispatch.reconnect import call_a_person
from messaging.inbound import store_replies
from messaging.receipts import apply_receipts

log = structlog.get_logger(__name__)

OUT_OF_SERVICE = {
    "logged_out": "The device was logged out.",
    "banned": "The device was banned.",
    "replaced": "Another client took the session over.",
}
"""Device events that only a person can mend, with their words where the gateway gives none."""


@dataclass(frozen=True, slots=True)
class Taken:
    """What it came to: messages moved, news that waits for its message, new replies."""

    moved: int
    waiting: int
    replies: int


def take_in(*, gateway: str, news: Iterable[News], now: datetime, pool: Pool | None = None) -> Taken:
    """Write down what a gateway of this kind told. Doing it again changes nothing.

    Raises Django's or psycopg2's OperationalError or InterfaceError while the database is away.
    """
    told = list(news)
    applied = apply_receipts(gateway=gateway, receipts=[each for each in told if isinstance(each, Receipt)], pool=pool)
    heard = store_replies(gateway=gateway, replies=[each for each in told if isinstance(each, Reply)], now=now)
    apply_device_events(
        gateway=gateway, events=[each for each in told if isinstance(each, DeviceEvent)], pool=pool or shared_pool()
    )
    return Taken(applied.moved, applied.waiting, len(heard))


def apply_device_events(*, gateway: str, events: Sequence[DeviceEvent], pool: Pool) -> int:
    """Take devices out of service that were logged out, banned or replaced; returns how many events named one of ours.

    Being connected or disconnected changes nothing: the next send finds out.
    """
    named = {event.device_id for event in events if event.device_id is not None}
    ours = set(Device.objects.filter(pk__in=named, gateway=gateway).values_list("pk", flat=True)) if named else set()
    for event in events:
        if event.device_id not in ours or event.device_id is None:
            continue
        log.info("device.event", device_id=event.device_id, status=event.status, code=event.code)
        if event.status in OUT_OF_SERVICE:
            call_a_person(
                device_id=event.device_id,
                code=event.status,
                text=event.text or OUT_OF_SERVICE[event.status],
                banned=event.status == "banned",
                pool=pool,
            )
    return sum(event.device_id in ours for event in events)
