"""A campaign over a large fleet with zero pacing, against stock Celery that only posts.

Ours: a campaign to every lead, turn by turn over simulated devices without pacing or caps, through beat, the control
worker and **one** device worker process, as the stack starts them: fan-out, release, device queue, claim, HTTP to the
simulator, record. Counted are messages recorded as sent, by the database's clock.

Baseline: stock Celery, one queue, one worker process with the same pool and number of threads. Its task posts the same
request to the same simulator over a ``requests`` session that keeps its connection, and records nothing. Everything is
published before its worker starts. Counted are deliveries, by the simulator's clock.

On both sides the first ``warm`` messages are left out. Every round of ours is held against the simulator's ledger:
messages lost, doubled, unaccounted for or left behind.
"""

from __future__ import annotations

from dataclasses import dataclass

from celery import Celery

from config.bench import corridor, seeding
from config.bench.kind import Bench
from config.bench.results import Goal, Line
from config.bench.stage import Stage


@dataclass(frozen=True, slots=True)
class Plan:
    """Sizes and goals. ``warm``: messages left out at the start."""

    devices: int
    messages: int
    warm: int
    rounds: int
    ratio_bound: float = 0.5
    per_minute_bound: float = 10_000


FULL = Plan(devices=3_000, messages=9_000, warm=1_000, rounds=3)
QUICK = Plan(devices=1_000, messages=3_000, warm=500, rounds=1)


def run(stage: Stage, plan: Plan) -> list[Line]:
    """Every round, then the lines."""
    seeding.clear()
    owner = seeding.make_owner()
    pool, _ = seeding.make_fleet(owner=owner, number=plan.devices)
    seeding.make_leads(owner=owner, number=plan.messages)
    baseline: list[float] = []
    ours: list[corridor.Passage] = []
    for number in range(1, plan.rounds + 1):
        stage.say(f"end_to_end: round {number} of {plan.rounds}")
        baseline.append(measure_baseline(stage, plan))
        ours.append(corridor.send_all(stage, pool=pool, messages=plan.messages, warm=plan.warm))
    size = f"{plan.messages:,} messages over {plan.devices:,} devices, {stage.threads} threads"
    return [
        Line(
            name="end_to_end",
            what=f"{size}: released, claimed, posted, recorded; baseline: stock Celery that only posts them",
            unit="messages/s",
            ours=[each.per_second for each in ours],
            baseline=baseline,
            goal=Goal(plan.ratio_bound, "least"),
        ),
        Line(
            name="end_to_end_per_minute",
            what=f"{size}: messages recorded as sent in a minute",
            unit="messages/min",
            ours=[60 * each.per_second for each in ours],
            goal=Goal(plan.per_minute_bound, "least", "ours"),
        ),
        Line(
            name="end_to_end_wrong",
            what="messages lost, doubled, unaccounted for or not sent over all rounds, by the simulator's ledger",
            unit="messages",
            ours=[sum(each.wrong for each in ours)],
            goal=Goal(0, "most", "ours"),
        ),
        *corridor.cpu_lines(ours, prefix="end_to_end"),
    ]


def measure_baseline(stage: Stage, plan: Plan) -> float:
    """One round of stock Celery: messages per second."""
    stage.empty_broker()
    with stage.product() as playing:
        _publish(stage, plan, base_url=playing.url)
        with stage.worker(
            name="posts", argv=stage.celery_argv(app="workers.post_app", queues=["posts"]), env={}
        ) as child:
            stage.wait(
                lambda: stage.done() >= plan.messages, what="the baseline's requests", seconds=600, alive=[child]
            )
        return corridor.per_second(corridor.arrivals(playing.witness), warm=plan.warm)


def _publish(stage: Stage, plan: Plan, *, base_url: str) -> None:
    app = Celery("bench-posts", broker=stage.broker_url, set_as_current=False, fixups=set())
    app.conf.broker_transport_options = {"priority_steps": [0]}
    try:
        with app.producer_or_acquire() as producer, producer.batch():
            for url, body in corridor.requests_like_ours(
                base_url=base_url, devices=plan.devices, messages=plan.messages
            ):
                app.send_task(
                    "post", kwargs={"url": url, "body": body}, queue="posts", producer=producer, ignore_result=True
                )
    finally:
        app.close()


BENCH = Bench(name="end_to_end", run=run, full=FULL, quick=QUICK)
