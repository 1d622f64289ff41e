"""Turning an audience into message rows: set-based, in chunks, resumable at any point."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from django.db import connection, transaction
from django.db.models import QuerySet
from django.utils import timezone

from leads.models import Lead
from messaging import failpoints
from messaging.models import Batch, BatchState
from messaging.waking import wake

CHUNK = 50_000
"""Leads per transaction: large enough to cost no more than one statement, small enough to hold no lock for long."""


class FanOutBusy(Exception):  # noqa: N818 - reads as a fact
    """Another process is filling this batch."""


class BatchOver(Exception):  # noqa: N818 - reads as a fact
    """The batch was cancelled, has failed or has expired: nothing more goes into it."""


def fill(
    *,
    batch_id: int,
    leads: QuerySet[Lead],
    devices: Sequence[int] = (),
    chunk: int = CHUNK,
    limit: int | None = None,
) -> int:
    """Make the batch's messages from ``leads``; returns how many were made by this call.

    With ``devices``, leads go to them turn by turn, at most ``limit`` to each: the rest, by id, is passed over.
    Without, each goes to its own device and leads without one are passed over. Each chunk commits its messages,
    counters and cursor together, so that an interrupted call is simply made again; a person already in the batch stays
    there once. Raises FanOutBusy.
    """
    made = 0
    while True:
        done, number = fill_chunk(batch_id=batch_id, leads=leads, devices=devices, chunk=chunk, limit=limit)
        made += number
        if done:
            return made


def fill_chunk(
    *,
    batch_id: int,
    leads: QuerySet[Lead],
    devices: Sequence[int] = (),
    chunk: int = CHUNK,
    limit: int | None = None,
) -> tuple[bool, int]:
    """One chunk of :func:`fill`: whether the batch is complete now, and how many messages were made."""
    with transaction.atomic():
        batch = Batch.objects.select_for_update(skip_locked=True, no_key=True).filter(pk=batch_id).first()
        if batch is None:
            raise FanOutBusy(f"batch {batch_id} is being filled by another process")
        if batch.filled_at is not None or batch.state not in {BatchState.RUNNING, BatchState.PAUSED}:
            return True, 0
        room = chunk if limit is None or not devices else len(devices) * limit - _made(batch)
        wanted = min(chunk, room)
        upper, picked = _pick(batch, leads.filter(pk__gt=batch.fill_cursor), devices, wanted) if wanted > 0 else (0, 0)
        if picked:
            _hold_devices(batch)
        made = _insert(batch) if picked else 0
        failpoints.hit("mid_fan_out")
        if picked:
            batch.fill_cursor = upper
        if picked < chunk:
            batch.filled_at = timezone.now()
        batch.save(update_fields=["fill_cursor", "filled_at"])
        return picked < chunk, made


def add(*, batch_id: int, leads: QuerySet[Lead], devices: Sequence[int]) -> int:
    """Put ``leads``, at most :data:`CHUNK`, into a batch that was filled before; returns how many messages were made.

    They go to ``devices`` turn by turn, or each to its own where there are none. A finished batch goes on. Call it in a
    transaction. Raises BatchOver.
    """
    batch = Batch.objects.select_for_update(no_key=True).get(pk=batch_id)
    over = batch.state in {BatchState.CANCELLED, BatchState.FAILED}
    if over or batch.expires_at <= timezone.now():
        raise BatchOver(f"batch {batch_id} is {batch.state if over else 'expired'}")
    _, picked = _pick(batch, leads, devices, CHUNK)
    made = _insert(batch) if picked else 0
    if made and batch.state == BatchState.FINISHED:
        Batch.objects.filter(pk=batch_id).update(state=BatchState.RUNNING, finished_at=None)
    return made


def _made(batch: Batch) -> int:
    return sum(batch.streams.values_list("total", flat=True))


def _pick(batch: Batch, leads: QuerySet[Lead], devices: Sequence[int], chunk: int) -> tuple[int, int]:
    """Put the next leads and their devices into a temporary table; returns (last lead id, number of leads)."""
    source = leads.order_by("pk").values("pk", "phone", "device_id")[:chunk]
    select, params = source.query.sql_with_params()
    route, more = "a.device_id", list[list[int] | int]()
    if devices:
        # The cursor makes the turns go on where the last chunk stopped, whoever fills the next.
        route = "(%s::bigint[])[1 + (%s + row_number() OVER (ORDER BY a.id) - 1) %% %s]"
        more = [list(devices), _made(batch), len(devices)]
    with connection.cursor() as cursor:
        cursor.execute("DROP TABLE IF EXISTS pg_temp.fan_out")
        cursor.execute(
            f"CREATE TEMPORARY TABLE fan_out ON COMMIT DROP AS "  # noqa: S608 - built from our own queryset
            f"SELECT a.id, a.phone, {route} AS device_id FROM ({select}) AS a (id, phone, device_id)",
            (*more, *params),
        )
        cursor.execute("SELECT coalesce(max(id), 0), count(*) FROM fan_out")
        upper, picked = cursor.fetchone()
    return upper, picked


def _hold_devices(batch: Batch) -> None:
    """Keep the devices of this chunk from being deleted before its commit. Raises FanOutBusy if one is gone already.

    The foreign key would find it at the commit only; the next try asks for the devices anew.
    """
    with connection.cursor() as cursor:
        cursor.execute(
            """WITH wanted AS (SELECT DISTINCT device_id AS id FROM fan_out WHERE device_id IS NOT NULL),
                    held AS (SELECT d.id FROM devices_device d JOIN wanted USING (id) ORDER BY d.id FOR KEY SHARE OF d)
               SELECT (SELECT count(*) FROM wanted) - (SELECT count(*) FROM held)"""
        )
        (gone,) = cursor.fetchone()
    if gone:
        raise FanOutBusy(f"{gone} devices of batch {batch.pk} were deleted meanwhile")


def _insert(batch: Batch) -> int:
    """Streams, messages and counters for what stands in the temporary table, then wake the devices."""
    params = {"batch": batch.pk, "priority": batch.priority}
    with connection.cursor() as cursor:
        cursor.execute(
            """INSERT INTO messaging_stream (batch_id, device_id, priority, is_open, served_at, total, waiting, sent,
                                             delivered, read, failed, cancelled, expired, unknown)
               SELECT %(batch)s, device_id, %(priority)s, false, flotilla_now(), 0, 0, 0, 0, 0, 0, 0, 0, 0
               FROM (SELECT DISTINCT device_id FROM fan_out WHERE device_id IS NOT NULL ORDER BY device_id) d
               ON CONFLICT (batch_id, device_id) DO NOTHING""",
            params,
        )
        cursor.execute(
            """WITH made AS (
                   INSERT INTO messaging_message (batch_id, stream_id, device_id, lead_id, phone, due_at)
                   SELECT %(batch)s, s.id, f.device_id, f.id, f.phone, flotilla_now()
                   FROM fan_out f JOIN messaging_stream s ON s.batch_id = %(batch)s AND s.device_id = f.device_id
                   ORDER BY f.id
                   ON CONFLICT (batch_id, phone) DO NOTHING
                   RETURNING stream_id
               ), counts AS (SELECT stream_id, count(*) AS n FROM made GROUP BY stream_id),
               counted AS (
                   UPDATE messaging_stream s
                   SET total = s.total + n, waiting = s.waiting + n, is_open = true
                   FROM counts WHERE s.id = counts.stream_id
               )
               SELECT coalesce(sum(n), 0) FROM counts""",
            params,
        )
        made = int(cursor.fetchone()[0])
        cursor.execute("SELECT array_agg(DISTINCT device_id) FROM fan_out WHERE device_id IS NOT NULL")
        (devices,) = cursor.fetchone()
    if devices:
        # After the commit: a record that waits for one of these streams holds its device. Should this process die in
        # between, the tick that looks for sleepers wakes them.
        transaction.on_commit(partial(wake, devices))
    return made
