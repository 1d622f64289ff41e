"""Ending what has not been sent: the messages of a batch that was cancelled, failed or expired.

No claim succeeds once the batch's own row says so; what is done here is the book-keeping, in small transactions,
because each holds streams that somebody's record may wait for. Whoever runs out of time leaves the rest to the next
tick.
"""

from __future__ import annotations

from datetime import datetime
from functools import partial
from time import monotonic
from typing import Any

from django.db import connection, transaction
from django.db.models import Q, QuerySet

from messaging.dispatch.statements import IN_DOUBT
from messaging.models import Batch, BatchState, Stream
from messaging.states import State
from messaging.waking import wake

STREAMS_AT_ONCE = 50
MESSAGES_PER_STREAM = 2_000
SECONDS = 2.0
"""How long one call goes on before it leaves the rest to a tick."""

ENDS = {
    BatchState.CANCELLED: (State.CANCELLED, "cancelled"),
    BatchState.FAILED: (State.FAILED, "run_failed"),
    BatchState.FINISHED: (State.EXPIRED, "expired"),
}
"""How unsent messages end with their batch: their state, and the code of the reason."""

# Indexes message_next and message_one_in_flight. What an earlier attempt may have brought to the phone ends as unknown,
# with the same reason: “cancelled” would promise that it never got there.
_END = """
WITH chosen AS (
    SELECT p.id FROM unnest(%(streams)s::bigint[]) AS s(id)
    CROSS JOIN LATERAL (SELECT id FROM messaging_message WHERE stream_id = s.id AND state = 'pending'{old}
                        ORDER BY due_at, id LIMIT %(most)s) p
    UNION ALL
    SELECT id FROM messaging_message
    WHERE device_id = ANY(%(devices)s) AND state = 'queued' AND stream_id = ANY(%(streams)s){old}
), ended AS (
    UPDATE messaging_message m
    SET state = CASE WHEN {in_doubt} THEN 'unknown' ELSE %(state)s END, error_code = %(code)s, error_text = %(text)s
    FROM chosen WHERE m.id = chosen.id AND m.state IN ('pending', 'queued')
    RETURNING m.stream_id, m.state
), counts AS (
    SELECT stream_id, count(*) AS n, count(*) FILTER (WHERE state = 'unknown') AS doubted
    FROM ended GROUP BY stream_id
), counted AS (
    UPDATE messaging_stream s
    SET waiting = s.waiting - n, {column} = s.{column} + n - doubted, unknown = s.unknown + doubted,
        is_open = s.waiting - n > 0
    FROM counts WHERE s.id = counts.stream_id
)
SELECT coalesce(sum(n), 0) FROM counts
"""
_COLUMNS = {State.CANCELLED: "cancelled", State.FAILED: "failed", State.EXPIRED: "expired"}


def end_unsent(*, batch_id: int, state: State, code: str, text: str, seconds: float = SECONDS) -> int:
    """Move what nothing has left for yet to ``state``, for up to ``seconds``; returns how many messages."""
    return _end(Stream.objects.filter(batch_id=batch_id), state=state, code=code, text=text, seconds=seconds)


def end_unsent_of(
    *, device_id: int, state: State, code: str, text: str, made_before: datetime | None = None, seconds: float = SECONDS
) -> int:
    """The same for everything that waits at one device, whatever its batch; or only for what was made before then."""
    streams = Stream.objects.filter(device_id=device_id)
    return _end(streams, state=state, code=code, text=text, seconds=seconds, made_before=made_before)


def _end(
    streams: QuerySet[Stream],
    *,
    state: State,
    code: str,
    text: str,
    seconds: float,
    made_before: datetime | None = None,
) -> int:
    ends_at, number = monotonic() + seconds, 0
    rows = list(streams.filter(is_open=True).order_by("device_id", "id").values_list("pk", "device_id"))
    for first in range(0, len(rows), STREAMS_AT_ONCE):
        some = rows[first : first + STREAMS_AT_ONCE]
        params: dict[str, Any] = {
            "streams": [stream for stream, _ in some],
            "devices": sorted({device for _, device in some}),
            "most": MESSAGES_PER_STREAM,
            "state": state.value,
            "code": code,
            "text": text[:300],
            "made_before": made_before,
        }
        while (ended := _end_some(params, column=_COLUMNS[state])) and monotonic() < ends_at:
            number += ended
        number += ended
        if monotonic() > ends_at:
            break
    return number


def _end_some(params: dict[str, Any], *, column: str) -> int:
    with transaction.atomic(), connection.cursor() as cursor:
        old = " AND created_at < %(made_before)s" if params["made_before"] is not None else ""
        cursor.execute(_END.format(column=column, in_doubt=IN_DOUBT, old=old), params)
        number = int(cursor.fetchone()[0])
        if number:
            # Their lanes are free. After the commit: a record that waits for one of these streams holds its device.
            transaction.on_commit(partial(wake, params["devices"]))
    return number


def end_leftovers(*, now: datetime) -> int:
    """End what still waits in batches that have ended; returns how many messages.

    That is what an earlier call had no time for, and what was at a gateway while its batch was cancelled and came back
    as “again later”.
    """
    # Index stream_open_by_batch.
    ended = Batch.objects.filter(streams__is_open=True).filter(
        Q(state__in=[BatchState.CANCELLED, BatchState.FAILED]) | Q(state=BatchState.FINISHED, expires_at__lte=now)
    )
    number = 0
    for batch in ended.distinct().defer("content")[:100]:
        state, code = ENDS[BatchState(batch.state)]
        number += end_unsent(batch_id=batch.pk, state=state, code=code, text=batch.reason or "Its batch had ended.")
    return number
