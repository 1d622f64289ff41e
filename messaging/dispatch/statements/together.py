"""The SQL of the corridor for many messages at once; :mod:`messaging.dispatch.convoy` says when, and why SKIP LOCKED.

What holds in :mod:`messaging.dispatch.statements` holds here: every move is conditional on the state it moves from and
on ``release_no``. Parameters are arrays of one length, a row each.
"""

from __future__ import annotations

from messaging.dispatch.prepared import Statement
from messaging.dispatch.statements.release import BESIDE_LANES, LAZILY, RELEASE_TEMPLATE, SET_WAKE_TEMPLATE
from messaging.dispatch.statements.send import PEEK_TEMPLATE

# As _CLAIM, and with its indexes. ``free``: messages nobody else holds; ``heard``: leads that nobody is changing now.
_CLAIM = """
WITH asked AS MATERIALIZED (
    SELECT * FROM unnest(%(messages)s::bigint[], %(release_nos)s::int[], %(devices)s::bigint[],
                         %(leases_seconds)s::float8[], %(gaps_seconds)s::float8[], %(references)s::text[],
                         %(texts)s::text[], %(warm_up_caps)s::int[])
           AS asked(id, release_no, device_id, lease_seconds, gap_seconds, reference, text, warm_up_cap)
), able AS MATERIALIZED (
    SELECT a.id AS message_id, d.id, a.gap_seconds FROM asked a JOIN devices_device d ON d.id = a.device_id
    WHERE d.state = 'active'
      AND (d.held_until IS NULL OR d.held_until <= flotilla_now())
      AND (d.next_send_at IS NULL OR d.next_send_at <= flotilla_now())
      {caps}
    {lock}
), free AS MATERIALIZED (
    SELECT m.id, m.lead_id, m.reply_no, a.lease_seconds
    FROM able
    JOIN asked a ON a.id = able.message_id
    JOIN messaging_message m ON m.id = a.id AND m.release_no = a.release_no AND m.device_id = able.id
    JOIN messaging_batch b ON b.id = m.batch_id AND b.state = 'running' AND b.expires_at > flotilla_now()
    WHERE m.state = 'queued' AND NOT EXISTS (SELECT FROM messaging_halt WHERE ended_at IS NULL)
    FOR NO KEY UPDATE OF m SKIP LOCKED
), heard AS MATERIALIZED (
    SELECT l.id, l.times_replied FROM leads_lead l
    WHERE l.id IN (SELECT lead_id FROM free) AND l.opted_out_at IS NULL AND l.review_at IS NULL
    FOR SHARE OF l SKIP LOCKED
), claimed AS (
    UPDATE messaging_message m
    SET state = 'sending', attempts = m.attempts + 1,
        lease_until = flotilla_now() + make_interval(secs => free.lease_seconds)
    FROM free JOIN heard ON heard.id = free.lead_id AND (free.reply_no IS NULL OR free.reply_no = heard.times_replied)
    WHERE m.id = free.id
    RETURNING m.id, m.device_id, m.release_no, m.attempts, m.round
){reserve}
INSERT INTO messaging_attempt (message_id, device_id, release_no, number, round, reference, text, started_at)
SELECT c.id, c.device_id, c.release_no, c.attempts, c.round, a.reference, a.text, flotilla_now()
FROM claimed c JOIN asked a ON a.id = c.id
RETURNING message_id, number, number > 1 AND EXISTS (
    SELECT FROM messaging_attempt earlier
    WHERE earlier.message_id = messaging_attempt.message_id AND earlier.round = messaging_attempt.round
      AND earlier.outcome IN ('unknown', 'accepted'))
"""
_CAPS = """AND (d.cap_per_hour IS NULL OR d.cap_per_hour > (
            SELECT count(*) FROM messaging_attempt t
            WHERE t.device_id = d.id AND t.started_at > flotilla_now() - interval '1 hour'))
      AND (least(d.cap_per_day, a.warm_up_cap) IS NULL OR least(d.cap_per_day, a.warm_up_cap) > (
            SELECT count(*) FROM messaging_attempt t
            WHERE t.device_id = d.id AND t.started_at > flotilla_now() - interval '1 day'))"""
_RESERVE = """, reserved AS (
    UPDATE devices_device d
    SET next_send_at = CASE WHEN able.gap_seconds > 0
                            THEN flotilla_now() + make_interval(secs => able.gap_seconds) END,
        last_sent_at = flotilla_now()
    FROM claimed JOIN able ON able.message_id = claimed.id
    WHERE d.id = able.id
)"""
CLAIM_PACED = Statement(
    "claim_many_paced", _CLAIM.format(caps=_CAPS, lock="FOR NO KEY UPDATE OF d SKIP LOCKED", reserve=_RESERVE)
)
CLAIM_FREE = Statement("claim_many_free", _CLAIM.format(caps="", lock="", reserve=""))

# As RECORD, for the outcome that nearly every send has.
RECORD_SENT = Statement(
    "record_many_sent",
    """
WITH asked AS MATERIALIZED (
    SELECT * FROM unnest(%(messages)s::bigint[], %(release_nos)s::int[], %(devices)s::bigint[],
                         %(gaps_seconds)s::float8[], %(external_ids)s::text[])
           AS asked(id, release_no, device_id, gap_seconds, external_id)
), sender AS MATERIALIZED (
    SELECT d.id, p.gap_seconds,
           p.gap_seconds > 0 OR d.wake_at IS NULL OR d.wake_at > flotilla_now() + interval '1 second'
           OR d.reconnect_failures > 0
           OR d.last_sent_at IS NULL OR d.last_sent_at < flotilla_now() - interval '1 second' AS is_told
    FROM (SELECT device_id, max(gap_seconds) AS gap_seconds FROM asked GROUP BY device_id) p
    JOIN devices_device d ON d.id = p.device_id
), told_now AS MATERIALIZED (  -- devices that have something to be told, and that nobody else holds
    SELECT d.id FROM devices_device d WHERE d.id IN (SELECT id FROM sender WHERE is_told)
    FOR NO KEY UPDATE OF d SKIP LOCKED
), held AS MATERIALIZED (
    SELECT m.id, m.release_no, m.state, m.stream_id, a.external_id
    FROM asked a
    JOIN sender s ON s.id = a.device_id AND (NOT s.is_told OR s.id IN (SELECT id FROM told_now))
    JOIN messaging_message m ON m.id = a.id AND m.release_no = a.release_no
    WHERE m.state IN ('sending', 'unknown') AND m.presumed_at IS NULL  -- which RECORD knows to count
    FOR NO KEY UPDATE OF m SKIP LOCKED
), counters AS MATERIALIZED (
    SELECT id FROM messaging_stream WHERE id IN (SELECT stream_id FROM held) ORDER BY id FOR NO KEY UPDATE
), moved AS (
    UPDATE messaging_message m
    SET state = 'sent', lease_until = NULL, sent_at = flotilla_now(), external_id = held.external_id,
        error_code = '', error_text = ''
    FROM held WHERE m.id = held.id AND (SELECT count(*) FROM counters) >= 0  -- the streams' locks come first
    RETURNING m.id
), told AS (
    UPDATE messaging_attempt t
    SET finished_at = flotilla_now(), outcome = 'accepted', external_id = held.external_id
    FROM held WHERE t.message_id = held.id AND t.release_no = held.release_no
), counted AS (
    UPDATE messaging_stream s
    SET waiting = s.waiting - c.was_sending, unknown = s.unknown - c.was_unknown, sent = s.sent + c.n,
        is_open = s.waiting - c.was_sending > 0
    FROM (SELECT stream_id, count(*) AS n, count(*) FILTER (WHERE state = 'sending') AS was_sending,
                 count(*) FILTER (WHERE state = 'unknown') AS was_unknown
          FROM held GROUP BY stream_id) c
    WHERE s.id = c.stream_id
), device AS (
    UPDATE devices_device d
    SET wake_at = least(d.wake_at,
                        greatest(d.next_send_at, flotilla_now() + make_interval(secs => s.gap_seconds))),
        next_send_at = CASE WHEN s.gap_seconds > 0
            THEN greatest(d.next_send_at, flotilla_now() + make_interval(secs => s.gap_seconds))
            ELSE d.next_send_at END,
        last_sent_at = flotilla_now(), reconnect_failures = 0
    FROM told_now JOIN sender s ON s.id = told_now.id WHERE d.id = told_now.id
)
SELECT id FROM moved
""",
)


# Hand-over, as LAZILY, THIS_DEVICE, RELEASE_NEXT, SET_WAKE_OF and PEEK_RELEASED, in one transaction and one trip. What
# one statement finds is remembered for the next ones in settings of the transaction: the devices that nobody else
# holds, what was released, and the devices that this filled.
def _remembered(name: str) -> str:
    return f"string_to_array(current_setting('flotilla.{name}'), ',')::bigint[]"


_FREE_DEVICES = Statement(
    "free_devices",
    """
SELECT set_config('flotilla.held', coalesce(string_agg(id::text, ','), ''), true)
FROM (SELECT id FROM devices_device WHERE id = ANY(%(devices)s) FOR NO KEY UPDATE SKIP LOCKED) held
""",
)
_RELEASE_HELD = Statement(
    "release_held",
    RELEASE_TEMPLATE.format(
        devices=f"d.id = ANY({_remembered('held')})",
        most="""least(count(*), (SELECT w.n FROM unnest(%(devices)s::bigint[], %(wants)s::int[]) AS w(id, n)
                                 WHERE w.id = slot.device_id))""",
        answer="""SELECT set_config('flotilla.released', coalesce(string_agg(id::text, ','), ''), true),
       set_config('flotilla.full', coalesce((SELECT string_agg(id::text, ',') FROM full_now), ''), true)
FROM released""",
    ),
)
_WAKE_HELD = Statement(
    "wake_held",
    SET_WAKE_TEMPLATE.format(
        asked=f"unnest({_remembered('held')}) AS asked(id)",
        not_before=BESIDE_LANES["not_before"],
        unless=f" AND d.id <> ALL({_remembered('full')})" + BESIDE_LANES["unless"],
    ),
)
_PEEK_EACH = """
SELECT held.id, peeked.* FROM unnest({held}) AS held(id)
LEFT JOIN ({peek}) AS peeked ON peeked.device_id = held.id
"""
_PEEK_HELD = Statement(
    "peek_held",
    _PEEK_EACH.format(
        held=_remembered("held"), peek=PEEK_TEMPLATE.format(which=f"m.id = ANY({_remembered('released')})")
    ),
)
HAND_OVER = (LAZILY, _FREE_DEVICES, _RELEASE_HELD, _WAKE_HELD, _PEEK_HELD)
"""Parameters: ``devices`` (distinct) and ``wants``, how many messages each. A row per message, led by its device's id;
a device with nothing due has one row of NULLs, a device that somebody holds has none."""
