"""What gateways tell about devices themselves: a lost link stops the device at once, a new one lets it go on."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta

import structlog

from devices import services
from devices.gateways.news import DeviceEvent
from devices.models import MENDED_BY_CONNECTING, Device, DeviceState
from messaging.dispatch.pool import Pool, shared_pool
from messaging.dispatch.reconnect import call_a_person

log = structlog.get_logger(__name__)

FRESH = timedelta(minutes=15)
"""Older news may be over: it was told again after our own outage, or again and again. The next send finds out."""

OUT_OF_SERVICE = {
    "logged_out": "The device was logged out.",
    "banned": "The device was banned.",
    "replaced": "Another client took the session over.",
}
"""Device events that only a person can mend, with their words where the gateway gives none."""


def apply_device_events(events: Iterable[DeviceEvent], *, gateway: str, now: datetime, pool: Pool | None = None) -> int:
    """Stop and restart devices as they are told of, in the order of the news; returns how many events named one.

    Doing it again changes nothing. Only devices of this gateway are believed to be meant.
    """
    fresh = [event for event in sorted(events, key=lambda each: each.at) if now - event.at <= FRESH]
    named = {event.device_id for event in fresh if event.device_id is not None}
    ours = set(Device.objects.filter(pk__in=named, gateway=gateway).values_list("pk", flat=True)) if named else set()
    told = [(event.device_id, event) for event in fresh if event.device_id in ours and event.device_id is not None]
    for device_id, event in told:
        log.info("device.event", device_id=device_id, status=event.status, code=event.code)
        if event.status in OUT_OF_SERVICE:
            call_a_person(
                device_id=device_id,
                code=event.status,
                text=event.text or OUT_OF_SERVICE[event.status],
                banned=event.status == "banned",
                pool=pool or shared_pool(),
            )
        elif event.status == "connected":
            _connected(device_id)
    return len(told)


def _connected(device_id: int) -> None:
    """What a person stopped, and what connecting does not mend, stays as it is."""
    mended = Device.objects.filter(
        pk=device_id, state=DeviceState.NEEDS_ATTENTION, attention_code__in=MENDED_BY_CONNECTING
    )
    if services.resume(devices=mended):
        log.info("device.connected", device_id=device_id)
