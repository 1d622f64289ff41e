"""Moving messages to another device of the same pool, where their batch allows it (``Batch.failover``).

Two kinds of message move:

* what waits for a device that cannot send: unpaired, needs attention, or resting for another
  ``FLOTILLA_FAILOVER_AFTER_MINUTES`` or more;
* what a device failed to send for now, twice in this round, shortly before it would try again.

A pause by a person moves nothing, and neither does a ban: who banned one number may ban the next for the same message.
A message with an attempt in doubt stays, because an id is dropped as a repeat only by the account that has seen it.

A move changes a message's device and stream and nothing else; its attempts keep the device that made them. The devices
on both sides are locked first (a release works under the same lock), and whoever is locked already waits for the next
tick, so any number of ticks may run at once.
"""

from __future__ import annotations

from collections.abc import Sequence

import structlog
from django.conf import settings

from messaging.dispatch.pool import RACES, Pool, Session, shared_pool
from messaging.dispatch.prepared import Statement
from messaging.dispatch.spreading import Mover, spread
from messaging.dispatch.statements import IN_DOUBT

log = structlog.get_logger(__name__)

DEVICES_PER_TICK = 1000
MESSAGES_PER_ROUND = 2000
ROUNDS_PER_POOL = 5
TARGETS_PER_ROUND = 200
TIRED_PER_TICK = 2000

_CANNOT_SEND = """(
    d.state = 'unpaired' OR (d.state = 'needs_attention' AND d.attention_code <> 'banned')
    OR (d.state = 'active' AND d.held_until > flotilla_now() + make_interval(secs => %(seconds)s)))"""
_ABLE = "{d}.state = 'active' AND ({d}.held_until IS NULL OR {d}.held_until <= flotilla_now())"
_MOVES = """b.state = 'running' AND b.failover AND b.expires_at > flotilla_now()
      AND NOT EXISTS (SELECT FROM messaging_halt WHERE ended_at IS NULL)"""
_FAILED_ON = """ARRAY(SELECT DISTINCT a.device_id FROM messaging_attempt a
                       WHERE m.attempts > 0 AND a.message_id = m.id AND a.round = m.round
                         AND a.outcome NOT IN ('throttled', 'not_sent'))"""

# Index stream_open_by_device. In no order, so that what cannot move for now does not stand before what can.
STUCK = Statement(
    "failover_stuck",
    f"""
SELECT d.pool_id, array_agg(d.id) FROM (
    SELECT d.id, d.pool_id FROM devices_device d
    WHERE d.pool_id IS NOT NULL AND {_CANNOT_SEND}
      AND EXISTS (SELECT FROM messaging_stream s JOIN messaging_batch b ON b.id = s.batch_id
                  WHERE s.device_id = d.id AND s.is_open AND {_MOVES})
      AND EXISTS (SELECT FROM devices_device o WHERE o.pool_id = d.pool_id AND {_ABLE.format(d="o")})
    ORDER BY random() LIMIT %(limit)s) d
GROUP BY d.pool_id
""",  # noqa: S608 - conditions of ours
)

# Index message_tired. Only what is to be tried again within a minute: by then it is known best who is able.
TIRED = Statement(
    "failover_tired",
    f"""
SELECT d.pool_id, array_agg(m.id), array_agg(DISTINCT d.id)
FROM (SELECT * FROM messaging_message
      WHERE state = 'pending' AND attempts >= 2 AND due_at < flotilla_now() + interval '1 minute'
      ORDER BY due_at LIMIT %(limit)s) m
JOIN devices_device d ON d.id = m.device_id AND d.state = 'active' AND d.pool_id IS NOT NULL
JOIN messaging_batch b ON b.id = m.batch_id AND {_MOVES}
WHERE NOT {IN_DOUBT}
  AND (SELECT count(*) FROM messaging_attempt a WHERE a.message_id = m.id AND a.round = m.round
       AND a.device_id = m.device_id AND a.outcome = 'temporary') >= 2
  AND EXISTS (SELECT FROM devices_device o WHERE o.pool_id = d.pool_id AND o.id <> d.id AND {_ABLE.format(d="o")})
GROUP BY d.pool_id
""",  # noqa: S608 - conditions of ours
)

# Index stream_open_by_device.
TARGETS = Statement(
    "failover_targets",
    f"""
SELECT d.id, coalesce((SELECT sum(s.waiting) FROM messaging_stream s WHERE s.device_id = d.id AND s.is_open), 0)::int
FROM devices_device d
WHERE d.pool_id = %(pool)s AND {_ABLE.format(d="d")}
ORDER BY 2, 1 LIMIT %(limit)s
""",  # noqa: S608 - conditions of ours
)

# Whoever is busy with one of these devices is not waited for.
LOCK = Statement(
    "failover_lock",
    f"""
SELECT d.id, d.pool_id = %(pool)s AND {_ABLE.format(d="d")}, d.pool_id = %(pool)s AND {_CANNOT_SEND}
FROM devices_device d WHERE d.id = ANY(%(devices)s)
ORDER BY d.id FOR NO KEY UPDATE SKIP LOCKED
""",  # noqa: S608 - conditions of ours
)

# Index message_next. A statement of its own after the lock, so that its snapshot is later. Nothing releases these
# messages while their device is locked; whatever else moves one makes MOVE pass it over.
PICK_STUCK = Statement(
    "failover_pick_stuck",
    f"""
SELECT p.id, p.stream_id, p.device_id, p.failed_on
FROM messaging_stream s
JOIN messaging_batch b ON b.id = s.batch_id AND {_MOVES}
CROSS JOIN LATERAL (
    SELECT m.id, m.stream_id, m.device_id, m.due_at, {_FAILED_ON} AS failed_on
    FROM messaging_message m
    WHERE m.stream_id = s.id AND m.state = 'pending' AND NOT {IN_DOUBT}
    ORDER BY m.due_at, m.id LIMIT %(most)s) p
WHERE s.device_id = ANY(%(devices)s) AND s.is_open
ORDER BY p.due_at, p.id LIMIT %(limit)s
""",  # noqa: S608 - conditions of ours
)
PICK_TIRED = Statement(
    "failover_pick_tired",
    f"""
SELECT m.id, m.stream_id, m.device_id, {_FAILED_ON}
FROM messaging_message m JOIN messaging_batch b ON b.id = m.batch_id AND {_MOVES}
WHERE m.id = ANY(%(messages)s) AND m.device_id = ANY(%(devices)s) AND m.state = 'pending' AND NOT {IN_DOUBT}
ORDER BY m.due_at, m.id
""",  # noqa: S608 - conditions of ours
)

OPEN_STREAMS = Statement(
    "failover_open_streams",
    """
INSERT INTO messaging_stream (batch_id, device_id, priority, is_open, served_at, total, waiting, sent, delivered, read,
                              failed, cancelled, expired, unknown)
SELECT DISTINCT s.batch_id, p.device_id, s.priority, false, flotilla_now(), 0, 0, 0, 0, 0, 0, 0, 0, 0
FROM unnest(%(streams)s::bigint[], %(targets)s::bigint[]) AS p(stream_id, device_id)
JOIN messaging_stream s ON s.id = p.stream_id
ORDER BY 1, 2
ON CONFLICT (batch_id, device_id) DO NOTHING
""",
)

MOVE = Statement(
    "failover_move",
    """
WITH plan AS (
    SELECT p.message_id, p.stream_id, t.id AS target_id, t.device_id
    FROM unnest(%(messages)s::bigint[], %(streams)s::bigint[], %(targets)s::bigint[])
         AS p(message_id, stream_id, device_id)
    JOIN messaging_stream s ON s.id = p.stream_id
    JOIN messaging_stream t ON t.batch_id = s.batch_id AND t.device_id = p.device_id
), moved AS (
    UPDATE messaging_message m SET stream_id = plan.target_id, device_id = plan.device_id
    FROM plan WHERE m.id = plan.message_id AND m.stream_id = plan.stream_id AND m.state = 'pending'
    RETURNING plan.stream_id AS source_id, plan.target_id, plan.device_id
), counts AS (
    SELECT stream_id, sum(n)::int AS n
    FROM (SELECT source_id AS stream_id, -1 AS n FROM moved UNION ALL SELECT target_id, 1 FROM moved) c
    GROUP BY stream_id
), counted AS (
    UPDATE messaging_stream s SET total = s.total + n, waiting = s.waiting + n, is_open = s.waiting + n > 0
    FROM counts WHERE s.id = counts.stream_id
), woken AS (
    UPDATE devices_device d SET wake_at = least(d.wake_at, greatest(flotilla_now(), d.next_send_at))
    WHERE d.id IN (SELECT device_id FROM moved)
)
SELECT count(*) FROM moved
""",
)


def move_stuck(*, pool: Pool | None = None) -> int:
    """Move what waits for devices that cannot send; returns how many messages, bounded per call."""
    pool = pool or shared_pool()
    rows = pool.execute(STUCK, {"seconds": settings.FLOTILLA_FAILOVER_AFTER_SECONDS, "limit": DEVICES_PER_TICK})
    total = 0
    for pool_id, devices in rows:
        for _ in range(ROUNDS_PER_POOL):
            moved = _round(pool, pool_id, devices, None)
            total += moved
            if not moved:
                break
    return total


def move_tired(*, pool: Pool | None = None) -> int:
    """Move what its device failed to send twice, to one that has not; returns how many messages, bounded per call."""
    pool = pool or shared_pool()
    rows = pool.execute(TIRED, {"limit": TIRED_PER_TICK})
    return sum(_round(pool, pool_id, devices, messages) for pool_id, messages, devices in rows)


def _round(pool: Pool, pool_id: int, devices: Sequence[int], messages: Sequence[int] | None) -> int:
    """One transaction within one device pool. ``messages``: the tired ones; None: all that wait for ``devices``."""
    try:
        with pool.transaction() as session:
            moved, going, targets = _move(session, pool_id, devices, messages)
    except RACES:
        return 0  # rolled back whole; the next tick sees what is left
    if moved:
        log.info(
            "failover.moved", pool_id=pool_id, messages=moved, reason="device_cannot" if messages is None else "failed",
            from_devices=sorted({mover.device_id for mover in going})[:20], to_devices=sorted(targets)[:20],
            message_ids=sorted(mover.message_id for mover in going)[:500],
        )  # fmt: skip
    return moved


def _move(
    session: Session, pool_id: int, devices: Sequence[int], messages: Sequence[int] | None
) -> tuple[int, list[Mover], set[int]]:
    """Lock, pick, spread, move. Returns how many messages moved, which were to, and to which devices."""
    waiting: dict[int, int] = dict(session.execute(TARGETS, {"pool": pool_id, "limit": TARGETS_PER_ROUND}))
    locked = session.execute(
        LOCK,
        {
            "pool": pool_id,
            "devices": sorted({*waiting, *devices}),
            "seconds": settings.FLOTILLA_FAILOVER_AFTER_SECONDS,
        },
    )
    able = {device: waiting[device] for device, is_able, _ in locked if is_able and device in waiting}
    sources = [device for device, _, cannot in locked if device in set(devices) and (cannot or messages is not None)]
    if not able or not sources:
        return 0, [], set()
    if messages is None:
        most = max(MESSAGES_PER_ROUND // len(sources), 20)  # of one stream, so that thousands do not sort millions
        rows = session.execute(PICK_STUCK, {"devices": sources, "most": most, "limit": MESSAGES_PER_ROUND})
    else:
        rows = session.execute(PICK_TIRED, {"devices": sources, "messages": messages})
    movers = [Mover(m, s, d, frozenset(failed), must_leave=messages is None) for m, s, d, failed in rows]
    chosen = spread(movers=movers, waiting=able)
    going = [mover for mover in movers if mover.message_id in chosen]
    if not going:
        return 0, [], set()
    plan = {
        "messages": [mover.message_id for mover in going],
        "streams": [mover.stream_id for mover in going],
        "targets": [chosen[mover.message_id] for mover in going],
    }
    session.execute(OPEN_STREAMS, plan)
    ((moved,),) = session.execute(MOVE, plan)
    return moved, going, set(plan["targets"])
