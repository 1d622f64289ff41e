"""How far a run is: all of it, per variant and per device, with its pace and its end. Counters only, never messages."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from campaigns import answers, loads, running
from campaigns.models import Run
from campaigns.states import RunState
from messaging.device_report import Line, lines_of
from messaging.services import Counts, counts_of


@dataclass(frozen=True, slots=True)
class Part:
    """A variant's or a device's share of a run. ``id`` is its batch's, or the device's."""

    id: int
    name: str
    counts: Counts
    replied: int = 0


@dataclass(frozen=True, slots=True)
class Report:
    """``per_minute``: messages settled a minute so far. ``finish_at``: the estimated end; None where nobody knows."""

    counts: Counts
    replied: int
    per_minute: float
    finish_at: datetime | None
    variants: tuple[Part, ...] = ()


def report(run: Run, *, now: datetime) -> Report:
    """The whole run and its variants."""
    ids = running.batches_of([run])[run.pk]
    counts = counts_of(ids)
    replied = {batch_id: sum(by_device.values()) for batch_id, by_device in answers.replied_of(ids).items()}
    names = dict(run.variants.values_list("batch_id", "name"))
    total = running.total_of(counts.values())
    live = run.state == RunState.TRIGGERED
    estimate = loads.during(run, now=now) if live else None
    return Report(
        counts=total,
        replied=sum(replied.values()),
        per_minute=_pace(run, total, now),
        finish_at=estimate.finish_at if estimate else None,
        variants=tuple(Part(pk, names[pk], counts[pk], replied[pk]) for pk in ids if pk in names),
    )


def by_device(run: Run) -> list[Part]:
    """A part per device that has messages of the run, by name; four queries."""
    return [Part(line.device_id, line.device, line.counts, line.replied) for line in lines(run)]


def lines(run: Run) -> list[Line]:
    """The same as lines of a report."""
    ids = running.batches_of([run])[run.pk]
    replied: dict[int, int] = {}
    for by_device_id in answers.replied_of(ids).values():
        for device_id, number in by_device_id.items():
            replied[device_id] = replied.get(device_id, 0) + number
    return lines_of(ids, replied=replied)


def _pace(run: Run, counts: Counts, now: datetime) -> float:
    if run.triggered_at is None:
        return 0.0
    minutes = ((run.finished_at or now) - run.triggered_at).total_seconds() / 60
    return counts.settled / max(minutes, 1 / 60)
