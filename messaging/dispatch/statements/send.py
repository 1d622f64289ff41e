"""A send: peek, claim, record, and what else may become of a released message."""

from __future__ import annotations

from messaging.dispatch.prepared import Statement

# Whether the device has written to this lead before, or the lead to it. Indexes message_lead_sent,
# inbound_lead_received.
KNOWN_CONTACT = """(
    EXISTS (SELECT FROM messaging_message o WHERE o.lead_id = m.lead_id AND o.device_id = m.device_id AND o.id <> m.id
            AND o.state IN ('sent', 'delivered', 'read'))
    OR EXISTS (SELECT FROM messaging_inboundmessage i WHERE i.lead_id = m.lead_id AND i.device_id = m.device_id))"""

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
       l.name, l.status, l.niches, l.triggers, l.custom, l.time_zone, b.priority,
       CASE WHEN d.new_contacts_held_until > flotilla_now() AND NOT {known}
            THEN extract(epoch FROM d.new_contacts_held_until - flotilla_now()) ELSE 0 END AS new_contact_seconds,
       b.request_id
FROM messaging_message m
JOIN messaging_batch b ON b.id = m.batch_id
JOIN devices_device d ON d.id = m.device_id
LEFT JOIN leads_lead l ON l.id = m.lead_id
WHERE {which}
"""
PEEK_TEMPLATE = PEEK_TEMPLATE.replace("{known}", KNOWN_CONTACT)
PEEK = Statement(
    "peek", PEEK_TEMPLATE.format(which="m.id = %(message)s AND m.release_no = %(release_no)s AND m.state = 'queued'")
)
PEEK_RELEASED = Statement(
    "peek_released", PEEK_TEMPLATE.format(which="m.id = nullif(current_setting('flotilla.released', true), '')::bigint")
)

LOCK_DEVICE = Statement("lock_device", "SELECT FROM devices_device WHERE id = %(device)s FOR NO KEY UPDATE")

# The last act before bytes leave. The lead's row is share-locked, so that an opt-out either waits for this commit or
# is seen here; so are a hold for review and, by the number of them, a reply that a message is not to follow (leads
# count their replies in that row). The one message that passes an opt-out is its confirmation. Indexes
# attempt_device_started (caps, over rolling windows), primary keys. ``{lock}`` is FOR NO KEY
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
    WHERE m.id = %(message)s AND l.review_at IS NULL
      AND (m.reply_no IS NULL OR m.reply_no = l.times_replied)
      AND (l.opted_out_at IS NULL OR (SELECT confirms_opt_out FROM messaging_batch WHERE id = m.batch_id))
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
        due_at = CASE WHEN %(state)s = 'pending' AND %(wait_seconds)s > 0  -- else it keeps its place in its stream
                      THEN flotilla_now() + make_interval(secs => %(wait_seconds)s) ELSE m.due_at END,
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
       m.lead_id IS NULL AS lead_gone, l.opted_out_at IS NOT NULL AND NOT b.confirms_opt_out AS opted_out,
       extract(epoch FROM greatest(
           CASE WHEN d.cap_per_hour IS NOT NULL THEN (
               SELECT a.started_at FROM messaging_attempt a WHERE a.device_id = d.id
               ORDER BY a.started_at DESC OFFSET greatest(d.cap_per_hour - 1, 0) LIMIT 1) + interval '1 hour' END,
           CASE WHEN least(d.cap_per_day, %(warm_up_cap)s) IS NOT NULL THEN (
               SELECT a.started_at FROM messaging_attempt a WHERE a.device_id = d.id
               ORDER BY a.started_at DESC OFFSET greatest(least(d.cap_per_day, %(warm_up_cap)s) - 1, 0) LIMIT 1
           ) + interval '1 day' END
       ) - flotilla_now()) AS capped_for_seconds,
       l.review_at IS NOT NULL AS in_review,
       CASE WHEN m.reply_no < 0 THEN 'withdrawn' WHEN m.reply_no <> l.times_replied THEN 'replied' END AS outrun
FROM messaging_message m
JOIN messaging_batch b ON b.id = m.batch_id
JOIN devices_device d ON d.id = m.device_id
LEFT JOIN leads_lead l ON l.id = m.lead_id
WHERE m.id = %(message)s AND m.release_no = %(release_no)s AND m.state = 'queued'
""",
)
