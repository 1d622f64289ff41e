"""What has been queued for too long, where the installation would rather have it fail than wait."""

from __future__ import annotations

from messaging.dispatch.pool import RACES, Pool
from messaging.dispatch.prepared import Statement
from messaging.dispatch.statements import IN_DOUBT

# Index message_one_in_flight, as for the next. The devices first: a claim or a record may hold one.
LOCK = Statement(
    "stuck_devices",
    """
SELECT id FROM devices_device
WHERE id IN (SELECT device_id FROM messaging_message
             WHERE state = 'queued' AND queued_at < flotilla_now() - make_interval(secs => %(seconds)s)
             ORDER BY queued_at LIMIT %(limit)s)
ORDER BY id FOR NO KEY UPDATE SKIP LOCKED
""",
)

# The lane is freed here.
GIVE_UP = Statement(
    "give_up",
    f"""
WITH ended AS (
    UPDATE messaging_message m
    SET state = CASE WHEN {IN_DOUBT} THEN 'unknown' ELSE 'failed' END, error_code = 'stuck_queued',
        error_text = 'No worker took it from the queue of its device in time.'
    WHERE m.device_id = ANY(%(devices)s) AND m.state = 'queued'
      AND m.queued_at < flotilla_now() - make_interval(secs => %(seconds)s)
    RETURNING m.id, m.stream_id, m.device_id, m.state
), counted AS (
    UPDATE messaging_stream s
    SET waiting = s.waiting - n, failed = s.failed + n - doubted, unknown = s.unknown + doubted,
        is_open = s.waiting - n > 0
    FROM (SELECT stream_id, count(*) AS n, count(*) FILTER (WHERE state = 'unknown') AS doubted
          FROM ended GROUP BY stream_id) c
    WHERE s.id = c.stream_id
), woken AS (
    UPDATE devices_device d SET wake_at = least(d.wake_at, flotilla_now())
    WHERE d.id IN (SELECT device_id FROM ended)
)
SELECT id FROM ended
""",  # noqa: S608 - a condition of ours
)


def give_up(*, seconds: float, limit: int, pool: Pool) -> int:
    """Fail what has been queued and unclaimed for ``seconds``, for good; returns how many messages."""
    try:
        with pool.transaction() as session:
            devices = [row[0] for row in session.execute(LOCK, {"seconds": seconds, "limit": limit})]
            return len(session.execute(GIVE_UP, {"devices": devices, "seconds": seconds})) if devices else 0
    except RACES:
        return 0  # rolled back whole; the next tick comes soon
