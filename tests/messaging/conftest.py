from __future__ import annotations

from collections.abc import Iterator
from random import Random

import pytest
import redis
from django.conf import settings as django_settings

from devices.clients import ClientRegistry
from devices.gateways import registry
from devices.gateways.simulated_session import SimulatedSessionDriver
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


@pytest.fixture
def broker(settings) -> Iterator[redis.Redis]:
    """The broker, empty before and after."""
    settings.FLOTILLA_REPUBLISH_SECONDS = 1
    with redis.Redis.from_url(django_settings.REDIS_URL) as client:
        client.flushall()
        yield client
        client.flushall()


@pytest.fixture
def simulated_sessions(settings, broker, monkeypatch) -> None:
    """The kind of session that session hosts use in tests is known here, as it is to them."""
    settings.FLOTILLA_SESSION_SHARDS = 4
    driver = SimulatedSessionDriver()
    monkeypatch.setitem(registry._BY_KIND, driver.kind, driver)
