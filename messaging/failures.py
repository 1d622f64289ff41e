"""What has failed for good: noticed, told, archived after a while, deleted by hand; never lost by itself.

Many statements may let a message fail. None of them has to stamp the row: a tick *notices* what has failed since, one
process at a time and with stamps that only grow, so that “everything since the last digest” is one range of an index
and nothing that commits late slips by it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog
from django.conf import settings
from django.contrib.admin.models import DELETION, LogEntry
from django.contrib.auth.models import User
from django.contrib.contenttypes.models import ContentType
from django.db import connection, transaction
from django.db.models import F
from django.db.models.functions import Coalesce

from messaging.models import Message, Priority, Stream
from messaging.states import State

log = structlog.get_logger(__name__)

NOTICED_PER_TICK = 50_000
ARCHIVED_AT_ONCE, ARCHIVE_ROUNDS = 5_000, 20

# Index message_failed, as for everything here. A clock that was set back must not hide what fails next.
_NOTICE = """
WITH stamp AS (
    SELECT greatest(clock_timestamp(), max(failed_at) + interval '1 microsecond') AS at
    FROM messaging_message WHERE state = 'failed' AND archived_at IS NULL AND failed_at IS NOT NULL
), found AS (
    SELECT id FROM messaging_message
    WHERE state = 'failed' AND archived_at IS NULL AND failed_at IS NULL
    LIMIT %s FOR NO KEY UPDATE SKIP LOCKED
)
UPDATE messaging_message m SET failed_at = stamp.at FROM found, stamp WHERE m.id = found.id AND m.state = 'failed'
"""
_SINCE = """
SELECT g.batch_id, coalesce(b.name, ''), g.error_code, g.number, g.latest
FROM (SELECT CASE WHEN b.priority = %(interactive)s THEN NULL ELSE b.id END AS batch_id, m.error_code,
             count(*) AS number, max(m.failed_at) AS latest
      FROM messaging_message m JOIN messaging_batch b ON b.id = m.batch_id
      WHERE m.state = 'failed' AND m.archived_at IS NULL AND m.failed_at > %(since)s
      GROUP BY 1, 2) g
LEFT JOIN messaging_batch b ON b.id = g.batch_id
ORDER BY g.number DESC, g.batch_id, g.error_code
"""
_ARCHIVE = """
WITH old AS (
    SELECT id FROM messaging_message
    WHERE state = 'failed' AND archived_at IS NULL AND failed_at < %(before)s
    ORDER BY failed_at LIMIT %(limit)s FOR NO KEY UPDATE SKIP LOCKED
)
UPDATE messaging_message m SET archived_at = %(now)s FROM old WHERE m.id = old.id AND m.state = 'failed'
"""


class NotFailed(Exception):  # noqa: N818 - reads as a fact
    """Only failed messages may be deleted: anything else still has something ahead of it, or was sent."""

    code = "not_failed"

    def __init__(self, message_id: int) -> None:
        self.text = f"Message {message_id} has not failed: only failed messages can be deleted."
        super().__init__(self.text)


@dataclass(frozen=True, slots=True)
class Failures:
    """How many messages of one batch failed for one reason; single messages come together, as batch None."""

    batch_id: int | None
    batch_name: str
    code: str
    number: int
    latest: datetime


def notice() -> int:
    """Stamp what has failed since the last call; returns how many messages. One process at a time."""
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SELECT pg_try_advisory_xact_lock(hashtext('flotilla failures'))")
        if not cursor.fetchone()[0]:
            return 0
        cursor.execute(_NOTICE, [NOTICED_PER_TICK])
        return cursor.rowcount


def since(moment: datetime) -> list[Failures]:
    """What was noticed after ``moment`` and is still failed, the largest numbers first."""
    with connection.cursor() as cursor:
        cursor.execute(_SINCE, {"since": moment, "interactive": Priority.INTERACTIVE})
        return [Failures(*row) for row in cursor.fetchall()]


def archive(*, now: datetime) -> int:
    """Put away what failed ``FLOTILLA_ARCHIVE_FAILED_DAYS`` ago; returns how many messages, bounded per call.

    They are left out of lists and stay in every count; a new round takes them out again.
    """
    before = now - timedelta(days=settings.FLOTILLA_ARCHIVE_FAILED_DAYS)
    total = 0
    for _ in range(ARCHIVE_ROUNDS):
        with connection.cursor() as cursor:
            cursor.execute(_ARCHIVE, {"now": now, "before": before, "limit": ARCHIVED_AT_ONCE})
            total += cursor.rowcount
            if cursor.rowcount < ARCHIVED_AT_ONCE:
                break
    if total:
        log.info("failures.archived", messages=total)
    return total


def archive_chosen(*, message_ids: Iterable[int], now: datetime) -> int:
    """Put these away before their time, because a person has seen them; returns how many were failed and are now."""
    failed = Message.objects.filter(pk__in=list(message_ids), state=State.FAILED, archived_at__isnull=True)
    # Noticed as well, so that the digest's position never meets a row without a stamp.
    number = failed.update(archived_at=now, failed_at=Coalesce("failed_at", now))
    log.info("failures.archived_by_hand", messages=number)
    return number


def delete(*, message_id: int, by: User) -> None:
    """Delete a failed message with its attempts; the counters follow, and the log says who did it. Raises NotFailed."""
    with transaction.atomic():
        # Its stream after it, as everywhere.
        message = Message.objects.select_for_update().filter(pk=message_id, state=State.FAILED).first()
        if message is None:
            raise NotFailed(message_id)
        stream_id, batch_id, code = message.stream_id, message.batch_id, message.error_code
        message.delete()
        Stream.objects.filter(pk=stream_id).update(total=F("total") - 1, failed=F("failed") - 1)
        LogEntry.objects.create(
            user_id=by.pk,
            content_type=ContentType.objects.get_for_model(Message),
            object_id=str(message_id),
            object_repr=f"Message {message_id} of batch {batch_id}",
            action_flag=DELETION,
            change_message=f"Deleted; it had failed ({code or 'no code'}).",
        )
    log.info("failures.deleted", message_id=message_id, by=by.pk)
