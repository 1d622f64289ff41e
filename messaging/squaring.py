"""Comparing the streams' counters with the rows they count, and putting them right.

Counters move in the same statement as the rows, so in any snapshot the two agree: a difference is a mistake of ours,
and is logged as an error. One statement sees one snapshot, so comparing takes no lock and disturbs nobody; only a
stream that differs is locked and counted again. Batches whose old messages are being removed
(:mod:`messaging.retention`) are left out for good: their counters are all that stays.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import structlog
from django.db import connection, transaction
from django.db.models import F, Q, Sum

from messaging.models import Batch, BatchState, Stream
from messaging.states import WAITING

log = structlog.get_logger(__name__)

MESSAGES_PER_TICK = 500_000
"""How many messages one tick counts; about a second of one core."""

LIVE_PER_TICK, ENDED_PER_TICK = 50, 2000

MESSAGES_PER_MINUTE = 100_000
"""A live batch is counted no more than once a minute for each of these: one with a million messages every ten."""

_WAITING = ", ".join(f"'{state}'" for state in sorted(WAITING))
COUNTED: dict[str, str] = {
    "total": "true",
    "waiting": f"state IN ({_WAITING})",
    "sent": "state IN ('sent', 'delivered', 'read')",
    "delivered": "delivered_at IS NOT NULL",
    "read": "read_at IS NOT NULL",
    "failed": "state = 'failed'",
    "cancelled": "state = 'cancelled'",
    "expired": "state = 'expired'",
    "unknown": "state = 'unknown'",
    "presumed": "presumed_at IS NOT NULL",
}
"""Which messages each counter of a stream counts, as SQL."""

_COUNTS = ", ".join(f"count(*) FILTER (WHERE {condition}) AS {name}" for name, condition in COUNTED.items())
_TRUE = ", ".join(f"coalesce(c.{name}, 0)" for name in COUNTED)
_STORED = ", ".join(f"s.{name}" for name in COUNTED)
# Index message_batch_phone.
_COMPARE = f"""
WITH c AS (
    SELECT stream_id, {_COUNTS} FROM messaging_message WHERE batch_id = ANY(%(batches)s) {{only}} GROUP BY stream_id
)
SELECT s.id, s.batch_id, s.device_id, s.is_open, ARRAY[{_STORED}], ARRAY[{_TRUE}]
FROM messaging_stream s LEFT JOIN c ON c.stream_id = s.id
WHERE s.batch_id = ANY(%(batches)s) {{where}}
  AND (ROW({_STORED}) IS DISTINCT FROM ROW({_TRUE}) OR s.is_open <> (coalesce(c.waiting, 0) > 0))
  AND NOT EXISTS (SELECT FROM messaging_batch b WHERE b.id = s.batch_id AND b.emptying_at IS NOT NULL)
ORDER BY s.id
"""  # noqa: S608 - names and conditions of ours
_COMPARE_ALL = _COMPARE.format(only="", where="")
_COMPARE_ONE = _COMPARE.format(only="AND stream_id = %(stream)s", where="AND s.id = %(stream)s")


@dataclass(frozen=True, slots=True)
class Difference:
    """One stream whose counters were wrong: ``{counter: (stored, counted)}``, is_open among them as 0 or 1."""

    stream_id: int
    batch_id: int
    device_id: int
    counters: dict[str, tuple[int, int]]

    def __str__(self) -> str:
        words = ", ".join(f"{name} {stored}, counted {counted}" for name, (stored, counted) in self.counters.items())
        return f"stream {self.stream_id} (batch {self.batch_id}, device {self.device_id}): {words}"


def square(*, batch_ids: Iterable[int], correct: bool = True) -> list[Difference]:
    """Compare these batches; put right what differs unless ``correct`` is False. Returns what differed."""
    ids = list(batch_ids)
    found = _compare(_COMPARE_ALL, {"batches": ids})
    if not correct:
        return found
    return [difference for wrong in found if (difference := _correct(wrong)) is not None]


def square_due(*, now: datetime) -> int:
    """One tick: batches that have ended since they were last compared, then the live ones whose turn it is.

    Bounded by the number of messages; returns how many batches were compared.
    """
    ended = Batch.objects.filter(finished_at__isnull=False).filter(  # index batch_unsquared
        Q(squared_at__isnull=True) | Q(squared_at__lt=F("finished_at"))
    )
    minute_ago = now - timedelta(minutes=1)
    live = Batch.objects.filter(state__in=[BatchState.RUNNING, BatchState.PAUSED], created_at__lt=minute_ago)
    live = live.filter(Q(squared_at__isnull=True) | Q(squared_at__lt=minute_ago))
    ids = [
        *ended.order_by("pk").values_list("pk", flat=True)[:ENDED_PER_TICK],
        *live.order_by(F("squared_at").asc(nulls_first=True), "pk").values_list("pk", flat=True)[:LIVE_PER_TICK],
    ]
    chosen = _affordable(ids, now)
    square(batch_ids=chosen)
    Batch.objects.filter(pk__in=chosen).update(squared_at=now)
    return len(chosen)


def square_all(*, correct: bool = True, chunk: int = 200) -> Iterable[Difference]:
    """Compare every batch there is, oldest first."""
    last = 0
    while ids := list(Batch.objects.filter(pk__gt=last).order_by("pk").values_list("pk", flat=True)[:chunk]):
        yield from square(batch_ids=ids, correct=correct)
        last = ids[-1]


def _affordable(ids: Sequence[int], now: datetime) -> list[int]:
    """The first of ``ids`` that fit into a tick, at least one; large live ones whose time has not come are left out."""
    rows = Stream.objects.filter(batch_id__in=ids).values_list("batch_id", "batch__finished_at", "batch__squared_at")
    known = {pk: (size, done, squared) for pk, done, squared, size in rows.annotate(size=Sum("total"))}
    chosen: list[int] = []
    budget = MESSAGES_PER_TICK
    for pk in ids:
        size, finished_at, squared_at = known.get(pk, (0, None, None))
        rest = timedelta(minutes=size / MESSAGES_PER_MINUTE)
        if finished_at is None and squared_at is not None and squared_at > now - rest:
            continue
        if chosen and size > budget:
            break
        chosen.append(pk)
        budget -= size
    return chosen


def _compare(statement: str, params: dict[str, Any]) -> list[Difference]:
    with connection.cursor() as cursor:
        cursor.execute(statement, params)
        rows = cursor.fetchall()
    found = []
    for stream_id, batch_id, device_id, is_open, stored, counted in rows:
        pairs = dict(zip(COUNTED, zip(stored, counted, strict=True), strict=True))
        pairs["is_open"] = (int(is_open), int(pairs["waiting"][1] > 0))
        wrong = {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}
        found.append(Difference(stream_id, batch_id, device_id, wrong))
    return found


def _correct(wrong: Difference) -> Difference | None:
    """Count one stream again under its lock, so that the numbers written are those of a moment; None if it agrees now.

    Whoever is moving one of its messages right now waits for this lock with their counters, and their rows are not
    seen yet: what they add afterwards is right again.
    """
    with transaction.atomic():
        list(Stream.objects.select_for_update(no_key=True).filter(pk=wrong.stream_id).values_list("pk"))
        found = _compare(_COMPARE_ONE, {"batches": [wrong.batch_id], "stream": wrong.stream_id})
        if not found:
            return None
        (difference,) = found
        fresh = {name: counted for name, (_, counted) in difference.counters.items()}
        if "is_open" in fresh:
            fresh["is_open"] = bool(fresh["is_open"])
        Stream.objects.filter(pk=wrong.stream_id).update(**fresh)
    log.error(
        "counters.differed", stream_id=wrong.stream_id, batch_id=wrong.batch_id, device_id=wrong.device_id,
        counters={name: f"{stored} -> {counted}" for name, (stored, counted) in difference.counters.items()},
    )  # fmt: skip
    return difference
