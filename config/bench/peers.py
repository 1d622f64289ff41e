"""Other task queues on the same no-op task, for information: as many device queues as each can be given.

* procrastinate, on PostgreSQL: one queue, a *lock* per device, which also keeps one task per device in flight; for one
  device queue no lock, since no other side works one task at a time there. It needs psycopg 3, which the product does
  not have, so it runs on the Python named by ``PEERS_PYTHON``.
* dramatiq, on Valkey: one queue per device; a worker runs a thread or two for each.
* huey, on Valkey: a consumer process serves one queue, so there is no worker for many.

One round each, bounded in time, with the threads (or concurrency) that every worker here gets.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from urllib.parse import urlsplit, urlunsplit

import psycopg2
from psycopg2 import sql

from config.bench.results import BenchFailed, Line
from config.bench.stage import Stage, rate

DATABASE = "flotilla_bench_peers"
FILL_SECONDS = 120.0
START_SECONDS = 60.0


class CannotRun(Exception):  # noqa: N818 - reads as a fact
    """Why a peer cannot be measured at this size."""


@dataclass(frozen=True, slots=True)
class Crew:
    """How a peer publishes and works: two command lines and what they need to know."""

    fill: Sequence[str]
    work: Sequence[str]
    env: Mapping[str, str]


def peer_lines(
    stage: Stage, *, sizes: Mapping[str, Sequence[int]], warm: int, window: int, seconds: float
) -> list[Line]:
    """A line per peer and number of device queues."""
    return [
        _line(stage, peer=peer, queues=queues, warm=warm, window=window, seconds=seconds)
        for peer, numbers in sizes.items()
        for queues in numbers
    ]


def _line(stage: Stage, *, peer: str, queues: int, warm: int, window: int, seconds: float) -> Line:
    stage.say(f"queues: {peer}, {queues:,} device queue(s)")
    line = Line(
        name=f"queues_{peer}_{queues}",
        what=f"no-op tasks with {peer} over {queues:,} device queue(s), at most {seconds:.0f} s",
        unit="tasks/s",
        point=(peer, queues),
    )
    messages = max(queues, (warm + window) * 5 // 4)
    try:
        crew = _CREWS[peer](stage, queues, messages)
        per_second = _measure(stage, crew, peer=peer, warm=warm // 5, window=window, seconds=seconds)
    except (CannotRun, BenchFailed) as problem:
        return replace(line, note=str(problem))
    return replace(line, ours=[per_second])


def _measure(stage: Stage, crew: Crew, *, peer: str, warm: int, window: int, seconds: float) -> float:
    stage.empty_broker()
    filling = stage.start(name=f"{peer}-fill", argv=crew.fill, env=stage.worker_environment(**crew.env))
    try:
        stage.wait(lambda: filling.exit_code() is not None, what=f"{peer} to publish", seconds=FILL_SECONDS)
        if filling.exit_code() != 0:
            raise CannotRun(f"publishing failed: {filling.last_words()}")
    finally:
        stage.stop(filling)
    with stage.worker(name=peer, argv=crew.work, env=crew.env) as child:
        stage.wait(lambda: stage.done() >= 1, what="the first task", seconds=START_SECONDS, alive=[child])
        begin = stage.samples()[0].at
        stage.wait(
            lambda: stage.done() >= warm + window or stage.samples()[-1].at - begin > seconds,
            what="its tasks",
            seconds=seconds + 60,
            alive=[child],
        )
    return rate(stage.samples(), warm=warm, window=window)


# -- the peers ---------------------------------------------------------------------------------------------------------


def _procrastinate(stage: Stage, queues: int, messages: int) -> Crew:
    if not stage.peers_python:
        raise CannotRun("needs a Python of its own: PEERS_PYTHON=/path/to/python with procrastinate and psycopg 3")
    url = _fresh_database(stage.environment["DATABASE_URL"])
    program = [stage.peers_python, "-m", "workers.procrastinate_peer"]
    return Crew(
        fill=[*program, "fill", str(queues), str(messages)],
        work=[*program, "work", str(stage.threads)],
        env={"BENCH_DATABASE": url},
    )


def _dramatiq(stage: Stage, queues: int, messages: int) -> Crew:
    return Crew(
        fill=[sys.executable, "-m", "workers.dramatiq_peer", "fill", str(queues), str(messages)],
        work=[sys.executable, "-m", "dramatiq", "workers.dramatiq_peer", "-p", "1", "-t", str(stage.threads)],
        env={"BENCH_QUEUES": str(queues)},
    )


def _huey(stage: Stage, queues: int, messages: int) -> Crew:
    if queues > 1:
        raise CannotRun("a consumer process serves one queue; it would take a process per device")
    consumer = [sys.executable, "-m", "huey.bin.huey_consumer", "workers.huey_peer.huey", "-q"]
    return Crew(
        fill=[sys.executable, "-c", f"from workers.huey_peer import fill; fill(messages={messages})"],
        work=[*consumer, "-k", "thread", "-w", str(stage.threads)],
        env={},
    )


_CREWS: dict[str, Callable[[Stage, int, int], Crew]] = {
    "procrastinate": _procrastinate,
    "dramatiq": _dramatiq,
    "huey": _huey,
}


def _fresh_database(url: str) -> str:
    """An empty database beside ours, and its address."""
    connection = psycopg2.connect(url)
    try:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(DATABASE)))
            cursor.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(DATABASE)))
    finally:
        connection.close()
    return urlunsplit(urlsplit(url)._replace(path=f"/{DATABASE}"))
