"""Batches that grow: adding messages to one while it runs, taking some back, and moving them to another.

A sequence's step is such a batch: leads come to it one by one, for as long as there are any.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from django.contrib.auth.models import User
from django.db import connection, transaction

from messaging import services
from messaging.dispatch.statements import IN_DOUBT
from messaging.models import Batch, BatchState
from messaging.waking import wake

KEEP_OPEN = timedelta(days=365)
"""How long such a batch may go without a new message before it expires; whoever adds says how late is too late."""


@dataclass(frozen=True, slots=True)
class Addition:
    """One message to come. With ``reply_no`` it goes out only while the lead has written that often."""

    lead_id: int
    device_id: int
    phone: str
    reply_no: int | None = None


def open_growing(
    *,
    owner: User,
    name: str,
    origin: str,
    content: Mapping[str, Any],
    now: datetime,
    delay_min_seconds: float = 0,
    delay_max_seconds: float = 0,
    running: bool = True,
) -> Batch:
    """A batch to add to, found again by ``origin``; paused from the start unless ``running``."""
    batch = services.open_batch(
        owner=owner,
        name=name,
        content=content,
        now=now,
        origin=origin,
        delay_min_seconds=delay_min_seconds,
        delay_max_seconds=delay_max_seconds,
        expires_after=KEEP_OPEN,
    )
    if not running:
        services.pause_batch(batch_id=batch.pk)
    return batch


# Streams are locked in the order of their ids, as everywhere, and after the messages.
_ADD = """
WITH asked AS MATERIALIZED (
    SELECT a.* FROM jsonb_to_recordset(%(rows)s) AS a (lead_id bigint, device_id bigint, phone text, reply_no int)
), made AS MATERIALIZED (
    INSERT INTO messaging_message (batch_id, stream_id, device_id, lead_id, phone, due_at, reply_no)
    SELECT %(batch)s, s.id, a.device_id, a.lead_id, a.phone, %(now)s, a.reply_no
    FROM asked a JOIN messaging_stream s ON s.batch_id = %(batch)s AND s.device_id = a.device_id
    ORDER BY a.lead_id
    ON CONFLICT (batch_id, phone) DO NOTHING
    RETURNING id, stream_id, phone
), counts AS MATERIALIZED (
    SELECT stream_id, count(*) AS n FROM made GROUP BY stream_id
), held AS MATERIALIZED (
    SELECT id FROM messaging_stream WHERE id IN (SELECT stream_id FROM counts) ORDER BY id FOR NO KEY UPDATE
), counted AS (
    UPDATE messaging_stream s SET total = s.total + n, waiting = s.waiting + n, is_open = true
    FROM counts JOIN held ON held.id = counts.stream_id WHERE s.id = counts.stream_id
)
SELECT a.lead_id, made.id FROM made JOIN asked a ON a.phone = made.phone
"""
_OPEN_STREAMS = """
INSERT INTO messaging_stream (batch_id, device_id, priority, is_open, served_at, total, waiting, sent, delivered, read,
                              failed, cancelled, expired, unknown)
SELECT %(batch)s, d.id, %(priority)s, false, %(now)s, 0, 0, 0, 0, 0, 0, 0, 0, 0
FROM (SELECT DISTINCT id FROM unnest(%(devices)s::bigint[]) AS u (id) ORDER BY id) d
ON CONFLICT (batch_id, device_id) DO NOTHING
"""


def add(*, batch: Batch, additions: Sequence[Addition], now: datetime) -> dict[int, int]:
    """Put messages into a batch that may be running already; returns ``{lead: message}``.

    In the caller's transaction, so that what the caller writes down about it is as true as the messages are. Whoever
    is in the batch keeps the message they have, which is the one returned. A batch that had ended for want of messages
    runs again; one that was paused stays paused.
    """
    if not additions:
        return {}
    rows = [{"lead_id": a.lead_id, "device_id": a.device_id, "phone": a.phone, "reply_no": a.reply_no}
            for a in additions]  # fmt: skip
    devices = sorted({addition.device_id for addition in additions})
    params: dict[str, Any] = {
        "batch": batch.pk,
        "priority": batch.priority,
        "now": now,
        "devices": devices,
        "rows": json.dumps(rows),
    }
    with transaction.atomic(), connection.cursor() as cursor:
        # Before the messages: whoever finishes batches waits for this lock, or has let it go.
        _keep_open(batch, now)
        cursor.execute(_OPEN_STREAMS, params)
        cursor.execute(_ADD, params)
        found: dict[int, int] = dict(cursor.fetchall())
        missing = [addition.phone for addition in additions if addition.lead_id not in found]
        if missing:
            cursor.execute(
                "SELECT lead_id, id FROM messaging_message WHERE batch_id = %s AND phone = ANY(%s)", [batch.pk, missing]
            )
            found.update((lead, message) for lead, message in cursor.fetchall() if lead is not None)
        # After the commit: a record that waits for one of these streams holds its device.
        transaction.on_commit(partial(wake, devices))
    return found


def _keep_open(batch: Batch, now: datetime) -> None:
    locked = Batch.objects.select_for_update(no_key=True).get(pk=batch.pk)
    if locked.state == BatchState.FINISHED:
        Batch.objects.filter(pk=batch.pk).update(state=BatchState.RUNNING, finished_at=None, filled_at=None)
    if locked.expires_at < now + KEEP_OPEN / 2:
        Batch.objects.filter(pk=batch.pk).update(expires_at=now + KEEP_OPEN)


# What is at a gateway now, or may have arrived, cannot be taken back, but it is kept from going out another time.
_WITHDRAW = f"""
WITH held AS MATERIALIZED (
    SELECT m.id, m.stream_id, m.device_id, m.state, {IN_DOUBT} AS doubted FROM messaging_message m
    WHERE m.id = ANY(%(ids)s) AND m.state IN ('pending', 'queued', 'sending', 'unknown')
    ORDER BY m.id FOR NO KEY UPDATE
), ending AS (
    SELECT * FROM held WHERE state IN ('pending', 'queued')
), streams AS MATERIALIZED (
    SELECT id FROM messaging_stream WHERE id IN (SELECT stream_id FROM ending) ORDER BY id FOR NO KEY UPDATE
), ended AS (
    UPDATE messaging_message m
    SET state = CASE WHEN doubted THEN 'unknown' ELSE 'cancelled' END, error_code = %(code)s, error_text = %(text)s
    FROM ending JOIN streams ON streams.id = ending.stream_id
    WHERE m.id = ending.id AND m.state IN ('pending', 'queued')
    RETURNING m.id, m.stream_id, m.device_id, m.state
), barred AS (
    UPDATE messaging_message m SET reply_no = -1
    FROM held WHERE m.id = held.id AND held.state IN ('sending', 'unknown')
), counted AS (
    UPDATE messaging_stream s
    SET waiting = s.waiting - n, cancelled = s.cancelled + n - doubted, unknown = s.unknown + doubted,
        is_open = s.waiting - n > 0
    FROM (SELECT stream_id, count(*) AS n, count(*) FILTER (WHERE state = 'unknown') AS doubted
          FROM ended GROUP BY stream_id) c
    WHERE s.id = c.stream_id
)
SELECT id, device_id, state FROM ended
"""  # noqa: S608 - a condition of ours


def withdraw(*, message_ids: Collection[int], code: str, text: str) -> set[int]:
    """Cancel what of these has not left yet; returns the ids of those that surely never will.

    One that a worker is sending right now ends as it ends, but no other attempt is made. In the caller's transaction;
    the caller holds no device.
    """
    if not message_ids:
        return set()
    params: dict[str, Any] = {"ids": sorted(message_ids), "code": code, "text": text[:300]}
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(_WITHDRAW, params)
        rows = cursor.fetchall()
        if rows:
            transaction.on_commit(partial(wake, {device for _, device, _ in rows}))  # their lanes are free
    return {message for message, _, state in rows if state == "cancelled"}


_MOVE = """
WITH held AS MATERIALIZED (
    SELECT m.id, m.stream_id, t.id AS target FROM messaging_message m
    JOIN messaging_stream t ON t.batch_id = %(target)s AND t.device_id = m.device_id
    WHERE m.batch_id = %(source)s AND m.state = 'pending' AND m.attempts = 0
      AND NOT EXISTS (SELECT FROM messaging_message o WHERE o.batch_id = %(target)s AND o.phone = m.phone)
    ORDER BY m.id LIMIT %(limit)s FOR UPDATE OF m SKIP LOCKED
), streams AS MATERIALIZED (
    SELECT id FROM messaging_stream WHERE id IN (SELECT stream_id FROM held UNION SELECT target FROM held)
    ORDER BY id FOR NO KEY UPDATE
), moved AS (
    UPDATE messaging_message m SET batch_id = %(target)s, stream_id = held.target
    FROM held JOIN streams ON streams.id = held.target WHERE m.id = held.id RETURNING m.id
), counted AS (
    UPDATE messaging_stream s SET total = s.total + n, waiting = s.waiting + n, is_open = s.waiting + n > 0
    FROM (SELECT id, sum(n)::int AS n
          FROM (SELECT stream_id AS id, -1 AS n FROM held UNION ALL SELECT target, 1 FROM held) e GROUP BY id) c
    WHERE s.id = c.id
)
SELECT count(*) FROM moved
"""
MOVE_AT_ONCE = 10_000


def move_pending(*, source: Batch, target: Batch, now: datetime) -> int:
    """Move what waits in ``source`` and was not tried yet to ``target``, to go out with its content; how many."""
    with transaction.atomic(), connection.cursor() as cursor:
        devices = list(source.streams.filter(is_open=True).values_list("device_id", flat=True))
        if not devices:
            return 0
        _keep_open(target, now)
        params: dict[str, Any] = {"source": source.pk,
            "batch": target.pk, "target": target.pk, "devices": devices,
                                  "priority": target.priority,
                  "now": now, "limit": MOVE_AT_ONCE}  # fmt: skip
        cursor.execute(_OPEN_STREAMS, params)
        moved = 0
        while True:
            cursor.execute(_MOVE, params)
            number = int(cursor.fetchone()[0])
            moved += number
            if number < MOVE_AT_ONCE:
                break
        transaction.on_commit(partial(wake, devices))
    return moved


def close(*, batches: Iterable[int], now: datetime) -> None:
    """Nothing more will be added: they finish when nothing of them waits."""
    Batch.objects.filter(pk__in=list(batches), filled_at__isnull=True).update(filled_at=now)
