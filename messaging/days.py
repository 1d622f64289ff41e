"""Counts per device and day, taken from the streams' counters by a tick; a recount reads the messages themselves.

No index on messages is needed for it and no statement that moves one knows of it: what a stream's counters have grown
by since the last tick belongs to today. A tick looks at the streams of live batches, at the newest ones, and at one
stretch of all others in turn, for receipts that come long after their batch has ended.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any

import structlog
from django.conf import settings
from django.db import IntegrityError, connection, transaction
from django.db.models import Sum
from django.utils import timezone

from devices.access import AnyUser
from messaging.models import DayCount, DayCursor

log = structlog.get_logger(__name__)

NEWEST_STREAMS, WALKED_STREAMS = 5_000, 20_000
"""How many streams one tick looks at beside those of live batches."""

SETTLED = timedelta(seconds=10)
"""A reply is counted once it is this old: one with a smaller id may still be about to commit."""

# Indexes batch_live and stream_batch_device, primary keys. Grown only: a retry takes a failure back, and what happened
# on a day stays so.
_TAKE_IN = """
WITH looked AS MATERIALIZED (
    SELECT s.id, s.device_id, s.sent, s.delivered, s.read, s.failed FROM messaging_stream s
    WHERE s.batch_id IN (SELECT id FROM messaging_batch WHERE state IN ('running', 'paused'))
       OR s.id > (SELECT max(id) FROM messaging_stream) - %(newest)s
       OR (s.id > %(walk_from)s AND s.id <= %(walk_to)s)
), grown AS MATERIALIZED (
    SELECT l.*, greatest(l.sent - coalesce(m.sent, 0), 0) AS more_sent,
           greatest(l.delivered - coalesce(m.delivered, 0), 0) AS more_delivered,
           greatest(l.read - coalesce(m.read, 0), 0) AS more_read,
           greatest(l.failed - coalesce(m.failed, 0), 0) AS more_failed
    FROM looked l LEFT JOIN messaging_streammark m ON m.stream_id = l.id
    WHERE ROW(l.sent, l.delivered, l.read, l.failed)
          <> ROW(coalesce(m.sent, 0), coalesce(m.delivered, 0), coalesce(m.read, 0), coalesce(m.failed, 0))
), marked AS (
    INSERT INTO messaging_streammark (stream_id, sent, delivered, read, failed)
    SELECT id, sent, delivered, read, failed FROM grown
    ON CONFLICT (stream_id) DO UPDATE SET sent = EXCLUDED.sent, delivered = EXCLUDED.delivered,
                                          read = EXCLUDED.read, failed = EXCLUDED.failed
)
INSERT INTO messaging_daycount AS d (device_id, day, sent, delivered, read, failed, replied)
SELECT device_id, %(day)s, sum(more_sent), sum(more_delivered), sum(more_read), sum(more_failed), 0
FROM grown GROUP BY device_id HAVING sum(more_sent + more_delivered + more_read + more_failed) > 0
ON CONFLICT (day, device_id) DO UPDATE SET sent = d.sent + EXCLUDED.sent, delivered = d.delivered + EXCLUDED.delivered,
                                           read = d.read + EXCLUDED.read, failed = d.failed + EXCLUDED.failed
"""
_TAKE_IN_REPLIES = """
WITH heard AS MATERIALIZED (
    SELECT id, device_id, (received_at AT TIME ZONE %(zone)s)::date AS day FROM messaging_inboundmessage
    WHERE id > %(after)s AND received_at <= %(until)s
), counted AS (
    INSERT INTO messaging_daycount AS d (device_id, day, sent, delivered, read, failed, replied)
    SELECT device_id, day, 0, 0, 0, 0, count(*) FROM heard WHERE device_id IS NOT NULL GROUP BY device_id, day
    ON CONFLICT (day, device_id) DO UPDATE SET replied = d.replied + EXCLUDED.replied
)
SELECT max(id) FROM heard
"""

# One statement, so one snapshot: what it counts and the marks it sets agree, whatever moves meanwhile.
_RECOUNT = """
WITH happened AS MATERIALIZED (
    SELECT device_id, (at AT TIME ZONE %(zone)s)::date AS day, what FROM (
        SELECT m.device_id, e.at, e.what FROM messaging_message m CROSS JOIN LATERAL (VALUES
            (CASE WHEN m.state IN ('sent', 'delivered', 'read') THEN m.sent_at END, 'sent'),
            (m.delivered_at, 'delivered'), (m.read_at, 'read'),
            (CASE WHEN m.state = 'failed' THEN coalesce(m.failed_at, %(now)s) END, 'failed')) e(at, what)
        WHERE e.at >= %(since)s
        UNION ALL
        SELECT device_id, received_at, 'replied' FROM messaging_inboundmessage
        WHERE device_id IS NOT NULL AND received_at >= %(since)s AND id <= %(reply)s
    ) every
), counted AS MATERIALIZED (
    SELECT device_id, day, count(*) FILTER (WHERE what = 'sent') AS sent,
           count(*) FILTER (WHERE what = 'delivered') AS delivered, count(*) FILTER (WHERE what = 'read') AS read,
           count(*) FILTER (WHERE what = 'failed') AS failed, count(*) FILTER (WHERE what = 'replied') AS replied
    FROM happened GROUP BY device_id, day
), marked AS (
    INSERT INTO messaging_streammark (stream_id, sent, delivered, read, failed)
    SELECT id, sent, delivered, read, failed FROM messaging_stream
    ON CONFLICT (stream_id) DO UPDATE SET sent = EXCLUDED.sent, delivered = EXCLUDED.delivered,
                                          read = EXCLUDED.read, failed = EXCLUDED.failed
), emptied AS (
    DELETE FROM messaging_daycount d WHERE d.day >= %(first)s
    AND NOT EXISTS (SELECT FROM counted c WHERE c.day = d.day AND c.device_id = d.device_id)
)
INSERT INTO messaging_daycount (device_id, day, sent, delivered, read, failed, replied)
SELECT device_id, day, sent, delivered, read, failed, replied FROM counted
ON CONFLICT (day, device_id) DO UPDATE SET sent = EXCLUDED.sent, delivered = EXCLUDED.delivered, read = EXCLUDED.read,
                                           failed = EXCLUDED.failed, replied = EXCLUDED.replied
"""


@dataclass(frozen=True, slots=True)
class Day:
    """What happened on one day."""

    day: date
    sent: int = 0
    delivered: int = 0
    read: int = 0
    failed: int = 0
    replied: int = 0


def today(now: datetime) -> date:
    """The day it is by the installation's clock."""
    return timezone.localtime(now, timezone.get_default_timezone()).date()


def take_in(*, now: datetime) -> bool:
    """One tick; False where another process is at it, or a device was deleted meanwhile: the next tick does it."""
    DayCursor.objects.get_or_create(pk=DayCursor.ONLY)
    try:
        with transaction.atomic():
            place = DayCursor.objects.select_for_update(skip_locked=True).filter(pk=DayCursor.ONLY).first()
            if place is None:
                return False
            _take_in(place, now)
    except IntegrityError:
        return False
    return True


def _take_in(place: DayCursor, now: datetime) -> None:
    walk = {"walk_from": place.stream_id, "walk_to": place.stream_id + WALKED_STREAMS, "newest": NEWEST_STREAMS}
    with connection.cursor() as cursor:
        cursor.execute(_TAKE_IN, {**walk, "day": today(now)})
        cursor.execute(_TAKE_IN_REPLIES, {"after": place.reply_id, "until": now - SETTLED, "zone": settings.TIME_ZONE})
        place.reply_id = cursor.fetchone()[0] or place.reply_id
        cursor.execute("SELECT coalesce(max(id), 0) FROM messaging_stream")
        place.stream_id = walk["walk_to"] if walk["walk_to"] < cursor.fetchone()[0] else 0
    place.save()


def recount(*, days: int, now: datetime) -> None:
    """Count the last ``days`` days again from messages and replies. Reads every message; deleted ones are not found."""
    first = today(now) - timedelta(days=days - 1)
    since = datetime.combine(first, datetime.min.time(), tzinfo=timezone.get_default_timezone())
    DayCursor.objects.get_or_create(pk=DayCursor.ONLY)
    with transaction.atomic(), connection.cursor() as cursor:
        place = DayCursor.objects.select_for_update().get(pk=DayCursor.ONLY)
        cursor.execute("SELECT coalesce(max(id), 0) FROM messaging_inboundmessage")
        place.reply_id = cursor.fetchone()[0]
        values: dict[str, Any] = {
            "zone": settings.TIME_ZONE,
            "now": now,
            "since": since,
            "first": first,
            "reply": place.reply_id,
        }
        cursor.execute(_RECOUNT, values)
        place.save()
    log.info("days.recounted", since=first.isoformat())


def last_days(
    *, user: AnyUser, days: int, now: datetime, device_id: int | None = None, of_all: bool = False
) -> list[Day]:
    """The last ``days`` days of the devices that ``user`` may see, or ``of_all`` devices, or of one of these; oldest
    first, empty days as well; one query."""
    first = today(now) - timedelta(days=days - 1)
    seen = DayCount.objects.all() if of_all else DayCount.objects.visible_to(user)
    if device_id is not None:
        seen = seen.filter(device=device_id)
    rows = seen.filter(day__gte=first).order_by().values("day")
    found: dict[date, Any] = {row["day"]: row for row in rows.annotate(**_sums(DayCount.COUNTED))}
    return [
        Day(day, *(found[day][f"{name}_"] for name in DayCount.COUNTED)) if day in found else Day(day)
        for day in (first + timedelta(days=number) for number in range(days))
    ]


def _sums(names: Iterable[str]) -> dict[str, Sum]:
    return {f"{name}_": Sum(name) for name in names}
