"""How far a sequence is: leads by state and by step, messages by step and by device, and when it may be done.

Everything is read from maintained counters, those of the enrolments (:mod:`sequences.tallies`) and those of the
batches' streams, so that it costs the same however many leads there are.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db.models import Sum

from messaging.models import Stream
from messaging.services import Counts, counts_of
from sequences import routes, tallies, timing
from sequences.models import EnrolmentState, Sequence, StepBatch
from sequences.moves import DEVICE
from sequences.route import Route
from sequences.tallies import Place


@dataclass(frozen=True, slots=True)
class StepProgress:
    """One step: leads that have it ahead, leads for whom it was the last, by why, and its messages."""

    key: int
    position: int
    text: str
    ahead: int
    completed: int
    replied: int
    exited: int
    failed: int
    messages: Counts


@dataclass(frozen=True, slots=True)
class DeviceProgress:
    """The messages of one device; ``total`` counts all that it got."""

    device_id: int
    name: str
    total: int
    waiting: int
    sent: int
    delivered: int
    read: int
    failed: int
    unknown: int


@dataclass(frozen=True, slots=True)
class Progress:
    """Leads by state. ``percent`` are those that have nothing ahead; ``exits`` says why they left."""

    total: int = 0
    active: int = 0
    paused: int = 0
    waiting_for_device: int = 0
    completed: int = 0
    exited: int = 0
    failed: int = 0
    exits: dict[str, int] | None = None
    ends_at: datetime | None = None
    """When the last of those who are in it now may be through, if nobody replies."""

    @property
    def percent(self) -> float:
        """Share of leads that have nothing ahead of them, 0 to 100."""
        return 100.0 * (self.total - self.active - self.paused) / self.total if self.total else 0.0


def of(sequences: Iterable[Sequence], *, now: datetime) -> dict[int, Progress]:
    """The progress of each: one query for the counters, two for the steps."""
    rows = list(sequences)
    counted = tallies.of([row.pk for row in rows])
    rules = routes.rules_of([row.pk for row in rows])
    return {row.pk: _progress(counted[row.pk], rules[row.pk].route, now=now) for row in rows}


def by_step(sequence: Sequence) -> list[StepProgress]:
    """Each step in force, and before them those that were taken out and have messages still."""
    route, places = routes.in_force(sequence), tallies.of([sequence.pk])[sequence.pk]
    batches: dict[int, list[int]] = {}
    for key, batch_id in StepBatch.objects.filter(sequence=sequence).values_list("key", "batch_id"):
        batches.setdefault(key, []).append(batch_id)
    counts = counts_of(batch_id for ids in batches.values() for batch_id in ids)
    found = []
    for key in [*(key for key in batches if route.stop(key) is None), *(stop.key for stop in route.stops)]:
        stop = route.stop(key)
        here = {(state, code): number for (state, code, at), number in places.items() if at == key}
        exited = {code: number for (state, code), number in here.items() if state == EnrolmentState.EXITED}
        found.append(
            StepProgress(
                key=key,
                position=stop.position if stop else 0,
                text=stop.words if stop else "Taken out",
                ahead=_sum(here, EnrolmentState.ACTIVE) + _sum(here, EnrolmentState.PAUSED),
                completed=_sum(here, EnrolmentState.COMPLETED),
                replied=exited.get("reply", 0),
                exited=sum(exited.values()),
                failed=_sum(here, EnrolmentState.FAILED),
                messages=_added(counts[batch_id] for batch_id in batches.get(key, ())),
            )
        )
    return found


def by_device(sequence: Sequence) -> list[DeviceProgress]:
    """The devices that sent for it, by name, at most a thousand."""
    rows = (
        Stream.objects.filter(batch__step_batch__sequence=sequence)
        .order_by("device__name", "device_id")
        .values_list("device_id", "device__name")
        .annotate(*[Sum(name) for name in ("total", "waiting", "sent", "delivered", "read", "failed", "unknown")])
    )
    return [DeviceProgress(*row) for row in rows[:1000]]


def _progress(places: dict[Place, int], route: Route, *, now: datetime) -> Progress:
    states: dict[str, int] = {}
    exits: dict[str, int] = {}
    waiting = 0
    longest = timedelta(0)
    for (state, code, key), number in places.items():
        states[state] = states.get(state, 0) + number
        if state == EnrolmentState.EXITED:
            exits[code] = exits.get(code, 0) + number
        waiting += number if state == EnrolmentState.PAUSED and code == DEVICE else 0
        stop = route.stop(key)
        if state == EnrolmentState.ACTIVE and stop is not None:
            ahead = [(step.delay, step.wait) for step in route.ahead_of(stop)]
            longest = max(longest, timing.remaining(ahead))
    active = states.get(EnrolmentState.ACTIVE, 0)
    return Progress(
        total=sum(states.values()),
        active=active,
        paused=states.get(EnrolmentState.PAUSED, 0),
        waiting_for_device=waiting,
        completed=states.get(EnrolmentState.COMPLETED, 0),
        exited=states.get(EnrolmentState.EXITED, 0),
        failed=states.get(EnrolmentState.FAILED, 0),
        exits=exits,
        ends_at=now + longest if active else None,
    )


def _sum(here: dict[tuple[str, str], int], state: str) -> int:
    return sum(number for (at, _), number in here.items() if at == state)


def _added(counts: Iterable[Counts]) -> Counts:
    found = Counts()
    for each in counts:
        found = Counts(*(getattr(found, name) + getattr(each, name) for name in Counts.__slots__))
    return found
