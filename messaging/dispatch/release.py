"""Picking what is due. Safe to run anywhere, any number of times at once."""

from __future__ import annotations

from typing import Any

from messaging.dispatch import statements as sql
from messaging.dispatch.pool import Pool, Session, shared_pool
from messaging.dispatch.publish import Released, publish

DEVICES_PER_ROUND = 1000
ROUNDS_PER_TICK = 30


def release_due(*, pool: Pool | None = None) -> int:
    """One tick: release the next messages of every device that is able and due, and publish them.

    Returns the number of messages released. Stops after a bounded number of rounds: the next tick goes on.
    """
    total = 0
    for _ in range(ROUNDS_PER_TICK):
        looked_at, released = release_round(pool=pool)
        publish(released)
        total += len(released)
        if looked_at < DEVICES_PER_ROUND:
            break
    return total


def release_round(*, pool: Pool | None = None, limit: int = DEVICES_PER_ROUND) -> tuple[int, list[Released]]:
    """Release for up to ``limit`` due devices in one transaction; nothing is published here.

    Returns how many devices were looked at and what was released.
    """
    with (pool or shared_pool()).transaction() as session:
        devices = session.execute(sql.DUE_DEVICES, {"limit": limit})
        return len(devices), _release(session, devices)


def release_next(*, device_id: int, pool: Pool | None = None) -> Released | None:
    """Hand over: release at most one message of this device, now, to the caller, who must carry it."""
    with (pool or shared_pool()).transaction() as session:
        released = _release(session, session.execute(sql.THIS_DEVICE, {"device": device_id}), most=1)
        return released[0] if released else None


def _release(session: Session, devices: list[tuple[Any, ...]], *, most: int = 1_000_000) -> list[Released]:
    """Release for devices whose rows are locked; ``devices`` are (id, rests_until, resting) rows."""
    resting = [(device, until) for device, until, rests in devices if rests]
    ready = [device for device, _, rests in devices if not rests]
    released: list[Released] = []
    if ready:
        rows = session.execute(sql.RELEASE, {"devices": ready, "most": most})
        released = [Released(message_id=m, device_id=d, release_no=r) for m, d, r in rows]
        session.execute(sql.SET_WAKE, {"devices": ready})
    if resting:
        session.execute(sql.REST, {"devices": [d for d, _ in resting], "until": [until for _, until in resting]})
    return released
