from __future__ import annotations

from collections.abc import Iterator
from random import Random

import pytest

from devices.clients import ClientRegistry
from messaging.dispatch.pool import Pool
from messaging.dispatch.send import Sender
from tests.simulator_process import Simulator, running_simulator


@pytest.fixture(scope="session")
def simulator_process() -> Iterator[Simulator]:
    with running_simulator() as simulator:
        yield simulator


@pytest.fixture
def simulator(simulator_process: Simulator, settings) -> Simulator:
    """The simulator with an empty ledger and no faults, where every simulator device finds it."""
    simulator_process.reset()
    settings.FLOTILLA_GATEWAY_URLS = {"simulator": simulator_process.url}
    return simulator_process


@pytest.fixture
def pool() -> Iterator[Pool]:
    pool = Pool(size=8)
    yield pool
    pool.close()


@pytest.fixture
def sender(pool: Pool) -> Iterator[Sender]:
    """A sender as a worker process has one."""
    clients = ClientRegistry()
    yield Sender(pool=pool, clients=clients, rng=Random(1))
    clients.close()
