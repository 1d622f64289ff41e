"""The SQL of the corridor. Every statement that moves a message is conditional on the state it moves it from.

Lock order everywhere: device → lead → message → stream. ``flotilla_now()`` is ``now()`` (plus an offset that only tests
set). The partial indexes named in comments are declared on the models.
"""

from __future__ import annotations

from messaging.dispatch.prepared import Statement

# -- release -----------------------------------------------------------------------------------------------------------

# Index device_due. NO KEY: foreign keys of a running fan-out hold KEY SHARE on device rows and must not hide them.
# Rests are as few as gateway addresses.
DUE_DEVICES = Statement(
    "due_devices",
    """
SELECT id FROM devices_device d
WHERE state = 'active' AND wake_at <= flotilla_now()
  AND NOT EXISTS (SELECT FROM messaging_halt WHERE ended_at IS NULL)
  AND NOT EXISTS (SELECT FROM devices_gatewayrest r
                  WHERE r.gateway = d.gateway AND r.base_url = d.base_url AND r.until > flotilla_now())
ORDER BY wake_at
LIMIT %(limit)s
FOR NO KEY UPDATE OF d SKIP LOCKED
""",
)

# The same for one device, waiting for whoever has it: lanes of one device hand over one after the other.
THIS_DEVICE = Statement("this_device", "SELECT id FROM devices_device WHERE id = %(device)s FOR NO KEY UPDATE")

# Indexes message_one_in_flight (free lanes), stream_open_by_device, message_next.
# A statement of its own after the device locks, so that its snapshot is later than theirs. A device with a gap of its
# own uses one lane: filling more would only make claims that pacing refuses. Streams of one device take turns: the
# first message of each stream before the second of any, least recently served stream first.
RELEASE_TEMPLATE = """
WITH slot AS MATERIALIZED (
    SELECT d.id AS device_id, l.lane, row_number() OVER (PARTITION BY d.id ORDER BY l.lane) AS rank
    FROM devices_device d
    CROSS JOIN LATERAL generate_series(0, CASE WHEN d.delay_max_seconds > 0 THEN 0 ELSE d.lanes - 1 END) AS l(lane)
    WHERE {devices} AND d.state = 'active'
      AND coalesce(greatest(d.next_send_at, d.held_until) <= flotilla_now(), true)
      AND NOT EXISTS (SELECT FROM messaging_halt WHERE ended_at IS NULL)
      AND NOT EXISTS (SELECT FROM messaging_message f
                      WHERE f.device_id = d.id AND f.lane = l.lane AND f.state IN ('queued', 'sending'))
), want AS (
    SELECT device_id, {most} AS n FROM slot GROUP BY device_id
), pick AS (
    SELECT w.device_id, c.id, c.stream_id,
           row_number() OVER (PARTITION BY w.device_id ORDER BY c.priority, c.turn, c.served_at, c.due_at, c.id) AS rank
    FROM want w
    CROSS JOIN LATERAL (
        SELECT n.id, n.due_at, n.turn, s.id AS stream_id, s.priority, s.served_at
        FROM messaging_stream s
        JOIN messaging_batch b ON b.id = s.batch_id AND b.state = 'running' AND b.expires_at > flotilla_now()
        CROSS JOIN LATERAL (
            SELECT p.id, p.due_at, row_number() OVER (ORDER BY p.due_at, p.id) AS turn
            FROM (SELECT id, due_at FROM messaging_message
                  WHERE stream_id = s.id AND state = 'pending' AND due_at <= flotilla_now()
                  ORDER BY due_at, id LIMIT w.n) p
        ) n
        WHERE s.device_id = w.device_id AND s.is_open
        ORDER BY s.priority, n.turn, s.served_at, n.due_at, n.id
        LIMIT w.n
    ) c
), released AS (
    UPDATE messaging_message m
    SET state = 'queued', lane = slot.lane, release_no = m.release_no + 1, queued_at = flotilla_now()
    FROM pick JOIN slot USING (device_id, rank)
    WHERE m.id = pick.id AND m.state = 'pending'
    RETURNING m.id, m.device_id, m.release_no, m.stream_id
), turn AS (
    UPDATE messaging_stream s SET served_at = flotilla_now()
    FROM (SELECT DISTINCT stream_id FROM released) r
    WHERE s.id = r.stream_id
      AND EXISTS (SELECT FROM messaging_stream o WHERE o.device_id = s.device_id AND o.is_open AND o.id <> s.id)
), full_now AS (  -- one lane, and it is taken: the record wakes the device
    UPDATE devices_device d SET wake_at = NULL
    FROM released r WHERE d.id = r.device_id AND (d.lanes = 1 OR d.delay_max_seconds > 0)
    RETURNING d.id
)
{answer}
"""
RELEASE = Statement(
    "release",
    RELEASE_TEMPLATE.format(
        devices="d.id = ANY(%(devices)s)",
        most="count(*)",
        answer="""SELECT r.id, r.device_id, r.release_no, f.id IS NOT NULL
FROM released r LEFT JOIN full_now f ON f.id = r.device_id ORDER BY r.device_id, r.id""",
    ),
)

# One message of one device, remembered for PEEK_RELEASED in the same transaction.
RELEASE_NEXT = Statement(
    "release_next",
    RELEASE_TEMPLATE.format(
        devices="d.id = %(device)s",
        most="1",
        answer="SELECT set_config('flotilla.released', id::text, true) FROM released",
    ),
)

# After a release, in the same transaction, for the devices that it did not fill by one message. When every lane is
# taken, a second from now (so that the records of many lanes need not all write this row). When nothing waits, NULL.
# Else the moment the next message is due and the device has rested.
SET_WAKE_TEMPLATE = """
UPDATE devices_device d
SET wake_at = CASE
    WHEN busy.lanes >= (CASE WHEN d.delay_max_seconds > 0 THEN 1 ELSE d.lanes END)
    THEN CASE WHEN d.lanes > 1 THEN flotilla_now() + interval '1 second' END
    ELSE (
        SELECT CASE WHEN min(f.due_at) IS NOT NULL THEN greatest(min(f.due_at), d.next_send_at, d.held_until) END
        FROM messaging_stream s
        JOIN messaging_batch b ON b.id = s.batch_id AND b.state = 'running' AND b.expires_at > flotilla_now()
        CROSS JOIN LATERAL (SELECT due_at FROM messaging_message
                            WHERE stream_id = s.id AND state = 'pending' ORDER BY due_at, id LIMIT 1) f
        WHERE s.device_id = d.id AND s.is_open) END
FROM {asked}
CROSS JOIN LATERAL (SELECT count(*) AS lanes FROM messaging_message f
                    WHERE f.device_id = asked.id AND f.state IN ('queued', 'sending')) busy
WHERE d.id = asked.id{unless}
"""
SET_WAKE = Statement(
    "set_wake", SET_WAKE_TEMPLATE.format(asked="unnest(%(devices)s::bigint[]) AS asked(id)", unless="")
)
SET_WAKE_OF = Statement(
    "set_wake_of",
    SET_WAKE_TEMPLATE.format(
        asked="(SELECT %(device)s AS id) AS asked",
        unless=" AND (coalesce(current_setting('flotilla.released', true), '') = ''"
        " OR (d.lanes > 1 AND d.delay_max_seconds = 0))",
    ),
)

# A release is written down without waiting for the disk: a server that crashes forgets it as if it had never been, and
# the claim that must come before any byte leaves does wait, and takes the release's record to the disk with its own.
LAZILY = Statement("lazily", "SELECT set_config('synchronous_commit', 'off', true)")

# -- send --------------------------------------------------------------------------------------------------------------

# Is this release still ours, and what is there to know? Reads only.
PEEK_TEMPLATE = """
SELECT m.id, m.release_no, m.device_id, m.uid::text, m.round, m.phone,
       b.content, b.delay_min_seconds, b.delay_max_seconds,
       d.gateway, d.base_url,
       (SELECT CASE WHEN r.until > flotilla_now() THEN 'rests' WHEN r.strikes > 0 THEN 'probing' ELSE 'deferred' END
        FROM devices_gatewayrest r WHERE r.gateway = d.gateway AND r.base_url = d.base_url) AS gateway_state,
       d.config_version, d.lanes, d.delay_min_seconds, d.delay_max_seconds,
       d.cap_per_hour IS NOT NULL OR d.cap_per_day IS NOT NULL OR coalesce(d.warm_up, false) AS capped,
       flotilla_now() AS now, CASE WHEN d.warm_up THEN d.created_at END AS warm_from,
       d.window_start, d.window_end, d.time_zone,
       l.name, l.status, l.niches, l.triggers, l.custom
FROM messaging_message m
JOIN messaging_batch b ON b.id = m.batch_id
JOIN devices_device d ON d.id = m.device_id
LEFT JOIN leads_lead l ON l.id = m.lead_id
WHERE {which}
"""
PEEK = Statement(
    "peek", PEEK_TEMPLATE.format(which="m.id = %(message)s AND m.release_no = %(release_no)s AND m.state = 'queued'")
)
PEEK_RELEASED = Statement(
    "peek_released", PEEK_TEMPLATE.format(which="m.id = nullif(current_setting('flotilla.released', true), '')::bigint")
)

LOCK_DEVICE = Statement("lock_device", "SELECT FROM devices_device WHERE id = %(device)s FOR NO KEY UPDATE")

# The last act before bytes leave. The lead's row is share-locked, so that an opt-out either waits for this commit or
# is seen here. Indexes attempt_device_started (caps, over rolling windows), primary keys. ``{lock}`` is FOR NO KEY
# UPDATE where the device has a rhythm or a cap to reserve; a device without either takes no row lock, and its lanes
# do not queue up behind one another.
_CLAIM = """
WITH d AS MATERIALIZED (
    SELECT d.id FROM devices_device d
    WHERE d.id = %(device)s AND d.state = 'active'
      AND (d.held_until IS NULL OR d.held_until <= flotilla_now())
      AND (d.next_send_at IS NULL OR d.next_send_at <= flotilla_now())
      AND (d.cap_per_hour IS NULL OR d.cap_per_hour > (
            SELECT count(*) FROM messaging_attempt a
            WHERE a.device_id = d.id AND a.started_at > flotilla_now() - interval '1 hour'))
      AND (least(d.cap_per_day, %(warm_up_cap)s) IS NULL OR least(d.cap_per_day, %(warm_up_cap)s) > (
            SELECT count(*) FROM messaging_attempt a
            WHERE a.device_id = d.id AND a.started_at > flotilla_now() - interval '1 day'))
    {lock}
), l AS MATERIALIZED (
    SELECT l.id FROM messaging_message m JOIN leads_lead l ON l.id = m.lead_id
    WHERE m.id = %(message)s AND l.opted_out_at IS NULL
    FOR SHARE OF l
), claimed AS (
    UPDATE messaging_message m
    SET state = 'sending', attempts = m.attempts + 1,
        lease_until = flotilla_now() + make_interval(secs => %(lease_seconds)s)
    FROM d, l, messaging_batch b
    WHERE m.id = %(message)s AND m.release_no = %(release_no)s AND m.state = 'queued' AND m.device_id = d.id
      AND b.id = m.batch_id AND b.state = 'running' AND b.expires_at > flotilla_now()
      AND NOT EXISTS (SELECT FROM messaging_halt WHERE ended_at IS NULL)
    RETURNING m.id, m.device_id, m.release_no, m.attempts, m.round
){reserve}
INSERT INTO messaging_attempt (message_id, device_id, release_no, number, round, reference, text, started_at)
SELECT id, device_id, release_no, attempts, round, %(reference)s, %(text)s, flotilla_now() FROM claimed
RETURNING number, number > 1 AND EXISTS (
    SELECT FROM messaging_attempt earlier
    WHERE earlier.message_id = messaging_attempt.message_id AND earlier.round = messaging_attempt.round
      AND earlier.outcome IN ('unknown', 'accepted'))
"""
_RESERVE = """, reserved AS (
    UPDATE devices_device d
    SET next_send_at = CASE WHEN %(gap_seconds)s > 0 THEN flotilla_now() + make_interval(secs => %(gap_seconds)s) END,
        last_sent_at = flotilla_now()
    FROM claimed WHERE d.id = claimed.device_id
)"""
CLAIM_PACED = Statement("claim_paced", _CLAIM.format(lock="FOR NO KEY UPDATE", reserve=_RESERVE))
CLAIM_FREE = Statement("claim_free", _CLAIM.format(lock="", reserve=""))

# Fenced by release_no. Accepts ``unknown`` too: a worker that was frozen past its lease still knows the truth. So it
# does where the recovery has made the message pending, to be sent again, as long as it was not released again. The
# device is written only where there is something to say, so that lanes without pacing do not queue up on its row.
RECORD = Statement(
    "record",
    """
WITH device AS (
    UPDATE devices_device
    SET wake_at = least(wake_at,
                        greatest(next_send_at, flotilla_now() + make_interval(secs => %(gap_seconds)s))),
        next_send_at = CASE WHEN %(gap_seconds)s > 0
            THEN greatest(next_send_at, flotilla_now() + make_interval(secs => %(gap_seconds)s)) ELSE next_send_at END,
        last_sent_at = flotilla_now(),
        reconnect_failures = 0
    WHERE id = %(device)s
      AND (%(gap_seconds)s > 0 OR wake_at IS NULL OR wake_at > flotilla_now() + interval '1 second'
           OR reconnect_failures > 0
           OR last_sent_at IS NULL OR last_sent_at < flotilla_now() - interval '1 second')
    RETURNING id
), held AS MATERIALIZED (
    SELECT id, state, stream_id, presumed_at FROM messaging_message
    WHERE id = %(message)s AND release_no = %(release_no)s
      AND (state IN ('sending', 'unknown') OR (state = 'pending' AND %(state)s = 'sent'))
      AND (SELECT count(*) FROM device) >= 0  -- the device's lock comes first
    FOR UPDATE
), moved AS (
    UPDATE messaging_message m
    SET state = %(state)s, lease_until = NULL, presumed_at = NULL,
        sent_at = CASE WHEN %(state)s = 'sent' THEN flotilla_now() ELSE m.sent_at END,
        due_at = CASE WHEN %(state)s = 'pending' THEN flotilla_now() + make_interval(secs => %(wait_seconds)s)
                      ELSE m.due_at END,
        attempts = m.attempts - CASE WHEN %(free)s THEN 1 ELSE 0 END,
        external_id = %(external_id)s, error_code = %(error_code)s, error_text = %(error_text)s
    FROM held WHERE m.id = held.id
), told AS (
    UPDATE messaging_attempt
    SET finished_at = flotilla_now(), outcome = %(outcome)s, external_id = %(external_id)s,
        error_code = %(error_code)s, error_text = %(error_text)s
    WHERE message_id = %(message)s AND release_no = %(release_no)s
), counted AS (
    UPDATE messaging_stream s
    SET waiting = s.waiting - (held.state <> 'unknown')::int + (%(state)s = 'pending')::int,
        unknown = s.unknown - (held.state = 'unknown')::int + (%(state)s = 'unknown')::int,
        presumed = s.presumed - (held.presumed_at IS NOT NULL)::int,
        sent = s.sent + (%(state)s = 'sent')::int,
        failed = s.failed + (%(state)s = 'failed')::int,
        is_open = s.waiting - (held.state <> 'unknown')::int + (%(state)s = 'pending')::int > 0
    FROM held WHERE s.id = held.stream_id
)
SELECT state FROM held
""",
)

# A claim that was refused, or a send that never came to it: back to pending, costing no attempt.
GIVE_BACK = Statement(
    "give_back",
    """
WITH device AS (
    SELECT id, greatest(flotilla_now(), next_send_at, held_until) AS able_at FROM devices_device
    WHERE id = %(device)s FOR NO KEY UPDATE
), back AS (
    UPDATE messaging_message m
    SET state = 'pending',
        due_at = CASE WHEN %(wait_seconds)s > 0  -- else it keeps its place in its stream
                      THEN greatest(m.due_at, flotilla_now() + make_interval(secs => %(wait_seconds)s))
                      ELSE m.due_at END
    FROM device
    WHERE m.id = %(message)s AND m.release_no = %(release_no)s AND m.state = 'queued'
    RETURNING m.device_id, m.due_at
)
UPDATE devices_device d SET wake_at = least(d.wake_at, greatest(device.able_at, back.due_at))
FROM back JOIN device ON device.id = back.device_id
WHERE d.id = back.device_id
RETURNING d.id
""",
)

# Whether an earlier attempt of the round may have reached the phone, or did and was told too late to stop the next.
# Index attempt_message_release.
IN_DOUBT = """(m.attempts > 0 AND EXISTS (
    SELECT FROM messaging_attempt a
    WHERE a.message_id = m.id AND a.round = m.round AND a.outcome IN ('unknown', 'accepted')))"""

# A message that ends without a call to the gateway: nothing in the content or the lead will ever let it go out. Where
# an earlier attempt is in doubt it ends as unknown: what may have reached the phone is not called cancelled or failed.
_END_UNSENT = """
WITH ended AS (
    UPDATE messaging_message m
    SET state = CASE WHEN {in_doubt} THEN 'unknown' ELSE %(state)s END,
        error_code = %(error_code)s, error_text = %(error_text)s
    WHERE m.id = %(message)s AND m.release_no = %(release_no)s AND m.state = 'queued'
    RETURNING m.stream_id, m.device_id, m.state
), counted AS (
    UPDATE messaging_stream s
    SET waiting = s.waiting - 1, is_open = s.waiting - 1 > 0,
        failed = s.failed + (ended.state = 'failed')::int,
        cancelled = s.cancelled + (ended.state = 'cancelled')::int,
        expired = s.expired + (ended.state = 'expired')::int,
        unknown = s.unknown + (ended.state = 'unknown')::int
    FROM ended WHERE s.id = ended.stream_id
)
UPDATE devices_device d SET wake_at = least(d.wake_at, greatest(flotilla_now(), d.next_send_at, d.held_until))
FROM ended WHERE d.id = ended.device_id
RETURNING d.id
"""
END_UNSENT = Statement("end_unsent", _END_UNSENT.format(in_doubt=IN_DOUBT))

# Why a claim found nothing to claim.
WHY_NOT = Statement(
    "why_not",
    """
SELECT d.state AS device_state, b.state AS batch_state, b.expires_at <= flotilla_now() AS expired,
       m.lead_id IS NULL AS lead_gone, l.opted_out_at IS NOT NULL AS opted_out,
       extract(epoch FROM greatest(
           CASE WHEN d.cap_per_hour IS NOT NULL THEN (
               SELECT a.started_at FROM messaging_attempt a WHERE a.device_id = d.id
               ORDER BY a.started_at DESC OFFSET greatest(d.cap_per_hour - 1, 0) LIMIT 1) + interval '1 hour' END,
           CASE WHEN least(d.cap_per_day, %(warm_up_cap)s) IS NOT NULL THEN (
               SELECT a.started_at FROM messaging_attempt a WHERE a.device_id = d.id
               ORDER BY a.started_at DESC OFFSET greatest(least(d.cap_per_day, %(warm_up_cap)s) - 1, 0) LIMIT 1
           ) + interval '1 day' END
       ) - flotilla_now()) AS capped_for_seconds
FROM messaging_message m
JOIN messaging_batch b ON b.id = m.batch_id
JOIN devices_device d ON d.id = m.device_id
LEFT JOIN leads_lead l ON l.id = m.lead_id
WHERE m.id = %(message)s AND m.release_no = %(release_no)s AND m.state = 'queued'
""",
)

# -- what a device needs after an outcome ------------------------------------------------------------------------------

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

RECONNECT_FAILED = Statement(
    "reconnect_failed",
    """
UPDATE devices_device
SET reconnect_failures = reconnect_failures + 1,
    state = CASE WHEN reconnect_failures + 1 >= %(most)s THEN 'needs_attention' ELSE state END,
    state_reason = CASE WHEN reconnect_failures + 1 >= %(most)s THEN %(reason)s ELSE state_reason END,
    attention_code = CASE WHEN reconnect_failures + 1 >= %(most)s THEN 'unreachable' ELSE attention_code END,
    held_until = flotilla_now() + make_interval(mins => (%(minutes)s::int[])[reconnect_failures + 1]),
    hold_reason = %(reason)s
WHERE id = %(device)s AND state = 'active'
RETURNING reconnect_failures, state
""",
)

# -- recovery ----------------------------------------------------------------------------------------------------------

# Index message_one_in_flight, as for the next two: it holds no more rows than the fleet has lanes.
UNCLAIMED = Statement(
    "unclaimed",
    """
SELECT id, device_id, release_no FROM messaging_message
WHERE state = 'queued' AND queued_at < flotilla_now() - make_interval(secs => %(seconds)s)
ORDER BY queued_at LIMIT %(limit)s
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
