"""Sending failed messages again, because a person asked for it: a new round for each."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any

import structlog
from django.db import connection, transaction

from messaging.models import Batch, BatchState, Message
from messaging.states import State
from messaging.waking import wake

log = structlog.get_logger(__name__)

LIMIT = 10_000
"""Messages per call: a longer list is retried in several."""


@dataclass(frozen=True, slots=True)
class Retried:
    """How many messages got a new round, and how many were left alone, by reason."""

    retried: int
    left_alone: dict[str, int]


REASONS = {
    "not_failed": "did not fail",
    "batch_ended": "belong to a batch that was ended",
    "batch_expired": "belong to a batch that has expired",
    "lead_deleted": "were to a lead that was deleted",
    "opted_out": "are to somebody who opted out",
    "rejected_for_good": "were refused by the gateway for good",
}
"""Why a message is left alone, to follow a number."""

# A refusal is for good: the number does not exist, the content is not allowed. Asking again by the thousand is how
# numbers get banned, so only a person who looked at one may insist.
_CHOOSE = """
SELECT m.id, m.device_id, m.batch_id,
       CASE WHEN m.state <> 'failed' THEN 'not_failed'
            WHEN b.state IN ('cancelled', 'failed') THEN 'batch_ended'
            WHEN b.expires_at <= %(now)s THEN 'batch_expired'
            WHEN l.id IS NULL THEN 'lead_deleted'
            WHEN l.opted_out_at IS NOT NULL THEN 'opted_out'
            WHEN m.archived_at IS NOT NULL AND NOT %(insist)s THEN 'archived'
            WHEN NOT %(insist)s AND (SELECT a.outcome FROM messaging_attempt a WHERE a.message_id = m.id
                                     ORDER BY a.release_no DESC LIMIT 1) = 'rejected' THEN 'rejected_for_good'
       END AS reason
FROM messaging_message m
JOIN messaging_batch b ON b.id = m.batch_id
LEFT JOIN leads_lead l ON l.id = m.lead_id
WHERE m.id = ANY(%(ids)s)
ORDER BY m.id
"""

# A new round: attempts start over, and so does the id at the gateway, because the old one stands for the old outcome.
_NEW_ROUND = """
WITH again AS (
    UPDATE messaging_message SET state = 'pending', round = round + 1, attempts = 0, due_at = %(now)s,
                                 error_code = '', error_text = '', external_id = '',
                                 failed_at = NULL, archived_at = NULL
    WHERE id = ANY(%(ids)s) AND state = 'failed'
    RETURNING stream_id
), counts AS (SELECT stream_id, count(*) AS n FROM again GROUP BY stream_id),
counted AS (
    UPDATE messaging_stream s SET failed = s.failed - n, waiting = s.waiting + n, is_open = true
    FROM counts WHERE s.id = counts.stream_id
)
SELECT coalesce(sum(n), 0) FROM counts
"""


def look_at(*, message_ids: Iterable[int], now: datetime, insist: bool = False) -> Retried:
    """What :func:`retry_failed` would do at this moment."""
    with connection.cursor() as cursor:
        chosen, left_alone = _choose(cursor, message_ids, now=now, insist=insist, lock="")
    return Retried(len(chosen), left_alone)


def retry_failed(*, message_ids: Iterable[int], now: datetime, insist: bool = False) -> Retried:
    """Give failed messages a new round, at most :data:`LIMIT` in one call; the old attempts are kept.

    Left alone and counted: what is not failed, whose batch ended or expired, whose lead is gone or opted out, and,
    unless ``insist``, what is archived or was refused by the gateway for good. A new round takes it out of the archive.
    """
    with transaction.atomic(), connection.cursor() as cursor:
        chosen, left_alone = _choose(cursor, message_ids, now=now, insist=insist, lock="FOR UPDATE OF m")
        cursor.execute(_NEW_ROUND, {"ids": [pk for pk, _, _ in chosen], "now": now})
        retried = int(cursor.fetchone()[0])
        Batch.objects.filter(pk__in={batch for _, _, batch in chosen}, state=BatchState.FINISHED).update(
            state=BatchState.RUNNING, finished_at=None
        )
        # After the commit: a record that waits for one of these streams holds its device, and must not be waited for.
        transaction.on_commit(partial(wake, {device for _, device, _ in chosen}))
    log.info("retry.asked", retried=retried, left_alone=left_alone)
    return Retried(retried, left_alone)


def _choose(
    cursor: Any, message_ids: Iterable[int], *, now: datetime, insist: bool, lock: str
) -> tuple[list[tuple[int, int, int]], dict[str, int]]:
    """(message, device, batch) of what gets a new round, and how many do not, by reason."""
    ids = list(dict.fromkeys(message_ids))[:LIMIT]
    cursor.execute(f"{_CHOOSE} {lock}", {"ids": ids, "now": now, "insist": insist})
    chosen: list[tuple[int, int, int]] = []
    left_alone: dict[str, int] = {}
    for pk, device_id, batch_id, reason in cursor.fetchall():
        if reason is None:
            chosen.append((pk, device_id, batch_id))
        else:
            left_alone[reason] = left_alone.get(reason, 0) + 1
    return chosen, left_alone


def failed_of_batch(batch_id: int, *, device_id: int | None = None) -> list[int]:
    """Ids of a batch's failed messages, of one device if given, oldest first, at most :data:`LIMIT`."""
    found = Message.objects.filter(batch_id=batch_id, state=State.FAILED).order_by("pk")
    if device_id is not None:
        found = found.filter(device_id=device_id)
    return list(found.values_list("pk", flat=True)[:LIMIT])
