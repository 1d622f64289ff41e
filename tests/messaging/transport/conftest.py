"""Fixtures of the transport's tests: a server, connections to it, and workers. None of them needs Django."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis
from kombu import Connection

from tests.messaging.transport.server import Server

OURS = "messaging.transport:Transport"
Connect = Callable[..., Connection]


@pytest.fixture(scope="session")
def transport_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("valkey"))
    server.start()
    yield server
    server.client.close()
    server.stop()


@pytest.fixture
def server(transport_server: Server) -> Iterator[Server]:
    transport_server.client.flushall()
    yield transport_server
    transport_server.client.flushall()


@pytest.fixture
def client(server: Server) -> redis.Redis:
    return server.client


@pytest.fixture
def connect(server: Server) -> Iterator[Connect]:
    """Make kombu connections over our transport (or another one), closed when the test ends."""
    made: list[Connection] = []

    def make(*, transport: str = OURS, **options: Any) -> Connection:
        # polling_interval is also BRPOP's time-out: a closing channel waits for it.
        defaults = {
            "priority_steps": [0],
            "visibility_timeout": 60,
            "unacked_restore_throttle": 1,
            "polling_interval": 0.05,
        }
        connection = Connection(server.url, transport=transport, transport_options={**defaults, **options})
        made.append(connection)
        return connection

    yield make
    for connection in made:
        connection.close()
