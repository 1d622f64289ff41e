"""What gateways tell about devices themselves: a lost link stops the device at once, a new one lets it go on."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta

import structlog

from devices import services
from devices.gateways.base import DeviceEvent
from devices.models import BANNED, LOGGED_OUT, MENDED_BY_CONNECTING, REPLACED, Device, DeviceState
from messaging.dispatch import statements as sql
from messaging.dispatch.pool import Pool, shared_pool

log = structlog.get_logger(__name__)

FRESH = timedelta(minutes=15)
"""Older news may be over: it was told again after our own outage, or again and again. The next send finds out."""

_LOST: dict[str, tuple[str, str]] = {
    "logged_out": (LOGGED_OUT, "The device was logged out: pair it again."),
    "banned": (BANNED, "The gateway reports that this number is banned: see what WhatsApp says on its phone."),
    "replaced": (
        REPLACED,
        "Another client took this device's session over: stop it there, then resume the device here.",
    ),
}
"""Code of why it needs attention, and the words, by what was told."""


def apply_device_events(events: Iterable[DeviceEvent], *, now: datetime, pool: Pool | None = None) -> None:
    """Stop and restart devices as they are told of, in the order of the news. Doing it again changes nothing."""
    for event in sorted(events, key=lambda each: each.at):
        if event.device_id is None or now - event.at > FRESH:
            continue
        if event.status in _LOST:
            _lost(event.device_id, event, pool or shared_pool())
        elif event.status == "connected":
            _connected(event.device_id)
        else:
            log.info("device.disconnected", device_id=event.device_id)


def _lost(device_id: int, event: DeviceEvent, pool: Pool) -> None:
    """The statement that a refused send uses as well: only a device that can send stops."""
    code, words = _LOST[event.status]
    reason = f"{words} ({event.text})" if event.text else words
    pool.execute(sql.NEEDS_ATTENTION, {"device": device_id, "reason": reason[:300], "code": code})
    log.warning("device.needs_attention", device_id=device_id, reason=code)


def _connected(device_id: int) -> None:
    """What a person stopped, and what connecting does not mend, stays as it is."""
    mended = Device.objects.filter(
        pk=device_id, state=DeviceState.NEEDS_ATTENTION, attention_code__in=MENDED_BY_CONNECTING
    )
    if services.resume(devices=mended):
        log.info("device.connected", device_id=device_id)
