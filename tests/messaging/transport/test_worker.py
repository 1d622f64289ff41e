"""Real ``celery worker`` processes on device queues: busy threads, lost brokers, hard kills."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import redis
from celery import Celery

from messaging.transport import device_route
from tests.messaging.transport.conftest import OURS
from tests.messaging.transport.server import Server, assert_tokens_right, wait_until

pytestmark = pytest.mark.slow
#: So that no timer wakes the loop in place of what should wake it.
RARE_SWEEPS = {"TRANSPORT_TEST_SWEEP_SECONDS": "600"}
ROOT = Path(__file__).parents[3]


class Stage:
    """A broker, worker processes on it, and the report they write."""

    def __init__(self, server: Server, folder: Path) -> None:
        self.server = server
        self.report_file = folder / "report"
        self.report_file.touch()
        self.log = folder / "log"
        self._workers: list[subprocess.Popen[bytes]] = []
        self.app = Celery("stage", broker=server.url, set_as_current=False)
        self.app.conf.update(
            broker_transport=OURS,
            broker_transport_options={"priority_steps": [0]},
            worker_cancel_long_running_tasks_on_connection_loss=False,
        )

    def worker(self, *bells: str, threads: int = 4, name: str = "w", **env: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "celery", "-A", "tests.messaging.transport.worker_app", "worker"]
        command += ["-P", "threads", "-c", str(threads), "-n", f"{name}@test", "-Q", ",".join(bells or ("bell.0",))]
        environment = {
            **os.environ,
            "TRANSPORT_TEST_BROKER": self.server.url,
            "TRANSPORT_TEST_REPORT": str(self.report_file),
            **env,
        }
        with self.log.open("ab") as log:
            worker = subprocess.Popen(
                [*command, "--without-gossip", "--without-mingle", "-l", "info"],
                cwd=ROOT,
                env=environment,
                stdout=log,
                stderr=log,
            )
        self._workers.append(worker)
        return worker

    def send(self, numbers: range, *, task: str = "early", devices: int = 10, **kwargs: Any) -> None:
        with self.app.producer_or_acquire() as producer, producer.batch():
            for number in numbers:
                route = device_route(queue=f"device.{number % devices}", bell="bell.0")
                self.app.send_task(task, kwargs={"number": number, **kwargs}, producer=producer, **route)

    def report(self) -> list[Report]:
        return [Report(*map(int, line.split())) for line in self.report_file.read_text().splitlines()]

    def done(self) -> set[int]:
        return {line.number for line in self.report()}

    def wait_for(self, numbers: range, *, seconds: float = 60.0) -> None:
        wanted = set(numbers)
        try:
            wait_until(lambda: self.done() >= wanted, seconds=seconds, what="the end of all tasks")
        except AssertionError:
            tail = self.log.read_text(errors="replace")[-3000:]
            pytest.fail(f"not done: {sorted(wanted - self.done())[:20]}\n{tail}")

    def close(self) -> None:
        self.app.close()
        for worker in self._workers:
            worker.kill()
            worker.wait(timeout=10)


@dataclass(frozen=True)
class Report:
    number: int
    running: int
    pid: int


@pytest.fixture
def stage(server: Server, tmp_path: Path) -> Iterator[Stage]:
    stage = Stage(server, tmp_path)
    yield stage
    stage.close()


def test_all_threads_are_kept_busy(stage: Stage, client: redis.Redis) -> None:
    stage.worker(threads=8, **RARE_SWEEPS)
    stage.send(range(240), devices=40, seconds=0.05)
    stage.wait_for(range(1))
    stage.wait_for(range(240), seconds=15)  # thirty rounds: 1.5 s of work, or half a minute with a loop that sleeps
    running = [line.running for line in stage.report()]
    assert max(running) == 8
    assert sum(count == 8 for count in running) > len(running) / 2, "most tasks ran beside seven others"
    assert_tokens_right(client)
    wait_until(lambda: client.hlen("unacked") == 0, what="every acknowledgement")


@pytest.mark.parametrize("transport", ["redis", OURS])
def test_a_free_slot_is_refilled_at_once(stage: Stage, transport: str) -> None:
    """One slot, thirty tasks of a tenth of a second. Unwoken, the loop notices each end up to a second late."""
    stage.worker("bell.0", "plain", threads=1, TRANSPORT_TEST_TRANSPORT=transport, **RARE_SWEEPS)
    if transport == OURS:
        stage.send(range(31), devices=5, seconds=0.1)
    else:
        for number in range(31):
            stage.app.send_task("early", kwargs={"number": number, "seconds": 0.1}, queue="plain")
    stage.wait_for(range(1))
    stage.wait_for(range(31), seconds=14)


def test_a_fetch_never_takes_more_than_the_free_threads(stage: Stage, client: redis.Redis) -> None:
    stage.worker(threads=3)
    stage.send(range(12), devices=12, task="late", seconds=1.0)

    def out() -> int:
        count = client.hlen("unacked")
        assert count <= 3
        return count

    wait_until(lambda: out() == 3, what="three running tasks")
    stage.wait_for(range(12))
    assert max(line.running for line in stage.report()) == 3


def test_workers_share_a_bell_and_keep_to_their_own(stage: Stage, client: redis.Redis) -> None:
    stage.worker("bell.0", name="a")
    stage.worker("bell.0", name="b")
    stage.worker("bell.1", name="c")
    wait_until(lambda: len(stage.app.control.ping(timeout=1.0)) == 3, what="three workers")
    stage.send(range(120), devices=30, seconds=0.05)
    stage.wait_for(range(120))
    assert len({line.pid for line in stage.report()}) == 2


def test_remote_control_is_as_usual(stage: Stage) -> None:
    stage.worker("bell.0", name="a")
    wait_until(lambda: stage.app.control.ping(timeout=1.0), what="a worker")
    inspect = stage.app.control.inspect(destination=["a@test"], timeout=5.0)
    assert [queue["name"] for queue in inspect.active_queues()["a@test"]] == ["bell.0"]
    assert inspect.stats()["a@test"]["broker"]["transport"] == "redis"  # monitors such as Flower look for a Redis
    to_it = {"destination": ["a@test"], "reply": True, "timeout": 5.0}
    stage.app.control.add_consumer("bell.7", **to_it)
    stage.app.control.cancel_consumer("bell.0", **to_it)
    # It answers before its connection has let go of the queue.
    wait_until(
        lambda: [queue["name"] for queue in inspect.active_queues()["a@test"]] == ["bell.7"],
        what="the change",
    )
    stage.send(range(3))
    route = device_route(queue="device.77", bell="bell.7")
    stage.app.send_task("early", kwargs={"number": 77}, **route)
    stage.wait_for(range(77, 78))
    assert stage.done() == {77}


def test_a_worker_that_is_asked_to_stop_leaves_nothing_out(stage: Stage, client: redis.Redis) -> None:
    worker = stage.worker(threads=4)
    stage.send(range(100), task="late", seconds=0.05)
    wait_until(lambda: len(stage.done()) > 10)
    worker.send_signal(signal.SIGTERM)
    worker.wait(timeout=30)
    assert client.hlen("unacked") == 0
    left = sum(client.llen(f"device.{device}") for device in range(10))
    assert left == 100 - len(stage.done())
    assert_tokens_right(client)
    assert len(stage.report()) == len(stage.done())


def test_hard_kills_lose_nothing(stage: Stage, client: redis.Redis) -> None:
    """A message is in its list or in the unacked hash at every moment, so whoever comes next finds it."""
    total = 300
    stage.send(range(total), devices=40, task="late", seconds=0.01)
    for kill in range(3):
        worker = stage.worker(threads=4, name=f"k{kill}")
        already = len(stage.done())
        wait_until(lambda seen=already: len(stage.done()) > seen + 20, what="work in full swing")
        worker.kill()
        worker.wait(timeout=10)
        assert_tokens_right(client, after_kill=True)
        waiting = sum(client.llen(f"device.{device}") for device in range(40))
        # A killed task may have reported and not acknowledged; it may not be missing from both sides.
        assert waiting + client.hlen("unacked") + len(stage.done()) >= total
    stage.worker(threads=8, name="last")
    stage.wait_for(range(total))
    wait_until(lambda: client.hlen("unacked") == 0, what="every acknowledgement")
    assert_tokens_right(client)


class TestLostBroker:
    """A worker that has lived through it takes what is sent afterwards, by itself."""

    def check(self, stage: Stage, numbers: range) -> None:
        stage.send(numbers)
        stage.wait_for(numbers)

    def test_forgotten_scripts(self, stage: Stage, client: redis.Redis) -> None:
        stage.worker()
        self.check(stage, range(20))
        client.script_flush()
        self.check(stage, range(20, 40))

    def test_everything_deleted_under_load(self, stage: Stage, client: redis.Redis) -> None:
        stage.worker()
        self.check(stage, range(20))
        stage.send(range(1000, 1400), seconds=0.01)
        wait_until(lambda: len(stage.done()) > 40)
        client.flushall()
        self.check(stage, range(20, 40))

    def test_a_restarted_server(self, stage: Stage, server: Server) -> None:
        stage.worker()
        self.check(stage, range(20))
        server.stop()
        server.start()
        self.check(stage, range(20, 40))

    def test_killed_connections(self, stage: Stage, client: redis.Redis) -> None:
        stage.worker()
        stage.send(range(300), task="late", seconds=0.01)
        for _ in range(3):
            seen = len(stage.done())
            wait_until(lambda before=seen: len(stage.done()) > before + 10)
            client.client_kill_filter(_type="normal", skipme=True)
        stage.wait_for(range(300))

    def test_a_paused_server(self, stage: Stage, client: redis.Redis) -> None:
        stage.worker()
        self.check(stage, range(20))
        stage.send(range(20, 120), seconds=0.01)
        client.client_pause(7000)  # longer than the socket time-out
        stage.wait_for(range(20, 120))
        self.check(stage, range(120, 140))
