"""What watching costs: Flower beside a worker that does 500 tasks a second for thousands of devices.

The events are those of a worker (received, started, succeeded; each hundredth send fails), told by the product's
dispatcher, and by Celery's own for comparison, to the product's Flower as the stack starts it. Processor time is
Linux's count over the same seconds, in shares of one core; what the tasks themselves cost is not part of it.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import requests
from celery import Celery
from celery.events.dispatcher import EventDispatcher

from config.bench.cpu import seconds_by_program
from config.bench.kind import Bench
from config.bench.memory import peak_bytes
from config.bench.results import Goal, Line
from config.bench.stage import Playing, Stage
from config.stack.programs import FLOWER_USER
from messaging.task_events import CalmDispatcher, SendFailed

ANSWER_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Plan:
    """``seconds`` per round and dispatcher at ``per_second`` tasks, over ``devices``."""

    devices: int
    per_second: int
    seconds: float
    rounds: int


FULL = Plan(devices=3_000, per_second=500, seconds=20, rounds=3)
QUICK = Plan(devices=300, per_second=500, seconds=4, rounds=1)


@dataclass(frozen=True, slots=True)
class Cost:
    """Shares of one core, and the seconds that Flower's page of workers took to come afterwards."""

    flower: float
    dispatcher: float
    page_seconds: float


def run(stage: Stage, plan: Plan) -> list[Line]:
    """Rounds of both dispatchers, by turns."""
    stage.empty_broker()
    with stage.product("flower") as playing:
        (pid,) = (pid for pid, name in playing.names.items() if name == "flower")
        time.sleep(2.0)  # its first look at the broker
        before = _used(pid)
        time.sleep(plan.seconds / 2)
        idle = _share_of(pid, before=before, seconds=plan.seconds / 2)
        ours, stock = [], []
        for _ in range(plan.rounds):
            ours.append(_round(stage, plan, playing, pid, CalmDispatcher))
            stock.append(_round(stage, plan, playing, pid, EventDispatcher))
        memory = peak_bytes(pid) / 2**20
    told = f"{plan.per_second} tasks a second over {plan.devices:,} devices"
    share = "of a core"
    return [
        Line(
            name="flower", what=f"Flower while it hears of {told}", unit=share,
            ours=[each.flower for each in ours], baseline=[each.flower for each in stock],
            goal=Goal(0.5, "most", "ours"),
        ),
        Line(
            name="flower_worker", what="what telling it costs the worker", unit=share,
            ours=[each.dispatcher for each in ours], baseline=[each.dispatcher for each in stock],
            goal=Goal(0.5, "most"),
        ),
        Line(
            name="flower_page", what="its page of workers after that", unit="s",
            ours=[each.page_seconds for each in ours], baseline=[each.page_seconds for each in stock],
        ),
        Line(name="flower_idle", what="Flower when nothing is done", unit=share, ours=[idle]),
        Line(name="flower_memory", what="Flower's largest memory", unit="MB", ours=[memory]),
    ]  # fmt: skip


def _round(stage: Stage, plan: Plan, playing: Playing, pid: int, kind: type[EventDispatcher]) -> Cost:
    app = Celery("bench-flower", broker=stage.broker_url, set_as_current=False, fixups=set())
    before, began, own = _used(pid), time.monotonic(), time.process_time()
    try:
        with app.connection_for_write() as connection:
            dispatcher = kind(connection, hostname="devices@bench", app=app, groups=["worker", "task"])
            _tell(dispatcher, plan)
            dispatcher.close()
    finally:
        app.close()
    spent = time.process_time() - own
    seconds = time.monotonic() - began
    asked = time.monotonic()
    password = stage.environment["FLOTILLA_FLOWER_PASSWORD"]
    requests.get(
        f"{playing.flower_url}/workers", auth=(FLOWER_USER, password), timeout=ANSWER_SECONDS
    ).raise_for_status()
    return Cost(_share_of(pid, before=before, seconds=seconds), spent / seconds, time.monotonic() - asked)


def _tell(dispatcher: EventDispatcher, plan: Plan) -> None:
    """As a worker does; what is late is told at once, so that the number is right."""
    began, last_beat = time.monotonic(), 0.0
    for number in range(int(plan.per_second * plan.seconds)):
        ahead = began + number / plan.per_second - time.monotonic()
        if ahead > 0:
            time.sleep(ahead)
        if time.monotonic() - last_beat >= 2.0:
            last_beat = time.monotonic()
            dispatcher.send("worker-heartbeat", freq=2.0, active=1, processed=number, loadavg=(0, 0, 0))
        uuid = str(uuid4())
        received: Mapping[str, Any] = {"name": "messaging.send", "args": "()", "kwargs": "{}", "retries": 0}
        dispatcher.send("task-received", uuid=uuid, root_id=uuid, **received, device_id=number % plan.devices)
        dispatcher.send("task-started", uuid=uuid)
        if number % 100:
            dispatcher.send("task-succeeded", uuid=uuid, result="None", runtime=0.01)
        else:
            dispatcher.send("task-failed", uuid=uuid, exception=repr(SendFailed.of([number], carried=1)), traceback="")


def _used(pid: int) -> float:
    return seconds_by_program(names={pid: "flower"}).get("flower", 0.0)


def _share_of(pid: int, *, before: float, seconds: float) -> float:
    return (_used(pid) - before) / seconds


BENCH = Bench(name="flower", run=run, full=FULL, quick=QUICK)
