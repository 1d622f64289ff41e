"""A history for demo data: what a batch would have come to, without any gateway.

Only for batches whose messages nobody could see yet: filled in the same transaction and never released. States and
counters move in one statement, like everywhere, and the days that the charts show are counted by when it "happened".
"""

from __future__ import annotations

from datetime import datetime, timedelta

from django.conf import settings
from django.db import connection

from messaging.models import Batch, BatchState

# Of twenty: one fails, two are taken, five delivered, the rest read.
_PLAY = """
WITH fate AS MATERIALIZED (
    SELECT m.id, split_part(coalesce(l.name, ''), ' ', 1) AS called,
           %(begin)s + %(span)s * (row_number() OVER (ORDER BY m.id) - 1) / count(*) OVER () AS at,
           CASE WHEN m.id %% 20 = 0 THEN 'failed' WHEN m.id %% 20 < 3 THEN 'sent' WHEN m.id %% 20 < 8 THEN 'delivered'
                ELSE 'read' END AS state
    FROM messaging_message m LEFT JOIN leads_lead l ON l.id = m.lead_id
    WHERE m.batch_id = %(batch)s AND m.state = 'pending' AND m.release_no = 0
), moved AS (
    UPDATE messaging_message m
    SET state = f.state, release_no = 1, attempts = 1, queued_at = f.at, due_at = f.at, created_at = %(begin)s,
        sent_at = CASE WHEN f.state <> 'failed' THEN f.at + interval '1 second' END,
        delivered_at = CASE WHEN f.state IN ('delivered', 'read') THEN f.at + interval '9 seconds' END,
        read_at = CASE WHEN f.state = 'read' THEN f.at + interval '7 minutes' END,
        failed_at = CASE WHEN f.state = 'failed' THEN f.at + interval '1 second' END,
        error_code = CASE WHEN f.state = 'failed' THEN 'not_on_whatsapp' ELSE '' END,
        error_text = CASE WHEN f.state = 'failed' THEN 'This number is not on WhatsApp.' ELSE '' END
    FROM fate f WHERE m.id = f.id AND m.state = 'pending'
    RETURNING m.id, m.stream_id, m.device_id, m.uid, m.state, m.error_code, m.error_text, f.at, f.called
), tried AS (
    INSERT INTO messaging_attempt (message_id, device_id, release_no, number, round, reference, text, started_at,
                                   finished_at, outcome, error_code, error_text)
    SELECT id, device_id, 1, 1, 1, uid, replace(%(text)s, '{{ first_name }}', called), at, at + interval '1 second',
           CASE WHEN state = 'failed' THEN 'rejected' ELSE 'accepted' END, error_code, error_text
    FROM moved
), counts AS (
    SELECT stream_id, count(*) AS n, count(*) FILTER (WHERE state <> 'failed') AS sent,
           count(*) FILTER (WHERE state IN ('delivered', 'read')) AS delivered,
           count(*) FILTER (WHERE state = 'read') AS read, count(*) FILTER (WHERE state = 'failed') AS failed
    FROM moved GROUP BY stream_id
), counted AS (
    UPDATE messaging_stream s
    SET waiting = s.waiting - n, sent = s.sent + c.sent, delivered = s.delivered + c.delivered, read = s.read + c.read,
        failed = s.failed + c.failed, is_open = s.waiting - n > 0
    FROM counts c WHERE s.id = c.stream_id
    RETURNING s.id, s.sent, s.delivered, s.read, s.failed
), marked AS (
    INSERT INTO messaging_streammark (stream_id, sent, delivered, read, failed) SELECT * FROM counted
), dayed AS (
    INSERT INTO messaging_daycount AS d (device_id, day, sent, delivered, read, failed, replied)
    SELECT device_id, (at AT TIME ZONE %(zone)s)::date, count(*) FILTER (WHERE state <> 'failed'),
           count(*) FILTER (WHERE state IN ('delivered', 'read')), count(*) FILTER (WHERE state = 'read'),
           count(*) FILTER (WHERE state = 'failed'), 0
    FROM moved GROUP BY 1, 2
    ON CONFLICT (day, device_id) DO UPDATE SET sent = d.sent + EXCLUDED.sent, delivered = d.delivered +
        EXCLUDED.delivered, read = d.read + EXCLUDED.read, failed = d.failed + EXCLUDED.failed
)
SELECT count(*) FROM moved
"""


def play(*, batch: Batch, begin: datetime, span: timedelta) -> int:
    """Let the batch have been sent over ``span`` from ``begin`` on, and end; returns how many messages that was.

    Call it in the transaction that filled the batch.
    """
    values = {
        "batch": batch.pk,
        "begin": begin,
        "span": span,
        "text": batch.content["text"],
        "zone": settings.TIME_ZONE,
    }
    with connection.cursor() as cursor:
        cursor.execute(_PLAY, values)
        moved = int(cursor.fetchone()[0])
    Batch.objects.filter(pk=batch.pk, state=BatchState.RUNNING).update(
        state=BatchState.FINISHED, created_at=begin, finished_at=begin + span
    )
    return moved
