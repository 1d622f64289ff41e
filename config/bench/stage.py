"""Where benches play: servers that may be emptied, a folder, and processes that end with the bench."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import redis
from django.db import connection

from config.bench.cpu import parent_of
from config.bench.results import BenchFailed
from config.demo.ledger import Judge
from config.stack.children import Child, Children
from config.stack.places import CHECKOUT
from config.stack.ports import any_free_port
from config.stack.processes import Ladder
from config.stack.programs import DEVICE_THREADS, Ports, device_bells, programs
from config.stack.supervisor import Program

BENCH = Path(__file__).parent
READY_SECONDS = 90.0
SHARDS = 4
_PASSED_ON = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR")


@dataclass(frozen=True, slots=True)
class Sample:
    """How many tasks a worker had done at a moment (seconds of the monotonic clock)."""

    at: float
    count: int


@dataclass(frozen=True, slots=True)
class Playing:
    """A simulator that runs: where it listens, and what it has seen; ``names`` of the programs by process id."""

    url: str
    witness: Judge
    names: Mapping[int, str]
    flower_url: str


@dataclass(frozen=True)
class Stage:
    """``environment`` holds the addresses of servers whose data is ours to destroy, and secrets for the programs."""

    folder: Path
    environment: Mapping[str, str] = field(repr=False)
    children: Children
    say: Callable[[str], None]
    check: Callable[[], None] = lambda: None
    """Called while waiting; raises when somebody interrupts."""
    threads: int = DEVICE_THREADS
    """Threads of every worker that is compared: what the product's device worker has."""
    peers_python: str = ""

    @property
    def broker_url(self) -> str:
        """Address of the Valkey."""
        return self.environment["REDIS_URL"]

    def empty_broker(self) -> None:
        """Forget everything that is queued."""
        with redis.Redis.from_url(self.broker_url) as client:
            client.flushdb()

    def servers(self) -> dict[int, str]:
        """Names of the database and broker servers by process id."""
        with redis.Redis.from_url(self.broker_url) as client, connection.cursor() as cursor:
            cursor.execute("SELECT pg_backend_pid()")
            return {parent_of(cursor.fetchone()[0]): "postgresql", client.info("server")["process_id"]: "valkey"}

    def start(self, *, name: str, argv: Sequence[str], env: Mapping[str, str]) -> Child:
        """Start a program in the checkout, its output in ``<folder>/logs``."""
        return self.children.start(
            name=name,
            argv=argv,
            ladder=Ladder(steps=((signal.SIGTERM, 20.0),)),
            env=env,
            cwd=CHECKOUT,
            log=self.folder / "logs" / f"{name}.log",
        )

    def stop(self, child: Child) -> None:
        """Stop a program and wait for its end."""
        self.children.stop(child)

    def wait(self, condition: Callable[[], bool], *, what: str, seconds: float, alive: Sequence[Child] = ()) -> None:
        """Wait until ``condition`` holds. Raises BenchFailed when time runs out or one of ``alive`` ends first."""
        ends = time.monotonic() + seconds
        while not condition():
            self.check()
            for child in alive:
                if child.exit_code() is not None and not condition():
                    raise BenchFailed(f"{child.name} ended ({child.exit_code()}): {child.last_words()}")
            if time.monotonic() > ends:
                raise BenchFailed(f"waited {seconds:.0f} s in vain for {what}")
            time.sleep(0.05)

    def worker_environment(self, **more: str) -> dict[str, str]:
        """For the programs in :mod:`config.bench.workers`: none of the product's settings or secrets."""
        kept = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
        return {
            **kept,
            "PYTHONPATH": os.pathsep.join([str(BENCH), str(CHECKOUT)]),
            "PYTHONUNBUFFERED": "1",
            "BENCH_BROKER": self.broker_url,
            "BENCH_PROGRESS": str(self.progress),
            **more,
        }

    @contextmanager
    def worker(self, *, name: str, argv: Sequence[str], env: Mapping[str, str]) -> Iterator[Child]:
        """A counting worker, its count starting at zero."""
        self.progress.parent.mkdir(parents=True, exist_ok=True)
        self.progress.write_text("", encoding="ascii")
        child = self.start(name=name, argv=argv, env=self.worker_environment(**env))
        try:
            yield child
        finally:
            self.stop(child)

    def celery_argv(self, *, app: str, queues: Sequence[str]) -> list[str]:
        """A Celery worker with the threads that everybody gets, quiet enough to cost nothing."""
        argv = [sys.executable, "-m", "celery", "-A", app, "worker", "--pool", "threads", "-c", str(self.threads)]
        argv += ["-Q", ",".join(queues), "-n", "bench@%h", "--without-gossip", "--without-mingle"]
        return [*argv, "--loglevel", "WARNING"]

    @property
    def progress(self) -> Path:
        """Where the worker that runs now reports."""
        return self.folder / "progress"

    def samples(self) -> list[Sample]:
        """What the worker has reported so far."""
        found = []
        for row in self.progress.read_text(encoding="ascii").splitlines(keepends=True):
            if row.endswith("\n"):
                at, count = row.split()
                found.append(Sample(float(at), int(count)))
        return found

    def done(self) -> int:
        """How many tasks the worker has done."""
        samples = self.samples()
        return samples[-1].count if samples else 0

    @contextmanager
    def product(self, *names: str, env: Mapping[str, str] | None = None) -> Iterator[Playing]:
        """The product's own programs, exactly as the stack starts them; ``env`` adds to what they get.

        ``names`` are those of :func:`config.stack.programs.programs`, once for each process; the simulator is always
        among them.
        """
        ports = Ports(web=any_free_port(), flower=any_free_port(), simulator=any_free_port())
        environment = {**self.environment, "FLOTILLA_SHARDS": str(SHARDS), **(env or {})}
        url = ports.urls()["simulator"]
        environment["FLOTILLA_GATEWAY_URLS"] = ",".join(f"{kind}={url}{path}" for kind, path in DIALECTS.items())
        known = programs(root=self.folder, ports=ports, environment=environment, bells=device_bells(shards=SHARDS))
        (self.folder / "simulator.jsonl").unlink(missing_ok=True)
        started: list[Child] = []
        try:
            for program in known:
                for number in range(("simulator", *names).count(program.name)):
                    copy = replace(program, name=f"{program.name}-{number + 1}") if number else program
                    started.append(self._launch(copy))
            yield Playing(
                url=url,
                witness=Judge(url=url, token=self.environment["SIMULATOR_CONTROL_TOKEN"]),
                names={child.pid: child.name for child in started},
                flower_url=ports.urls()["flower"],
            )
        finally:
            for child in reversed(started):
                self.stop(child)

    def _launch(self, program: Program) -> Child:
        child = self.start(name=program.name, argv=program.argv, env=program.env)
        ready = program.ready
        if ready is not None:
            try:
                self.wait(
                    lambda: ready(child.logged()), what=f"{program.name} to start", seconds=READY_SECONDS, alive=[child]
                )
            except BaseException:
                self.stop(child)
                raise
        return child


DIALECTS = {
    "simulator": "",
    "simulated_session": "",
    "gowa": "",
    "waha": "",
    "evolution": "",
    "wuzapi": "",
    "wablas": "/wablas",
    "whacenter": "/whacenter/api",
    "generic": "",
}
"""Gateway kinds that need nothing but text, and where the simulator speaks each."""


def rate(samples: Sequence[Sample], *, warm: int, window: int) -> float:
    """Tasks per second from the first sample with ``warm`` done to the first with ``window`` more, or the last that
    moved. Raises BenchFailed when there are no two such samples."""
    begin = next((sample for sample in samples if sample.count >= warm), None)
    if begin is None:
        raise BenchFailed(f"only {samples[-1].count if samples else 0} tasks were done, too few to say anything")
    end = next((sample for sample in samples if sample.count >= begin.count + window), None)
    if end is None:
        last = samples[-1].count
        end = next(sample for sample in samples if sample.count == last)
    if end.count == begin.count:
        raise BenchFailed(f"nothing was done after the first {begin.count} tasks")
    return (end.count - begin.count) / (end.at - begin.at)
