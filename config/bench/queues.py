"""No-op tasks over many device queues, against stock Celery with one queue.

Ours: ``celery worker -P threads`` over ``messaging.transport``, four bells, tasks spread turn by turn over N device
queues, prefetching off as in the product. Baseline: the same worker, task, number of threads and processes over stock
kombu's Redis transport, one queue, Celery's default prefetch and ``priority_steps=[0]``.

Everything is published before the worker starts. The worker counts what it has done and reports time and count ten
times a second to a file, alike on both sides; the clock runs from ``warm`` done to ``window`` more done, and there is
always more to do than that. Rounds take turns: stock, then each number of queues, again.

The last round of the largest number drains every queue, and the worker's peak memory there is held against its peak
with one device queue. Stock Celery with a queue per device, and the peers, stand in the table for information.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from celery import Celery

from config.bench.kind import Bench
from config.bench.memory import peak_bytes
from config.bench.peers import peer_lines
from config.bench.results import BenchFailed, Goal, Line
from config.bench.stage import SHARDS, Stage, rate
from messaging.transport import device_queue, device_route

START_SECONDS = 120.0
"""Until a worker's first task; stock Celery with thousands of queues needs most of a minute."""


@dataclass(frozen=True, slots=True)
class Plan:
    """``sizes``: numbers of device queues with the least ratio to stock (None: for information)."""

    sizes: Mapping[int, float | None]
    rounds: int
    warm: int
    window: int
    seconds: float
    """Longest time for one window."""
    rss_bound: float = 1.3
    stock_queues: int = 0
    """Stock Celery with as many queues, once; 0: not at all."""
    peers: Mapping[str, tuple[int, ...]] = field(default_factory=dict)


FULL = Plan(
    sizes={1: None, 3_000: 0.9, 30_000: 0.85, 100_000: 0.8},
    rounds=3,
    warm=500,
    window=15_000,
    seconds=60,
    stock_queues=3_000,
    peers={"procrastinate": (1, 3_000, 30_000), "dramatiq": (1, 100, 3_000), "huey": (1, 3_000)},
)
QUICK = Plan(sizes={1: None, 3_000: 0.9}, rounds=1, warm=500, window=4_000, seconds=20)


@dataclass(frozen=True, slots=True)
class Measured:
    """Tasks per second, and the worker's peak memory."""

    per_second: float
    peak_bytes: int


def run(stage: Stage, plan: Plan) -> list[Line]:
    """Every round, then the lines."""
    stock: list[float] = []
    ours: dict[int, list[Measured]] = {queues: [] for queues in plan.sizes}
    largest = max(plan.sizes)
    for number in range(1, plan.rounds + 1):
        stage.say(f"queues: round {number} of {plan.rounds}")
        stock.append(measure_stock(stage, plan).per_second)
        for queues in plan.sizes:
            drain = queues == largest and number == plan.rounds
            ours[queues].append(measure_ours(stage, plan, queues=queues, drain=drain))
    lines = [_line(plan, queues=queues, measured=ours[queues], stock=stock) for queues in plan.sizes]
    lines.append(
        Line(
            name="queues_stock_1",
            what="stock Celery, one queue: the baseline of the lines above",
            unit="tasks/s",
            ours=stock,
            point=("stock Celery", 1),
        )
    )
    lines.append(_memory_line(plan, one=ours[min(plan.sizes)], most=ours[largest][-1]))
    if plan.stock_queues:
        lines.append(_stock_with_many(stage, plan))
    lines += peer_lines(stage, sizes=plan.peers, warm=plan.warm, window=plan.window, seconds=plan.seconds / 3)
    return lines


def measure_stock(stage: Stage, plan: Plan) -> Measured:
    """One round of the baseline."""
    stage.empty_broker()
    fill(broker_url=stage.broker_url, ours=False, messages=_published(plan, 1), route=lambda _: {"queue": "bench"})
    return _measure(stage, plan, side="stock", queues=["bench"], tasks=plan.warm + plan.window)


def measure_ours(stage: Stage, plan: Plan, *, queues: int, drain: bool = False) -> Measured:
    """One round of ours; ``drain`` goes on until nothing is left, for the sake of the memory."""
    stage.empty_broker()
    published = _published(plan, queues)
    fill(broker_url=stage.broker_url, ours=True, messages=published, route=lambda number: _device(number % queues))
    bells = [f"devices.http.{shard}" for shard in range(SHARDS)]
    tasks = published if drain else plan.warm + plan.window
    return _measure(stage, plan, side="ours", queues=bells, tasks=tasks)


def fill(*, broker_url: str, ours: bool, messages: int, route: Callable[[int], Mapping[str, object]]) -> None:
    """Publish the no-op tasks in batches, number ``n`` by the options ``route(n)``."""
    app = Celery("bench-fill", broker=broker_url, set_as_current=False, fixups=set())
    app.conf.broker_transport_options = {"priority_steps": [0]}
    if ours:
        app.conf.broker_transport = "messaging.transport:Transport"
    try:
        with app.producer_or_acquire() as producer, producer.batch():
            for number in range(messages):
                app.send_task("noop", kwargs={"number": number}, producer=producer, ignore_result=True, **route(number))
    finally:
        app.close()


def _published(plan: Plan, queues: int) -> int:
    """More than is measured, so that the worker never runs dry inside the window, and one for each queue."""
    return max(queues, (plan.warm + plan.window) * 5 // 4)


def _device(number: int) -> dict[str, object]:
    return device_route(queue=f"device.{number}", bell=f"devices.http.{number % SHARDS}")


def _measure(stage: Stage, plan: Plan, *, side: str, queues: list[str], tasks: int) -> Measured:
    """Let one worker run until it has done ``tasks``, or its time is over."""
    argv = stage.celery_argv(app="workers.noop_app", queues=queues)
    with stage.worker(name=f"queues-{side}", argv=argv, env={"BENCH_SIDE": side}) as child:
        stage.wait(lambda: stage.done() >= 1, what="the worker's first task", seconds=START_SECONDS, alive=[child])
        begin = stage.samples()[0].at
        full = tasks > plan.warm + plan.window
        stage.wait(
            lambda: stage.done() >= tasks or (not full and stage.samples()[-1].at - begin > plan.seconds),
            what=f"{tasks:,} tasks",
            seconds=600,
            alive=[child],
        )
        peak = peak_bytes(child.pid)
    return Measured(rate(stage.samples(), warm=plan.warm, window=plan.window), peak)


def _line(plan: Plan, *, queues: int, measured: list[Measured], stock: list[float]) -> Line:
    bound = plan.sizes[queues]
    return Line(
        name=f"queues_{queues}",
        what=f"{plan.window:,} no-op tasks over {queues:,} device queue(s); baseline: stock Celery, one queue",
        unit="tasks/s",
        ours=[each.per_second for each in measured],
        baseline=stock,
        goal=Goal(bound, "least") if bound is not None else None,
        point=("Flotilla", queues),
    )


def _memory_line(plan: Plan, *, one: list[Measured], most: Measured) -> Line:
    return Line(
        name="queues_worker_rss",
        what=f"peak memory of the worker after one task on each of {max(plan.sizes):,} device queues; "
        f"baseline: after {plan.warm + plan.window:,} tasks on {min(plan.sizes):,} device queue(s)",
        unit="MB",
        ours=[most.peak_bytes / 2**20],
        baseline=[each.peak_bytes / 2**20 for each in one],
        goal=Goal(plan.rss_bound, "most"),
    )


def _stock_with_many(stage: Stage, plan: Plan) -> Line:
    """What the device queues would cost without the transport."""
    many = plan.stock_queues
    line = Line(
        name=f"queues_stock_{many}",
        what=f"stock Celery consuming {many:,} queues, as -Q device.0,device.1,…",
        unit="tasks/s",
        point=("stock Celery", many),
    )
    stage.empty_broker()
    names = [f"device.{number}" for number in range(many)]
    fill(
        broker_url=stage.broker_url,
        ours=False,
        messages=_published(plan, many),
        route=lambda number: {"queue": device_queue(names[number % many]), "declare": []},
    )
    try:
        slower = Plan(sizes={many: None}, rounds=1, warm=plan.warm // 5, window=plan.window // 2, seconds=plan.seconds)
        measured = _measure(stage, slower, side="stock", queues=names, tasks=slower.warm + slower.window)
    except BenchFailed as problem:
        return replace(line, note=str(problem))
    return replace(line, ours=[measured.per_second])


BENCH = Bench(name="queues", run=run, full=FULL, quick=QUICK)
