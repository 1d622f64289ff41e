"""Picking what is due. Safe to run anywhere, any number of times at once."""

from __future__ import annotations

from time import monotonic

from messaging.dispatch import statements as sql
from messaging.dispatch.job import job_of
from messaging.dispatch.pool import Pool, Row, shared_pool
from messaging.dispatch.publish import Released, publish
from messaging.meters import METERS

DEVICES_PER_ROUND = 1000
ROUNDS_PER_TICK = 30


def release_due(*, pool: Pool | None = None) -> int:
    """One tick: release the next messages of every device that is able and due, and publish them.

    Returns the number of messages released. Stops after a bounded number of rounds: the next tick goes on.
    """
    started, total = monotonic(), 0
    for _ in range(ROUNDS_PER_TICK):
        looked_at, released = release_round(pool=pool)
        publish(released)
        total += len(released)
        if looked_at < DEVICES_PER_ROUND:
            break
    METERS.note_release(total, seconds=monotonic() - started)
    return total


def release_round(*, pool: Pool | None = None, limit: int = DEVICES_PER_ROUND) -> tuple[int, list[Released]]:
    """Release for up to ``limit`` due devices in one transaction; nothing is published here.

    Returns how many devices were looked at and what was released.
    """
    with (pool or shared_pool()).transaction() as session:
        session.execute(sql.LAZILY, {})
        devices = [row[0] for row in session.execute(sql.DUE_DEVICES, {"limit": limit})]
        if not devices:
            return 0, []
        rows = session.execute(sql.RELEASE, {"devices": devices})
        filled = {device for _, device, _, full, _ in rows if full}
        if len(filled) < len(devices):
            session.execute(sql.SET_WAKE, {"devices": [device for device in devices if device not in filled]})
        return len(devices), [Released(message_id=m, device_id=d, release_no=r, gateway=g) for m, d, r, _, g in rows]


def hand_over(*, device_id: int, pool: Pool) -> Row | None:
    """Release at most one message of this device, now, to the caller, who must carry it.

    Returns a row as PEEK does, or None when nothing is due, the device rests, or every lane is taken.
    """
    rows = pool.execute_together(
        (sql.LAZILY, sql.THIS_DEVICE, sql.RELEASE_NEXT, sql.SET_WAKE_OF, sql.PEEK_RELEASED), {"device": device_id}
    )
    return rows[0] if rows else None


def release_next(*, device_id: int, pool: Pool | None = None) -> Released | None:
    """:func:`hand_over`, as what a task would carry."""
    row = hand_over(device_id=device_id, pool=pool or shared_pool())
    return None if row is None else job_of(row).released
