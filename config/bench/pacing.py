"""Many devices in their rhythm, against arithmetic.

A campaign runs over a fleet whose devices rest for a random time between two sends, through beat, the control worker
and one device worker process as the stack starts them. Every device begins somewhere within its longest gap; that long
is left out, then ``seconds`` are measured, by the simulator's ledger:

* throughput: requests that arrived, against devices divided by the mean gap, which is what devices that are never late
  would send;
* lateness: arrival minus ``next_send_at``, the moment that the gap allowed, which the bench reads from the devices'
  rows while they rest;
* early: requests that came sooner than the shortest gap after the one before, or before the moment allowed.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from django.db.models import Sum

from config.bench import corridor, seeding
from config.bench.kind import Bench
from config.bench.results import BenchFailed, Goal, Line
from config.bench.stage import Stage
from devices.models import Device
from messaging.models import Attempt, Stream

MOST_UNSEEN = 0.05
"""Share of sends whose allowed moment the bench may fail to read before it says nothing about lateness."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Sizes and goals. ``look_seconds``: time between two looks at the devices' rows."""

    devices: int
    gap_min_seconds: float
    gap_max_seconds: float
    seconds: float
    look_seconds: float
    ratio_bound: float | None = 0.98
    """None where the gaps are scaled down: a tick is late by a fixed time, which then weighs more."""
    lateness_bound_seconds: float = 1.5
    lead_in_seconds: float = 10
    """From the launch to the first device's turn: time for the tick to trigger the run and to fill it."""

    @property
    def mean_seconds(self) -> float:
        """The mean gap."""
        return (self.gap_min_seconds + self.gap_max_seconds) / 2

    @property
    def messages(self) -> int:
        """Enough that no device runs out, even with the shortest gaps only."""
        return self.devices * (math.ceil((self.seconds + 2 * self.gap_max_seconds) / self.gap_min_seconds) + 2)


FULL = Plan(devices=3_000, gap_min_seconds=10, gap_max_seconds=30, seconds=90, look_seconds=1.0)
QUICK = Plan(devices=300, gap_min_seconds=1, gap_max_seconds=3, seconds=12, look_seconds=0.1, ratio_bound=None)


@dataclass(slots=True)
class Allowed:
    """When devices might send next: ``next_send_at`` by device name and the ``last_sent_at`` that stood beside it.

    The claim already reserves the following gap, milliseconds before its request arrives, so the moment of a look does
    not tell which gap it saw. ``last_sent_at`` does: the record writes the same instant there and into the attempt.
    """

    seen: dict[tuple[str, datetime | None], datetime] = field(default_factory=dict)

    def look(self) -> None:
        """Read every device that rests."""
        rows = Device.objects.filter(next_send_at__isnull=False).values_list("name", "last_sent_at", "next_send_at")
        for name, sent, following in rows:
            if following is not None:
                self.seen[name, sent] = following


@dataclass(frozen=True, slots=True)
class Rhythm:
    """What a window of the ledger says."""

    requests: int
    lateness_seconds: Sequence[float]
    early: int
    unseen: int


def run(stage: Stage, plan: Plan) -> list[Line]:
    """One long look, then the lines."""
    seeding.clear()
    owner = seeding.make_owner()
    pool, devices = seeding.make_fleet(
        owner=owner,
        number=plan.devices,
        delay_min_seconds=plan.gap_min_seconds,
        delay_max_seconds=plan.gap_max_seconds,
    )
    seeding.make_leads(owner=owner, number=plan.messages)
    seeding.settle()
    stage.empty_broker()
    stage.say(f"pacing: {plan.lead_in_seconds + plan.gap_max_seconds + plan.seconds:.0f} s and a start")
    allowed = Allowed()
    names = {seeding.token(number): device.name for number, device in enumerate(devices)}
    with stage.product(*corridor.PROGRAMS) as playing:
        seeding.spread_starts(devices=devices, after_seconds=plan.lead_in_seconds, within_seconds=plan.gap_max_seconds)
        begin = time.time() + plan.lead_in_seconds + plan.gap_max_seconds
        corridor.launch(pool=pool, name="Bench")
        end = begin + plan.seconds
        while time.time() < end:
            stage.check()
            allowed.look()
            time.sleep(plan.look_seconds)
        if not _filled(plan.messages):
            raise BenchFailed("the campaign's messages were not all made in time")
        entries = list(playing.witness.entries())
    rhythm = read(
        entries,
        names=names,
        recorded=_recorded(),
        allowed=allowed,
        begin=begin,
        end=end,
        gap_min_seconds=plan.gap_min_seconds,
    )
    return _lines(plan, rhythm)


def read(
    entries: Iterable[Mapping[str, Any]],
    *,
    names: Mapping[str, str],
    recorded: Mapping[int, datetime],
    allowed: Allowed,
    begin: float,
    end: float,
    gap_min_seconds: float,
) -> Rhythm:
    """The rhythm of the requests that arrived from ``begin`` to ``end`` (seconds of the clock).

    ``names`` are devices by their tokens, ``recorded`` the moments at which messages' attempts were recorded.
    """
    before: dict[str, Mapping[str, Any]] = {}
    lateness: list[float] = []
    requests = early = unseen = 0
    for entry in sorted(entries, key=lambda entry: entry["monotonic"]):
        earlier = before.get(entry["device"])
        before[entry["device"]] = entry
        if not begin <= entry["at"] < end:
            continue
        requests += 1
        moment = allowed.seen.get((names[entry["device"]], recorded.get(earlier["message"]) if earlier else None))
        too_soon = earlier is not None and entry["monotonic"] - earlier["monotonic"] < gap_min_seconds
        if moment is None:
            unseen += 1
        else:
            lateness.append(entry["at"] - moment.timestamp())
        early += too_soon or (moment is not None and entry["at"] < moment.timestamp())
    return Rhythm(requests=requests, lateness_seconds=sorted(lateness), early=early, unseen=unseen)


def _recorded() -> dict[int, datetime]:
    ended = Attempt.objects.filter(finished_at__isnull=False).values_list("message_id", "finished_at")
    return {message: moment for message, moment in ended if moment is not None}


def _filled(messages: int) -> bool:
    return (Stream.objects.aggregate(total=Sum("total"))["total"] or 0) >= messages


def _lines(plan: Plan, rhythm: Rhythm) -> list[Line]:
    if not rhythm.requests or rhythm.unseen > MOST_UNSEEN * rhythm.requests:
        raise BenchFailed(f"of {rhythm.requests:,} sends the allowed moment of {rhythm.unseen:,} was not read")
    size = (
        f"{plan.devices:,} devices at {plan.gap_min_seconds:g}–{plan.gap_max_seconds:g} s, {plan.seconds:.0f} s by the "
        f"ledger, {rhythm.requests:,} sends"
    )
    late = rhythm.lateness_seconds
    return [
        Line(
            name="pacing_throughput",
            what=f"{size}; baseline: devices divided by the mean gap",
            unit="messages/min",
            ours=[60 * rhythm.requests / plan.seconds],
            baseline=[60 * plan.devices / plan.mean_seconds],
            goal=Goal(plan.ratio_bound, "least") if plan.ratio_bound is not None else None,
        ),
        Line(
            name="pacing_lateness_p99",
            what=f"{size}: arrival at the gateway after the moment that the gap allowed; median "
            f"{late[len(late) // 2]:.2f} s, longest {late[-1]:.2f} s, {rhythm.unseen:,} not seen",
            unit="s",
            ours=[late[min(len(late) - 1, math.ceil(0.99 * len(late)) - 1)]],
            goal=Goal(plan.lateness_bound_seconds, "most", "ours"),
        ),
        Line(
            name="pacing_early",
            what=f"{size}: sends sooner than the shortest gap, or before the moment allowed",
            unit="messages",
            ours=[rhythm.early],
            goal=Goal(0, "most", "ours"),
        ),
    ]


BENCH = Bench(name="pacing", run=run, full=FULL, quick=QUICK)
