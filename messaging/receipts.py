"""Receipts: what gateways tell later about messages, applied forward only.

A receipt is matched by our reference, which every attempt of a round carries, else by the gateway's own id. It moves
its message by the transitions ``left``, ``delivered``, ``read`` and ``bounced`` of :mod:`messaging.states`, in any
order and however often it is told: proof of arrival beats a failure, a failure beats “sent”, and nothing goes back.

News of an earlier round is dropped. News that comes too early (the worker has not recorded yet, or nobody has learned
the gateway's id) waits in :class:`~messaging.models.WaitingReceipt` and is tried again by :func:`match_waiting`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import structlog
from django.conf import settings

from devices.gateways.news import Receipt
from messaging.dispatch.pool import Pool, Session, shared_pool
from messaging.dispatch.prepared import Statement

log = structlog.get_logger(__name__)

LIMIT = 500
"""Waiting receipts tried per tick."""

# What dispatch.send.Job.reference writes: message, round, and the beginning of the uid, so that an id of another
# installation (or from before a restore) never hits a message of ours.
_REFERENCE = re.compile(r"([1-9][0-9]{0,17})-([1-9][0-9]{0,4})-([0-9a-f]{12})")

# One trip. The messages are locked in the order of their ids (device → lead → message → stream: no device is needed
# here), and everything is decided on the rows as locked, so that two receipts at once come one after the other.
# Indexes: primary key, message_external_id.
APPLY = Statement(
    "receipts_apply",
    """
WITH given AS MATERIALIZED (
    SELECT * FROM jsonb_to_recordset(%(events)s) AS g(
        event_id text, status text, at timestamptz, reference text, message bigint, round int, uid text,
        external_id text, device bigint, code text, text text, received_at timestamptz)
), meant AS MATERIALIZED (
    SELECT g.event_id, coalesce(g.message, named.id) AS message_id
    FROM given g
    LEFT JOIN LATERAL (
        SELECT m.id FROM messaging_message m JOIN devices_device d ON d.id = m.device_id AND d.gateway = %(gateway)s
        WHERE g.message IS NULL AND m.external_id = g.external_id AND NOT (m.external_id = '')
          AND (g.device IS NULL OR m.device_id = g.device)
        ORDER BY m.id DESC LIMIT 1
    ) named ON true
), held AS MATERIALIZED (
    SELECT m.id, m.stream_id, m.state, m.round, left(replace(m.uid::text, '-', ''), 12) AS uid, m.external_id,
           m.presumed_at, m.created_at
    FROM (SELECT DISTINCT message_id FROM meant) asked
    JOIN messaging_message m ON m.id = asked.message_id
    JOIN devices_device d ON d.id = m.device_id AND d.gateway = %(gateway)s
    ORDER BY m.id FOR UPDATE OF m
), about AS MATERIALIZED (  -- this round's news, with the message as it is now
    SELECT g.*, h.id, h.state, h.external_id AS known_as,
           least(greatest(g.at, h.created_at), flotilla_now()) AS happened_at
    FROM given g JOIN meant USING (event_id) JOIN held h ON h.id = meant.message_id
    WHERE g.message IS NULL OR (g.round = h.round AND g.uid = h.uid)
), told AS (
    SELECT id, state, max(external_id) AS external_id,
           bool_or(status = 'read') AS was_read,
           bool_or(status = 'delivered') AS was_delivered,
           bool_or(status = 'sent') AS was_sent,
           -- a failure of another attempt, which the gateway knows by another id, says nothing about this one
           bool_or(status = 'failed' AND (external_id = known_as OR external_id = '' OR known_as = '')) AS has_failed,
           min(happened_at) AS first_at,
           min(happened_at) FILTER (WHERE status IN ('delivered', 'read')) AS delivered_at,
           min(happened_at) FILTER (WHERE status = 'read') AS read_at,
           max(code) FILTER (WHERE status = 'failed') AS code,
           max(text) FILTER (WHERE status = 'failed') AS text
    FROM about GROUP BY id, state
), decided AS MATERIALIZED (
    SELECT * FROM (
        SELECT t.*, CASE
            WHEN was_read AND state IN ('pending', 'sent', 'delivered', 'unknown', 'failed') THEN 'read'
            WHEN was_delivered AND state IN ('pending', 'sent', 'unknown', 'failed') THEN 'delivered'
            WHEN has_failed AND state IN ('sent', 'unknown') THEN 'failed'
            WHEN was_sent AND state IN ('pending', 'unknown') THEN 'sent' END AS target
        FROM told t) t
    WHERE target IS NOT NULL
), moved AS (
    UPDATE messaging_message m
    SET state = d.target, presumed_at = NULL, failed_at = NULL, archived_at = NULL,
        sent_at = coalesce(m.sent_at, CASE WHEN d.target <> 'failed' THEN d.first_at END),
        delivered_at = coalesce(m.delivered_at, CASE WHEN d.target IN ('delivered', 'read')
                                                     THEN greatest(d.delivered_at, m.sent_at) END),
        read_at = CASE WHEN d.target = 'read' THEN greatest(d.read_at, m.sent_at, m.delivered_at) ELSE m.read_at END,
        external_id = coalesce(nullif(m.external_id, ''), d.external_id, ''),
        error_code = CASE WHEN d.target = 'failed' THEN coalesce(nullif(d.code, ''), 'bounced') ELSE '' END,
        error_text = CASE WHEN d.target = 'failed'
            THEN coalesce(nullif(d.text, ''), 'The gateway reported that it could not be delivered.') ELSE '' END
    FROM decided d WHERE m.id = d.id
), counts AS (
    SELECT h.stream_id,
           sum((d.target IN ('sent', 'delivered', 'read'))::int
               - (d.state IN ('sent', 'delivered', 'read'))::int) AS sent,
           sum((d.target IN ('delivered', 'read'))::int - (d.state IN ('delivered', 'read'))::int) AS delivered,
           sum((d.target = 'read')::int) AS read,
           sum((d.target = 'failed')::int - (d.state = 'failed')::int) AS failed,
           sum((d.state = 'pending')::int) AS waited,
           sum((d.state = 'unknown')::int) AS settled,
           sum((h.presumed_at IS NOT NULL)::int) AS presumed
    FROM decided d JOIN held h USING (id) GROUP BY h.stream_id
), streams AS MATERIALIZED (
    SELECT s.id FROM messaging_stream s JOIN counts c ON c.stream_id = s.id ORDER BY s.id FOR NO KEY UPDATE OF s
), counted AS (
    UPDATE messaging_stream s
    SET sent = s.sent + c.sent, delivered = s.delivered + c.delivered, read = s.read + c.read,
        failed = s.failed + c.failed, unknown = s.unknown - c.settled, presumed = s.presumed - c.presumed,
        waiting = s.waiting - c.waited, is_open = s.waiting - c.waited > 0
    FROM counts c JOIN streams ON streams.id = c.stream_id
    WHERE s.id = c.stream_id
), early AS (  -- nobody knows the id yet, or the worker has not told yet, or there may be another attempt
    SELECT g.* FROM given g JOIN meant USING (event_id) WHERE meant.message_id IS NULL AND g.external_id <> ''
    UNION ALL
    SELECT g.* FROM given g JOIN about a USING (event_id)
    WHERE a.state IN ('queued', 'sending') OR (a.state = 'pending' AND a.status = 'failed')
), kept AS (
    INSERT INTO messaging_waitingreceipt
        (gateway, event_id, device_id, reference, external_id, status, at, code, text, received_at, try_at)
    SELECT %(gateway)s, e.event_id, d.id, e.reference, e.external_id, e.status, e.at, e.code, e.text,
           coalesce(e.received_at, flotilla_now()),
           flotilla_now() + least(greatest(flotilla_now() - e.received_at, interval '2 seconds'), interval '10 minutes')
    FROM early e LEFT JOIN devices_device d ON d.id = e.device AND d.gateway = %(gateway)s
    WHERE coalesce(e.received_at, flotilla_now()) > flotilla_now() - make_interval(secs => %(seconds)s)
    ON CONFLICT (gateway, event_id) DO NOTHING
    RETURNING id
)
SELECT (SELECT count(*) FROM decided), (SELECT count(*) FROM kept)
""",
)

# Index waiting_receipt_try_at. Taken out and put back by APPLY if they are still too early.
TAKE = Statement(
    "receipts_take",
    """
DELETE FROM messaging_waitingreceipt
WHERE id IN (SELECT id FROM messaging_waitingreceipt WHERE try_at <= flotilla_now()
             ORDER BY try_at LIMIT %(limit)s FOR UPDATE SKIP LOCKED)
RETURNING gateway, received_at, event_id, status, at, reference, external_id, device_id, code, text
""",
)


@dataclass(frozen=True, slots=True)
class Applied:
    """How many messages moved, and how much of the news waits for its message."""

    moved: int
    waiting: int


def apply_receipts(*, gateway: str, receipts: Iterable[Receipt], pool: Pool | None = None) -> Applied:
    """Apply what a gateway of this kind told. Doing it again changes nothing."""
    events = [_event(receipt) for receipt in receipts]
    if not events:
        return Applied(0, 0)
    return Applied(*(pool or shared_pool()).execute(APPLY, _params(gateway, events))[0])


def match_waiting(*, pool: Pool | None = None) -> Applied:
    """One step: try what waited, of all gateways. What is too old is dropped."""
    with (pool or shared_pool()).transaction() as session:
        by_gateway: dict[str, list[dict[str, Any]]] = {}
        for gateway, received_at, *told in session.execute(TAKE, {"limit": LIMIT}):
            by_gateway.setdefault(gateway, []).append(_event(Receipt(*told), received_at=received_at))
        done = [_apply(session, gateway, events) for gateway, events in sorted(by_gateway.items())]
    moved, waiting = sum(each.moved for each in done), sum(each.waiting for each in done)
    dropped = sum(map(len, by_gateway.values())) - waiting
    if moved or dropped:
        log.info("receipts.matched", moved=moved, waiting=waiting, done_with=dropped)
    return Applied(moved, waiting)


def _apply(session: Session, gateway: str, events: list[dict[str, Any]]) -> Applied:
    return Applied(*session.execute(APPLY, _params(gateway, events))[0])


def _params(gateway: str, events: list[dict[str, Any]]) -> dict[str, Any]:
    seconds = 3600 * settings.FLOTILLA_RECEIPT_KEEP_HOURS
    return {"gateway": gateway, "events": json.dumps(events), "seconds": seconds}


def _event(receipt: Receipt, *, received_at: datetime | None = None) -> dict[str, Any]:
    """One row of APPLY's ``given``; ``received_at`` says that it has waited since then."""
    ours = _REFERENCE.fullmatch(receipt.reference)
    message, number, uid = ours.groups() if ours else (None, None, None)
    return {
        "event_id": receipt.event_id,
        "status": receipt.status,
        "at": receipt.at.isoformat(),
        "reference": receipt.reference,
        "message": message,
        "round": number,
        "uid": uid,
        "external_id": receipt.external_id,
        "device": receipt.device_id,
        "code": receipt.code[:60],
        "text": receipt.text[:300],
        "received_at": received_at.isoformat() if received_at else None,
    }
