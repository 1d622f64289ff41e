"""What devices and gateways need after an outcome, and what a crash left behind."""

from __future__ import annotations

from messaging.dispatch.prepared import Statement

HOLD_DEVICE = Statement(
    "hold_device",
    """
UPDATE devices_device
SET held_until = greatest(held_until, flotilla_now() + make_interval(secs => %(seconds)s)), hold_reason = %(reason)s,
    wake_at = greatest(wake_at, flotilla_now() + make_interval(secs => %(seconds)s))
WHERE id = %(device)s
""",
)

# Many calls fail at the same moment, and they are one incident: only the first of them since the last rest strikes.
REST_GATEWAY = Statement(
    "rest_gateway",
    """
INSERT INTO devices_gatewayrest AS r (gateway, base_url, since, until, strikes, reason)
VALUES (%(gateway)s, %(base_url)s, flotilla_now(),
        flotilla_now() + make_interval(secs => CASE WHEN %(strike)s > 0 THEN 10 ELSE 2 END), %(strike)s, %(reason)s)
ON CONFLICT (gateway, base_url) DO UPDATE
SET until = flotilla_now() + make_interval(
        secs => CASE WHEN %(strike)s > 0 THEN least(120, 10 * 2 ^ least(r.strikes, 5)) ELSE 2 END),
    strikes = r.strikes + %(strike)s, reason = EXCLUDED.reason
WHERE r.until <= flotilla_now()
RETURNING strikes, extract(epoch FROM until - flotilla_now())
""",
)
END_REST = Statement(
    "end_rest",
    "DELETE FROM devices_gatewayrest WHERE gateway = %(gateway)s AND base_url = %(base_url)s RETURNING strikes, since",
)

NEEDS_ATTENTION = Statement(
    "needs_attention",
    """
UPDATE devices_device SET state = 'needs_attention', state_reason = %(reason)s, attention_code = %(code)s
WHERE id = %(device)s AND state = 'active'
""",
)

# -- recovery ---------------------------------------------------------------------------------------------------------

# Index message_one_in_flight, as for the next two: it holds no more rows than the fleet has lanes.
UNCLAIMED = Statement(
    "unclaimed",
    """
SELECT m.id, m.device_id, m.release_no, d.gateway
FROM messaging_message m JOIN devices_device d ON d.id = m.device_id
WHERE m.state = 'queued' AND m.queued_at < flotilla_now() - make_interval(secs => %(seconds)s)
ORDER BY m.queued_at LIMIT %(limit)s
""",
)

# The lane is freed here.
UNSTICK = Statement(
    "unstick",
    """
WITH stuck AS (
    SELECT id FROM messaging_message
    WHERE state = 'queued' AND queued_at < flotilla_now() - make_interval(secs => %(seconds)s)
    ORDER BY queued_at LIMIT %(limit)s FOR UPDATE SKIP LOCKED
), back AS (
    UPDATE messaging_message m SET state = 'pending' FROM stuck WHERE m.id = stuck.id RETURNING m.id, m.device_id
), woken AS (
    UPDATE devices_device d SET wake_at = least(d.wake_at, flotilla_now())
    FROM (SELECT DISTINCT device_id FROM back) b WHERE d.id = b.device_id
)
SELECT id FROM back
""",
)

# What a worker left behind may have reached the phone. Only where the gateway provably drops a
# repeated id is it sent again by itself; everywhere else nobody guesses.
EXPIRE_LEASES = Statement(
    "expire_leases",
    """
WITH lapsed AS (
    SELECT m.id, d.gateway = ANY(%(dedups)s) AS resend
    FROM messaging_message m JOIN devices_device d ON d.id = m.device_id
    WHERE m.state = 'sending' AND m.lease_until < flotilla_now()
    ORDER BY m.lease_until LIMIT %(limit)s FOR UPDATE OF m SKIP LOCKED
), moved AS (
    UPDATE messaging_message m
    SET state = CASE WHEN resend THEN 'pending' ELSE 'unknown' END, lease_until = NULL,
        due_at = CASE WHEN resend THEN flotilla_now() ELSE m.due_at END,
        error_code = 'lease_expired',
        error_text = 'The worker that was sending this message stopped before it could tell the outcome.'
    FROM lapsed WHERE m.id = lapsed.id
    RETURNING m.id, m.stream_id, m.device_id, m.release_no, resend
), told AS (
    UPDATE messaging_attempt a SET finished_at = flotilla_now(), outcome = 'unknown', error_code = 'lease_expired'
    FROM moved WHERE a.message_id = moved.id AND a.release_no = moved.release_no
), counted AS (
    UPDATE messaging_stream s
    SET waiting = s.waiting - c.n, unknown = s.unknown + c.n, is_open = s.waiting - c.n > 0
    FROM (SELECT stream_id, count(*) AS n FROM moved WHERE NOT resend GROUP BY stream_id) c
    WHERE s.id = c.stream_id
), woken AS (
    UPDATE devices_device d SET wake_at = least(d.wake_at, greatest(flotilla_now(), d.next_send_at))
    FROM (SELECT DISTINCT device_id FROM moved) m WHERE d.id = m.device_id
)
SELECT id, resend FROM moved
""",
)

# The belt: whatever slept through its wake-up is woken. Indexes stream_open_by_device, message_one_in_flight.
WAKE_SLEEPERS = Statement(
    "wake_sleepers",
    """
UPDATE devices_device d SET wake_at = flotilla_now()
WHERE d.state = 'active' AND d.wake_at IS NULL
  AND d.id IN (SELECT s.device_id FROM messaging_stream s JOIN messaging_batch b ON b.id = s.batch_id
               WHERE s.is_open AND b.state = 'running')
  AND NOT EXISTS (SELECT FROM messaging_message f WHERE f.device_id = d.id AND f.state IN ('queued', 'sending'))
RETURNING d.id
""",
)

# A settled unknown that is to be sent again may belong to a batch that had nothing else left.
REOPEN_BATCHES = Statement(
    "reopen_batches",
    """
UPDATE messaging_batch SET state = 'running', finished_at = NULL
WHERE state = 'finished' AND expires_at > flotilla_now()
  AND id IN (SELECT batch_id FROM messaging_stream WHERE is_open)
RETURNING id
""",
)
