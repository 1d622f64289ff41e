"""Reading the evidence, and waiting until there is nothing more to happen."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime

from django.db import connection, transaction
from django.db.models import Count, F, Sum

from campaigns.models import Run, RunState
from config.chaos.away import Away, ask
from config.chaos.evidence import (
    COUNTERS,
    AttemptRow,
    BatchRow,
    DeviceRow,
    Entry,
    Evidence,
    MessageRow,
    OptOut,
    Stop,
    StreamRow,
    Stuck,
)
from config.chaos.gateway import FORGETFUL
from config.chaos.incidents import Incident
from config.chaos.plan import LEASE_SECONDS
from config.demo.ledger import Judge
from devices.models import Device
from messaging.models import Attempt, Batch, BatchState, Message, Priority, Stream
from messaging.states import WAITING, State

PATIENCE_SECONDS = LEASE_SECONDS + 60.0
"""How long anything may go without moving, once nothing is done to it any more."""
LOOK_SECONDS = 0.5


def overdue(*, patience: float) -> list[Stuck]:
    """Messages that hold a lane for longer than they may: queued for too long, or long past their lease."""
    with connection.cursor() as cursor:
        cursor.execute(
            """SELECT id, state, release_no FROM messaging_message
               WHERE (state = 'queued' AND queued_at < now() - make_interval(secs => %(patience)s))
                  OR (state = 'sending' AND lease_until < now() - make_interval(secs => %(patience)s - %(lease)s))""",
            {"patience": patience, "lease": LEASE_SECONDS},
        )
        return [
            Stuck(f"message {pk} was {state} for too long (release {release_no})", pk)
            for pk, state, release_no in cursor.fetchall()
        ]


def drain(*, check: Callable[[], None], seconds: float, patience: float) -> list[Stuck]:
    """Wait until every message is settled, every batch is finished and every run has ended.

    Returns what stopped moving: a device with something waiting that made no step for ``patience`` seconds, a message
    that held its lane for so long (counted from here, since harm done before excuses it), or whatever there was when
    ``seconds`` had passed.
    """
    began = time.monotonic()
    ends = began + seconds
    moved: dict[int, tuple[tuple[int, int], float]] = {}
    ended_at = None
    while True:
        check()
        now = time.monotonic()
        try:
            late = ask(lambda: overdue(patience=patience)) if now - began > patience else []
            present = ask(_progress)
            settled = not present and ask(_all_ended)
        except Away:  # the last harm may still be felt
            time.sleep(LOOK_SECONDS)
            continue
        if settled:
            return late
        moved = {
            device: old if (old := moved.get(device)) and old[0] == step else (step, now)
            for device, step in present.items()
        }
        still = [device for device, (_, since) in moved.items() if now - since > patience]
        late += [Stuck(f"device {device} has messages waiting and does nothing") for device in still]
        if not present:
            ended_at = ended_at or now
            if now - ended_at > patience:
                late.append(Stuck("every message is settled, and batches or runs do not end"))
        if now > ends:
            late.append(
                Stuck(f"{sum(step[1] for step in present.values())} messages wait after {seconds:.0f} s of calm")
            )
        if late:
            return late
        time.sleep(LOOK_SECONDS)


def settle(*, seconds: float) -> None:
    """Wait until no statement of a program that is gone still runs, so that rows and ledger are of one moment."""
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        with suppress(Away):
            if not ask(_others_at_work):
                return
        time.sleep(LOOK_SECONDS)


def _others_at_work() -> int:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND datname = current_database() "
            "AND backend_type = 'client backend' AND state <> 'idle'"
        )
        return int(cursor.fetchone()[0])


def _progress() -> dict[int, tuple[int, int]]:
    """(steps taken, messages waiting) of each device that has something waiting."""
    rows = (
        Message.objects.filter(state__in=sorted(WAITING))
        .order_by()
        .values_list("device_id")
        .annotate(steps=Sum(F("release_no") + F("attempts")), number=Count("pk"))
    )
    return {device: (int(steps), number) for device, steps, number in rows}


def _all_ended() -> bool:
    return (
        not Batch.objects.filter(state__in=[BatchState.RUNNING, BatchState.PAUSED]).exists()
        and not Run.objects.filter(state__in=[RunState.PENDING, RunState.TRIGGERED]).exists()
    )


def gather(
    *,
    witness: Judge,
    expected: Mapping[str, int],
    incidents: Sequence[Incident],
    stuck: Sequence[Stuck],
    problems: Sequence[str],
    errors: Sequence[str] = (),
    moved: frozenset[int] = frozenset(),
    stops: Sequence[Stop] = (),
    opt_outs: Sequence[OptOut] = (),
    accepted: Sequence[int] = (),
) -> Evidence:
    """Read it all. ``expected`` holds the messages that each campaign had to make, by its name.

    Rows are read as they stood at one moment: a web worker whose parent was killed may still take in a receipt.
    """
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        unmade = set(expected) - set(Run.objects.filter(batch__isnull=False).values_list("campaign__name", flat=True))
        devices, batches, streams = _devices(), _batches(expected), _streams()
        messages, attempts = _messages(), _attempts()
        refusals = [_with_messages(refusal) for refusal in opt_outs]
    return Evidence(
        lease_seconds=LEASE_SECONDS,
        devices=devices,
        batches=batches,
        streams=streams,
        messages=messages,
        attempts=attempts,
        entries=[Entry.read(line) for line in witness.entries()],
        incidents=incidents,
        stuck=stuck,
        problems=[*problems, *(f"“{name}” was launched and has no messages" for name in sorted(unmade))],
        errors=errors,
        moved=moved,
        stops=stops,
        opt_outs=refusals,
        accepted=accepted,
    )


def _with_messages(refusal: OptOut) -> OptOut:
    """All that was ever made for these leads, also later."""
    messages = Message.objects.filter(lead__in=refusal.leads).values_list("pk", flat=True)
    return replace(refusal, messages=frozenset(messages))


def _devices() -> list[DeviceRow]:
    return [
        DeviceRow(
            device.pk,
            device.credentials["token"],
            device.lanes,
            device.delay_min_seconds,
            dedups=device.gateway != FORGETFUL,
        )
        for device in Device.objects.order_by("pk")
    ]


def _batches(expected: Mapping[str, int]) -> list[BatchRow]:
    rows = Batch.objects.order_by("pk").values_list(
        "pk", "name", "state", "delay_min_seconds", "run__campaign__name", "priority"
    )
    return [
        BatchRow(
            pk,
            name,
            state,
            gap_seconds=gap,
            expected=expected.get(campaign, 0) if campaign else None,
            single=priority == Priority.INTERACTIVE,
        )
        for pk, name, state, gap, campaign, priority in rows
    ]


def _streams() -> list[StreamRow]:
    rows = Stream.objects.order_by("pk").values_list("pk", "batch_id", "device_id", "is_open", *COUNTERS)
    return [
        StreamRow(row[0], row[1], row[2], row[3], counters=dict(zip(COUNTERS, row[4:], strict=True))) for row in rows
    ]


def _messages() -> list[MessageRow]:
    rows = Message.objects.order_by("pk").values_list(
        "pk", "batch_id", "stream_id", "device_id", "state", "release_no", "attempts", "error_code", "delivered_at",
        "read_at",
    )  # fmt: skip
    return [MessageRow(*row[:8], delivered=row[8] is not None, read=row[9] is not None) for row in rows]


def _attempts() -> list[AttemptRow]:
    rows = Attempt.objects.order_by("pk").values_list(
        "message_id", "release_no", "number", "round", "started_at", "finished_at", "outcome", "error_code",
        "device_id",
    )  # fmt: skip
    return [AttemptRow(m, r, n, rnd, _at(s), _at(f) if f else None, o, e, d) for m, r, n, rnd, s, f, o, e, d in rows]


def _at(moment: datetime) -> float:
    return moment.timestamp()


def states() -> dict[str, int]:
    """Messages by state."""
    rows = Message.objects.order_by().values_list("state").annotate(Count("pk"))
    found = dict(rows)
    return {state.value: found.get(state.value, 0) for state in State if found.get(state.value)}
