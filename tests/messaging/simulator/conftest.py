"""One simulator with a ledger file for these tests; each test uses device tokens of its own, or starts another."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import requests

from tests.simulator_process import Simulator, running_simulator

_numbers = itertools.count(1)


class WireClient(requests.Session):
    """A client of the wire format: no retries, no environment."""

    def __init__(self, simulator: Simulator) -> None:
        super().__init__()
        self.trust_env = False
        self._url = simulator.url

    def message(self, device: str, *, timeout: float = 30, **fields: Any) -> requests.Response:
        """Send one message. Raises what requests raises."""
        body = {"to": "+628110000001", "text": "halo", **fields}
        return self.post(f"{self._url}/sim/v1/devices/{device}/messages", json=body, timeout=timeout)


@pytest.fixture(scope="module")
def simulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Simulator]:
    path = tmp_path_factory.mktemp("simulator") / "ledger.jsonl"
    with running_simulator("--ledger", str(path)) as running:
        yield running


@pytest.fixture
def client(simulator: Simulator) -> Iterator[WireClient]:
    with WireClient(simulator) as session:
        yield session


@pytest.fixture
def new_device() -> Callable[[], str]:
    return lambda: f"device-{next(_numbers)}"
