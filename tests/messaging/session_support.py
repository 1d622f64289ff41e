"""Session hosts in processes of their own, for tests."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from django.conf import settings

from devices.models import Device
from devices.session_models import SessionShard
from tests.factories import make_device
from tests.messaging.test_worker import ROOT, database_url
from tests.simulator_process import Simulator, wait_until

KIND = "simulated_session"
QUICK = {
    "FLOTILLA_SESSION_SHARDS": "4",
    "FLOTILLA_SESSION_LEASE_SECONDS": "6",
    "FLOTILLA_SESSION_OPEN_SECONDS": "5",
    "FLOTILLA_LEASE_SECONDS": "10",
    "FLOTILLA_SIMULATED_SESSIONS": "1",
}


def start_host(simulator: Simulator, log: Path, **environment: str) -> subprocess.Popen[bytes]:
    """A session host, as the stack starts it."""
    env = {
        **os.environ,
        "DATABASE_URL": database_url(),
        "REDIS_URL": settings.REDIS_URL,
        "FLOTILLA_GATEWAY_URLS": f"simulator={simulator.url},{KIND}={simulator.url}",
        **QUICK,
        **environment,
    }
    argv = [sys.executable, "-m", "celery", "-A", "config", "worker", "-P", "threads", "-c", "8", "-l", "INFO"]
    argv += ["-Q", "devices.session", "-n", f"{log.stem}@%h", "--without-gossip", "--without-mingle"]
    with log.open("ab") as file:
        return subprocess.Popen(argv, cwd=ROOT, env=env, stdout=file, stderr=subprocess.STDOUT)


def end(process: subprocess.Popen[bytes]) -> int:
    """End it politely; its exit status."""
    if process.poll() is None:
        process.terminate()
    try:
        return process.wait(40)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait(10)


@contextmanager
def session_host(simulator: Simulator, log: Path, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    """A session host, ended at the end."""
    process = start_host(simulator, log, **environment)
    try:
        yield process
    finally:
        end(process)


def holders() -> dict[int, int]:
    """How many shards each process holds, by its pid."""
    found: dict[int, int] = {}
    for name in SessionShard.objects.filter(host__isnull=False).values_list("host__name", flat=True):
        pid = int(name.rsplit(":", 1)[1])
        found[pid] = found.get(pid, 0) + 1
    return found


def wait_for_shares(*numbers: int, seconds: float = 60) -> None:
    """Wait until the shards are held in these parts."""
    wait_until(
        lambda: sorted(holders().values()) == sorted(numbers), what=f"shards to be held as {numbers}", seconds=seconds
    )


def make_session_device(**fields: Any) -> Device:
    """A device whose session the simulator knows."""
    return make_device(gateway=KIND, **fields)


def sessions(simulator: Simulator) -> dict[str, Any]:
    """Who is logged in."""
    return simulator.control("GET", "sessions").json()


def command(simulator: Simulator, **what: Any) -> None:
    """What is special to sessions."""
    simulator.control("POST", "sessions", what)
