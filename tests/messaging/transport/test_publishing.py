"""Sending tasks with Celery: what the documented call does, and what names cost."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator

import pytest
import redis
from celery import Celery

from messaging.transport import BELL_HEADER, device_route
from tests.messaging.transport.conftest import OURS
from tests.messaging.transport.server import Server, assert_tokens_right, tokens


@pytest.fixture
def app(server: Server) -> Iterator[Celery]:
    with Celery("publishing", broker=server.url, set_as_current=False) as app:
        app.conf.update(broker_transport=OURS, broker_transport_options={"priority_steps": [0]})

        @app.task(name="noop", shared=False)
        def noop() -> None:
            """Never runs here."""

        yield app


def send(app: Celery, first: int, last: int) -> None:
    with app.producer_or_acquire() as producer, producer.batch():
        for device in range(first, last):
            route = device_route(queue=f"device.{device}", bell=f"bell.{device % 4}")
            app.tasks["noop"].apply_async(producer=producer, **route)


def test_a_task_goes_to_its_device_queue(app: Celery, client: redis.Redis) -> None:
    app.tasks["noop"].apply_async(**device_route(queue="device.5", bell="bell.1"))
    assert client.llen("device.5") == 1
    assert tokens(client) == [("bell.1", "device.5")]
    assert client.llen("celery") == 0


def test_only_live_queues_have_keys(app: Celery, client: redis.Redis) -> None:
    send(app, 0, 100)
    expected = {f"device.{device}" for device in range(100)}
    expected |= {f"bell.{shard}" for shard in range(4)} | {f"bell.{shard}:ready" for shard in range(4)} | {"bell:of"}
    assert {key.decode() for key in client.keys("*")} == expected
    with app.connection_for_write() as connection:
        channel = connection.channel()
        for device in range(100):
            assert channel.queue_purge(f"device.{device}") == 1
    assert {key.decode() for key in client.keys("*")} == {f"bell.{shard}" for shard in range(4)}


def test_ten_thousand_names_leave_no_memory_behind(app: Celery, client: redis.Redis) -> None:
    """Naming a queue by a plain string costs Celery about 2 KB for each name, for ever: 20 MB here."""
    names = 10_000
    send(app, 0, 1000)  # what is made once
    gc.collect()
    before = sys.getallocatedblocks()
    send(app, 1000, 1000 + names)
    gc.collect()
    assert sys.getallocatedblocks() - before < names // 10, "less than a tenth of an object for each name"
    assert client.hlen("bell:of") == 1000 + names
    assert_tokens_right(client)
    assert not [name for name in app.amqp.queues if name.startswith("device.")]


def test_a_batch_is_few_round_trips(app: Celery, client: redis.Redis) -> None:
    with app.producer_or_acquire() as producer:
        assert producer.supports_batch_publish
    client.config_resetstat()
    send(app, 0, 500)
    calls = client.info("commandstats")
    assert calls["cmdstat_evalsha"]["calls"] == 500
    assert client.info("stats")["total_reads_processed"] < 60


def test_the_header_reaches_the_worker_as_sent(app: Celery, client: redis.Redis) -> None:
    app.tasks["noop"].apply_async(**device_route(queue="device.5", bell="bell.1"))
    with app.connection_for_read() as connection:
        channel = connection.channel()
        message = channel.basic_get("device.5")
        assert message.headers[BELL_HEADER] == "bell.1"
        assert message.headers["task"] == "noop"
        message.ack()
