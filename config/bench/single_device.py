"""One API device with parallel lanes and no pacing, against plain threads that only post.

Ours: a campaign to every lead through one device with 20 lanes, through beat, the control worker and one device worker
process as the stack starts them. Counted are messages recorded as sent, by the database's clock.

Baseline: a process with 20 threads that post the same requests to the same simulator, a kept-alive ``requests`` session
each: no queue, no database. Counted are deliveries, by the simulator's clock. The first ``warm`` are left out on both
sides, and every round of ours is held against the ledger.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass

from config.bench import corridor, seeding
from config.bench.kind import Bench
from config.bench.results import Goal, Line
from config.bench.stage import Stage


@dataclass(frozen=True, slots=True)
class Plan:
    """Sizes and goals. ``warm``: messages left out at the start."""

    messages: int
    warm: int
    rounds: int
    lanes: int = 20
    ratio_bound: float = 0.5
    per_second_bound: float = 80


FULL = Plan(messages=8_000, warm=800, rounds=3)
QUICK = Plan(messages=3_000, warm=400, rounds=1)


def run(stage: Stage, plan: Plan) -> list[Line]:
    """Every round, then the lines."""
    seeding.clear()
    owner = seeding.make_owner()
    pool, _ = seeding.make_fleet(owner=owner, number=1, lanes=plan.lanes)
    seeding.make_leads(owner=owner, number=plan.messages)
    baseline: list[float] = []
    ours: list[corridor.Passage] = []
    for number in range(1, plan.rounds + 1):
        stage.say(f"single_device: round {number} of {plan.rounds}")
        baseline.append(measure_baseline(stage, plan))
        ours.append(corridor.send_all(stage, pool=pool, messages=plan.messages, warm=plan.warm))
    rates = [each.per_second for each in ours]
    size = f"{plan.messages:,} messages through one device with {plan.lanes} lanes"
    return [
        Line(
            name="single_device",
            what=f"{size}; baseline: the same requests from {plan.lanes} plain threads",
            unit="messages/s",
            ours=rates,
            baseline=baseline,
            goal=Goal(plan.ratio_bound, "least"),
        ),
        Line(
            name="single_device_per_second",
            what=f"{size}: messages recorded as sent in a second",
            unit="messages/s",
            ours=rates,
            goal=Goal(plan.per_second_bound, "least", "ours"),
        ),
        Line(
            name="single_device_wrong",
            what="messages lost, doubled, unaccounted for or not sent over all rounds, by the simulator's ledger",
            unit="messages",
            ours=[sum(each.wrong for each in ours)],
            goal=Goal(0, "most", "ours"),
        ),
        *corridor.cpu_lines(ours, prefix="single_device"),
    ]


def measure_baseline(stage: Stage, plan: Plan) -> float:
    """One round of plain threads: messages per second."""
    with stage.product() as playing:
        source = stage.folder / "posting.json"
        requests = corridor.requests_like_ours(base_url=playing.url, devices=1, messages=plan.messages)
        source.write_text(json.dumps(list(requests)), encoding="utf-8")
        argv = [sys.executable, "-m", "workers.posting", str(plan.lanes), str(source)]
        with stage.worker(name="posting", argv=argv, env={}) as child:
            stage.wait(lambda: child.exit_code() == 0, what="the baseline's requests", seconds=600, alive=[child])
        return corridor.per_second(corridor.arrivals(playing.witness), warm=plan.warm)


BENCH = Bench(name="single_device", run=run, full=FULL, quick=QUICK)
