"""What follows when a device could not be connected: back off, rest, call a person, or blame nobody."""

from __future__ import annotations

from collections.abc import Collection

import structlog
from django.conf import settings

from devices.models import BANNED
from devices.refreshing import RefreshFailed
from devices.remedies import worded
from messaging.dispatch import statements as sql
from messaging.dispatch.pool import Pool

log = structlog.get_logger(__name__)

INCIDENT_SECONDS = 5.0
"""How long a message waits at least when its device's host finds nobody."""


def refresh_failed(*, device_id: int, problem: RefreshFailed, pool: Pool) -> float:
    """Do to the device what the problem asks for; returns for how many seconds its message had better wait.

    Five failures in a row, one to five minutes apart, call a person; but none counts that was part of an incident,
    whether that was known by then or only afterwards.
    """
    log.warning("device.refresh_failed", device_id=device_id, code=problem.code)
    if problem.session_lost:
        call_a_person(device_id=device_id, code=problem.code, text=problem.text, banned=problem.banned, pool=pool)
        return 0.0
    if problem.rest_seconds > 0:
        params = {"device": device_id, "seconds": problem.rest_seconds, "reason": problem.text[:200]}
        pool.execute(sql.HOLD_DEVICE, params)
        return 0.0
    if problem.wait_seconds > 0:
        return problem.wait_seconds
    if problem.weather is not None and problem.weather.bad:
        return INCIDENT_SECONDS
    minutes = settings.FLOTILLA_RECONNECT_MINUTES
    pool.execute(
        sql.RECONNECT_FAILED,
        {
            "device": device_id,
            "most": len(minutes),
            "minutes": minutes,
            "reason": worded(code="unreachable", text=problem.text)[:200],
        },
    )
    if problem.weather is not None and problem.weather.bad:  # another thread found out meanwhile
        pardon(devices=[device_id], pool=pool)
    return 0.0


def call_a_person(*, device_id: int, code: str, text: str, pool: Pool, banned: bool = False) -> None:
    """The device needs attention: the reason, and the remedy."""
    reason = worded(code=code, text=text, banned=banned)
    code = BANNED if banned else code[:60]
    pool.execute(sql.NEEDS_ATTENTION, {"device": device_id, "reason": reason, "code": code})
    log.warning("device.needs_attention", device_id=device_id, reason=code)


def pardon(*, devices: Collection[int], pool: Pool) -> int:
    """Take back one reconnect failure of each; returns how many had one."""
    return len(pool.execute(sql.PARDON, {"devices": sorted(devices)}))
