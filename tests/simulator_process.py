"""A real simulator in a process of its own, for any test that needs a gateway or a judge.

::

    with running_simulator() as simulator:
        simulator.add_faults({"fault": "throttle", "device": "t-1", "retry_after_seconds": 7})
        ...
        assert simulator.summary()["deliveries"] == 1
"""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import requests

ROOT = Path(__file__).resolve().parent.parent
STOP_SECONDS = 10.0
WAIT_SECONDS = 15.0

T = TypeVar("T")


class ControlError(Exception):
    """The control API said no: ``status`` and its words."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(f"{status}: {text}")
        self.status = status
        self.text = text


def wait_until(probe: Callable[[], T], *, what: str, seconds: float = WAIT_SECONDS) -> T:
    """The first true value of ``probe``; fails after a bounded wait."""
    ends = time.monotonic() + seconds
    while not (value := probe()):
        if time.monotonic() > ends:
            raise AssertionError(f"waited {seconds:g} s in vain for: {what}")
        time.sleep(0.01)
    return value


class Simulator:
    """One running simulator and its control API."""

    def __init__(self, *, process: subprocess.Popen[str], url: str, control_token: str) -> None:
        self.process = process
        self.url = url
        self._session = requests.Session()
        self._session.trust_env = False
        self._session.headers["Authorization"] = f"Bearer {control_token}"

    def control(self, method: str, path: str, body: Any = None) -> requests.Response:
        """Call the control API. Raises :class:`ControlError` for anything but 200."""
        answer = self._session.request(method, f"{self.url}/control/{path}", json=body, timeout=30)
        if answer.status_code != 200:
            raise ControlError(answer.status_code, answer.text)
        return answer

    def add_faults(self, *rules: dict[str, Any]) -> list[dict[str, Any]]:
        """Add rules; as the simulator understood them."""
        return self.control("POST", "faults", list(rules)).json()["rules"]

    def faults(self) -> list[dict[str, Any]]:
        """Rules in force, with their hits."""
        return self.control("GET", "faults").json()["rules"]

    def ban(self, *devices: str) -> None:
        """401 for these devices from now on."""
        self.control("POST", "ban", {"devices": list(devices)})

    def unban(self, *devices: str) -> None:
        """These devices may send again."""
        self.control("POST", "unban", {"devices": list(devices)})

    def ledger(self, *, since: int = 0) -> list[dict[str, Any]]:
        """Every request from number ``since`` on."""
        entries: list[dict[str, Any]] = []
        while True:
            page = self.control("GET", f"ledger?since={since}")
            entries += [json.loads(line) for line in page.text.splitlines()]
            since = int(page.headers["X-Ledger-Next"])
            if since >= int(page.headers["X-Ledger-Total"]):
                return entries

    def of_device(self, device: str) -> list[dict[str, Any]]:
        """One device's requests in the order of arrival."""
        return self.control("GET", f"order?device={requests.utils.quote(device, safe='')}").json()["requests"]

    def landed(self, device: str) -> list[dict[str, Any]]:
        """One device's requests, once none of them is in flight any more."""

        def probe() -> list[dict[str, Any]]:
            entries = self.of_device(device)
            return entries if all(entry["answer"] for entry in entries) else []

        return wait_until(probe, what=f"requests of {device} to end")

    def summary(self) -> dict[str, Any]:
        """The counts."""
        return self.control("GET", "summary").json()

    def reset(self, **body: Any) -> None:
        """Start afresh."""
        self.control("POST", "reset", body or None)

    def stop(self) -> int:
        """Ask it to stop, by its own pid; its exit status."""
        self._session.close()
        if self.process.poll() is None:
            self.process.terminate()
        try:
            self.process.communicate(timeout=STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.communicate()
        return self.process.returncode


def start_simulator(*options: str, control_token: str | None = None) -> Simulator:
    """Start one on a free loopback port and wait until it serves. Raises AssertionError with its words if it fails."""
    token = control_token or secrets.token_urlsafe(16)
    process = subprocess.Popen(
        [sys.executable, "-m", "messaging.simulator", "--port", "0", *options],
        cwd=ROOT,
        env={**os.environ, "SIMULATOR_CONTROL_TOKEN": token},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        _, problem = process.communicate(timeout=STOP_SECONDS)
        raise AssertionError(f"the simulator did not start: {problem}")
    ready = json.loads(line)
    host = f"[{ready['host']}]" if ":" in ready["host"] else ready["host"]
    return Simulator(process=process, url=f"http://{host}:{ready['port']}", control_token=token)


@contextmanager
def running_simulator(*options: str) -> Iterator[Simulator]:
    """A simulator for the length of a with block."""
    simulator = start_simulator(*options)
    try:
        yield simulator
    finally:
        simulator.stop()
