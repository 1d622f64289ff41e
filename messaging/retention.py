"""Letting go of what is old, so that tables stay as large as what is in use: a little each minute, as the settings say.

* **Messages** of a batch that ended and expired long ago go, with their attempts, whatever they ended as. The batch,
  its streams and their counters stay, so every report still adds up; the days were counted long before. What has an
  outcome that somebody may still settle keeps its batch whole, and a sequence's step keeps its messages for as long as
  it is in use: they say who has had it.
* **Texts** of attempts are emptied; the attempt stays.
* **Replies** go; how often somebody replied stays with the lead.
* **Changes** of leads go; consent stays, it is the proof.

Each step is one short transaction over a bounded number of rows, found by a primary key or an index and never by a
look through a table; what one tick has no time for, the next does.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from functools import partial
from time import monotonic
from typing import Any

import structlog
from django.conf import settings
from django.db import connection, transaction

from messaging.models import RetentionMark

log = structlog.get_logger(__name__)

AT_ONCE = 5_000
"""Rows per transaction."""
SECONDS = 5.0
"""How long one tick goes on."""

# Index batch_unemptied, oldest first. Marked before the first row goes, so that nobody takes the missing rows for a
# mistake in the counters. A step's batch expires long after its last message (messaging.adding.KEEP_OPEN).
_CHOOSE = """
UPDATE messaging_batch SET emptying_at = coalesce(emptying_at, %(now)s)
WHERE id = (
    SELECT id FROM messaging_batch b
    WHERE finished_at < %(before)s AND emptied_at IS NULL AND expires_at < %(now)s
      AND state IN ('finished', 'failed', 'cancelled')
      AND NOT EXISTS (SELECT FROM messaging_stream s
                      WHERE s.batch_id = b.id AND (s.is_open OR s.unknown > s.presumed))
    ORDER BY finished_at LIMIT 1 FOR NO KEY UPDATE SKIP LOCKED)
RETURNING id
"""
# Index message_batch_phone, then attempt_message_release. Attempts first in the text, since their messages are locked
# by the choice; the order of the deletions does not matter to foreign keys that are checked at the commit.
_EMPTY = """
WITH gone AS MATERIALIZED (
    SELECT id FROM messaging_message WHERE batch_id = %(batch)s
      AND state NOT IN ('pending', 'queued', 'sending') ORDER BY phone LIMIT %(limit)s FOR UPDATE
), attempts AS (
    DELETE FROM messaging_attempt a USING gone WHERE a.message_id = gone.id
)
DELETE FROM messaging_message m USING gone WHERE m.id = gone.id
"""
_EMPTIED = "UPDATE messaging_batch SET emptied_at = %(now)s WHERE id = %(batch)s"

# Ids grow with time, so what is old stands together at the beginning. Primary keys.
_NEXT_ATTEMPTS = """
SELECT id, started_at < %(before)s FROM messaging_attempt WHERE id > %(after)s ORDER BY id LIMIT %(limit)s
"""
_EMPTY_TEXTS = """
UPDATE messaging_attempt SET text = ''
WHERE id > %(after)s AND id <= %(upto)s AND text <> '' AND started_at < %(before)s
"""
_OLD_ROWS = """
DELETE FROM {table} t USING (SELECT id, {at} AS at FROM {table} ORDER BY id LIMIT %(limit)s) old
WHERE t.id = old.id AND old.at < %(before)s
"""
_REPLIES = _OLD_ROWS.format(table="messaging_inboundmessage", at="received_at")
_CHANGES = _OLD_ROWS.format(table="leads_leadchange", at="changed_at")


def let_go(*, now: datetime, seconds: float = SECONDS, at_once: int = AT_ONCE) -> dict[str, int]:
    """One tick: every kind in turn, until nothing old is left or the time is up; how many rows of each."""
    ends_at = monotonic() + seconds
    left: dict[str, Callable[[], int]] = {
        kind: partial(step, before=now - timedelta(days=days), now=now, at_once=at_once)
        for kind, (step, days) in _steps().items()
        if days is not None
    }
    done = dict.fromkeys(left, 0)
    while left and monotonic() < ends_at:
        for kind, step in list(left.items()):
            number = step()
            done[kind] += max(number, 0)
            if number < 0:
                del left[kind]
    told = {kind: number for kind, number in done.items() if number}
    if told:
        log.info("retention.let_go", **told)
    return done


def _steps() -> dict[str, tuple[Callable[..., int], float | None]]:
    """By kind, the step and for how many days its rows are kept. A step returns rows, or -1 when nothing is left."""
    return {
        "messages": (empty_batch, settings.FLOTILLA_KEEP_MESSAGE_DAYS),
        "texts": (empty_texts, settings.FLOTILLA_KEEP_TEXT_DAYS),
        "replies": (partial(_remove, _REPLIES), settings.FLOTILLA_KEEP_REPLY_DAYS),
        "changes": (partial(_remove, _CHANGES), settings.FLOTILLA_KEEP_CHANGE_DAYS),
    }


def empty_batch(*, before: datetime, now: datetime, at_once: int = AT_ONCE) -> int:
    """Remove up to ``at_once`` messages of the batch that ended first; how many, -1 if there is no such batch."""
    values: dict[str, Any] = {"before": before, "now": now, "limit": at_once}
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(_CHOOSE, values)
        chosen = cursor.fetchone()
    if chosen is None:
        return -1
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(_EMPTY, {**values, "batch": chosen[0]})
        number = int(cursor.rowcount)
        if number < at_once:
            cursor.execute(_EMPTIED, {**values, "batch": chosen[0]})
    return number


def empty_texts(*, before: datetime, now: datetime, at_once: int = AT_ONCE) -> int:  # noqa: ARG001 - a step's form
    """Empty the texts of up to ``at_once`` attempts; how many were looked at, -1 if none is old enough.

    The mark's row is what makes two ticks at once take turns.
    """
    RetentionMark.objects.get_or_create(kind="texts")
    with transaction.atomic(), connection.cursor() as cursor:
        mark = RetentionMark.objects.select_for_update().get(kind="texts")
        cursor.execute(_NEXT_ATTEMPTS, {"after": mark.row_id, "before": before, "limit": at_once})
        old: list[int] = []
        for pk, is_old in cursor.fetchall():
            if not is_old:
                break
            old.append(pk)
        if not old:
            return -1
        cursor.execute(_EMPTY_TEXTS, {"after": mark.row_id, "upto": old[-1], "before": before})
        RetentionMark.objects.filter(kind="texts").update(row_id=old[-1])
    return len(old)


def _remove(statement: str, *, before: datetime, now: datetime, at_once: int = AT_ONCE) -> int:  # noqa: ARG001
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(statement, {"before": before, "limit": at_once})
        return int(cursor.rowcount) or -1
