"""Who answered a run: replies are read by a tick, and each is put down to the last message that the lead had got.

Messaging knows no campaigns, so it is asked. Rows and counters move in one statement; (batch, lead) is unique, so a
reply that is read twice counts once, and so does whoever writes ten times.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from django.db import connection, transaction

from campaigns.models import AnswerCount, AnswerCursor

WITHIN = timedelta(days=7)
"""A reply that comes later is no answer to the message."""

READ_AGAIN = timedelta(minutes=1)
REPLIES_PER_TICK = 5_000

# Index message_lead_sent. Only batches of runs; a message that came later belongs to whoever sent it.
_COUNT = """
WITH heard AS (
    SELECT i.id, i.lead_id, i.received_at FROM messaging_inboundmessage i
    WHERE i.id > %(after)s AND i.lead_id IS NOT NULL
    ORDER BY i.id LIMIT %(most)s
), answered AS (
    INSERT INTO campaigns_answer (batch_id, lead_id, device_id, answered_at)
    SELECT DISTINCT ON (m.batch_id, h.lead_id) m.batch_id, h.lead_id, m.device_id, h.received_at
    FROM heard h
    CROSS JOIN LATERAL (
        SELECT m.batch_id, m.device_id FROM messaging_message m
        WHERE m.lead_id = h.lead_id AND m.sent_at <= h.received_at AND m.sent_at > h.received_at - %(within)s
        ORDER BY m.sent_at DESC LIMIT 1) m
    WHERE EXISTS (SELECT FROM campaigns_run r WHERE r.batch_id = m.batch_id)
       OR EXISTS (SELECT FROM campaigns_runvariant v WHERE v.batch_id = m.batch_id)
    ORDER BY m.batch_id, h.lead_id, h.received_at
    ON CONFLICT (batch_id, lead_id) DO NOTHING
    RETURNING batch_id, device_id
), counted AS (
    INSERT INTO campaigns_answercount AS c (batch_id, device_id, replied)
    SELECT batch_id, device_id, count(*) FROM answered GROUP BY batch_id, device_id
    ON CONFLICT (batch_id, device_id) DO UPDATE SET replied = c.replied + EXCLUDED.replied
)
SELECT (SELECT count(*) FROM answered), (SELECT max(id) FROM heard), (SELECT count(*) FROM heard)
"""


def count_new(*, now: datetime) -> int:
    """Put new replies down to runs; returns how many leads answered. One process at a time."""
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SELECT pg_try_advisory_xact_lock(hashtext('flotilla answers'))")
        if not cursor.fetchone()[0]:
            return 0
        cursors = AnswerCursor.objects.order_by("pk")
        place = cursors.first() or AnswerCursor.objects.create(seen_at=now)
        params: dict[str, Any] = {"after": place.read_again_from, "most": REPLIES_PER_TICK, "within": WITHIN}
        cursor.execute(_COUNT, params)
        answered, last, heard = cursor.fetchone()
        if last is not None:
            _move_on(place, last, now, full=heard == REPLIES_PER_TICK)
    return int(answered)


def _move_on(place: AnswerCursor, last: int, now: datetime, *, full: bool) -> None:
    """Let go of what was seen a minute ago: whatever had a smaller id has been committed by now."""
    if full:
        place.read_again_from, place.seen, place.seen_at = last, last, now
    elif not timedelta(0) <= now - place.seen_at < READ_AGAIN:
        place.read_again_from, place.seen, place.seen_at = max(place.seen, place.read_again_from), last, now
    elif place.seen == 0:
        place.seen, place.seen_at = last, now
    place.save()


def replied_of(batch_ids: list[int]) -> dict[int, dict[int, int]]:
    """``{batch: {device: leads who answered}}``; one query."""
    found: dict[int, dict[int, int]] = {batch_id: {} for batch_id in batch_ids}
    rows = AnswerCount.objects.filter(batch__in=batch_ids).values_list("batch_id", "device_id", "replied")
    for batch_id, device_id, replied in rows:
        found[batch_id][device_id] = replied
    return found
