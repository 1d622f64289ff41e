"""Repair: what a hand, an eviction or half a restore broke is found and mended."""

from __future__ import annotations

import pytest
import redis
from kombu import Producer

from messaging.transport import device_route, repair
from tests.messaging.transport.conftest import Connect
from tests.messaging.transport.server import assert_tokens_right, tokens


@pytest.fixture
def forty_devices(connect: Connect, client: redis.Redis) -> None:
    producer = Producer(connect().channel())
    for device in range(40):
        headers = device_route(queue=f"device.{device}", bell=f"bell.{device % 3}")["headers"]
        producer.publish("a", exchange="", routing_key=f"device.{device}", headers=headers)
    producer.publish("b", exchange="", routing_key="plain")
    assert_tokens_right(client)


@pytest.mark.usefixtures("forty_devices")
class TestRepair:
    def test_a_sound_server_is_left_alone(self, client: redis.Redis) -> None:
        before = tokens(client)
        done = repair(client, step_keys=10)
        assert (done.tokens_added, done.tokens_dropped, done.complete) == (0, 0, True)
        assert tokens(client) == before
        assert client.llen("plain") == 1

    def test_every_token_gone(self, client: redis.Redis) -> None:
        client.delete("bell:of", *client.keys("*:ready"))
        assert repair(client, step_keys=10).tokens_added == 40
        assert_tokens_right(client)
        assert ("bell.1", "device.4") in tokens(client)

    def test_ready_sets_gone(self, client: redis.Redis) -> None:
        client.delete("bell.0:ready", "bell.0")
        assert repair(client).tokens_added == 14
        assert_tokens_right(client)

    def test_the_where_hash_gone(self, client: redis.Redis) -> None:
        client.delete("bell:of")
        repair(client)
        assert_tokens_right(client)

    def test_lists_gone(self, client: redis.Redis) -> None:
        client.delete(*(f"device.{device}" for device in range(20)))
        assert repair(client, step_keys=10).tokens_dropped == 20
        assert len(tokens(client)) == 20
        assert_tokens_right(client)

    def test_a_second_token(self, client: redis.Redis) -> None:
        client.zadd("bell.1:ready", {"device.0": 5})
        client.zadd("bell.2:ready", {"device.99": 5})
        assert repair(client).tokens_dropped == 2
        assert_tokens_right(client)

    def test_messages_pushed_by_an_ordinary_client(self, client: redis.Redis) -> None:
        client.rename("device.0", "device.100")
        repair(client)
        assert ("bell.0", "device.100") in tokens(client)
        assert_tokens_right(client)

    def test_bells_gone(self, client: redis.Redis) -> None:
        client.delete("bell.0", "bell.1")
        repair(client)
        assert_tokens_right(client)

    def test_its_steps_are_bounded(self, client: redis.Redis) -> None:
        client.delete("bell:of", *client.keys("*:ready"))
        first = repair(client, step_keys=10, max_steps=1)
        assert (first.steps, first.complete) == (1, False)
        assert 0 <= first.tokens_added < 40

    def test_a_consumer_s_sweeps_repair_everything_in_the_end(self, client: redis.Redis, connect: Connect) -> None:
        client.delete("bell:of", *client.keys("*:ready"))
        qos = connect().channel().qos
        for _ in range(5):
            qos.restore_visible(num=None, interval=1)
        assert_tokens_right(client)
