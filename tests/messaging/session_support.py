"""Session hosts in processes of their own, for tests."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from devices.models import Device
from devices.session_models import SessionShard
from tests.factories import make_device
from tests.programs import end, start_worker
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
    urls = f"simulator={simulator.url},{KIND}={simulator.url}"
    environment = {"FLOTILLA_GATEWAY_URLS": urls, **QUICK, **environment}
    return start_worker(simulator, log, queues=["devices.session"], **environment)


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
