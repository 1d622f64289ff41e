"""Device queues: tokens, turns, order, and the ordinary operations on one of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
import redis
from kombu import Connection, Consumer, Producer, Queue
from redis.exceptions import NoScriptError

from messaging.transport import BELL_HEADER, device_route
from messaging.transport.names import BELL
from tests.messaging.transport.conftest import Connect
from tests.messaging.transport.server import assert_tokens_right, tokens, wait_until


class Fleet:
    """A producer and the bells of one or two consumers."""

    def __init__(self, connect: Connect) -> None:
        self.connect = connect
        self.producer = Producer(connect().channel())

    def send(self, device: int, body: Any, *, bell: str = "bell.0") -> None:
        route = device_route(queue=f"device.{device}", bell=bell)
        self.producer.publish(body, exchange="", routing_key=f"device.{device}", headers=route["headers"])

    def worker(self, *bells: str, slots: int = 100, **options: Any) -> Worker:
        return Worker(self.connect(**options), bells or ("bell.0",), slots)


class Worker:
    """A consumer that says how many slots it has, as the worker's bootstep does."""

    def __init__(self, connection: Connection, bells: tuple[str, ...], slots: int) -> None:
        self.connection = connection
        self.channel = connection.channel()
        self.got: list[Any] = []
        self.slots = slots
        self.channel.qos.free_slots_hook = lambda: self.slots - len(self.got)
        self.consumer = Consumer(self.channel, [Queue(bell) for bell in bells], on_message=self.on_message)
        self.consumer.consume()

    def on_message(self, message: Any) -> None:
        self.got.append(message)

    @property
    def seen(self) -> list[tuple[str, Any]]:
        return [(message.delivery_info["routing_key"], message.decode()) for message in self.got]

    def turn(self) -> None:
        with suppress(TimeoutError):
            self.connection.drain_events(timeout=0.2)

    def hear(self, count: int) -> list[Any]:
        wait_until(lambda: self.turn() or len(self.got) >= count, what=f"{count} messages")
        return self.got


@pytest.fixture
def fleet(connect: Connect, client: redis.Redis) -> Iterator[Fleet]:
    yield Fleet(connect)
    assert_tokens_right(client)


def test_a_device_list_is_a_real_list(fleet: Fleet, client: redis.Redis) -> None:
    for number in range(3):
        fleet.send(7, number)
    assert client.type("device.7") == b"list"
    assert client.llen("device.7") == 3
    assert tokens(client) == [("bell.0", "device.7")]
    assert client.lrange("bell.0", 0, -1) == [BELL]


def test_devices_take_turns(fleet: Fleet) -> None:
    for number in range(3):
        fleet.send(1, number)
    fleet.send(2, 0)
    fleet.send(3, 0)
    worker = fleet.worker()
    worker.hear(5)
    assert [queue for queue, _ in worker.seen] == ["device.1", "device.2", "device.3", "device.1", "device.1"]


def test_shards_take_turns(fleet: Fleet) -> None:
    for number in range(4):
        fleet.send(number, number, bell="bell.0")
    for number in range(4, 8):
        fleet.send(number, number, bell="bell.1")
    worker = fleet.worker("bell.0", "bell.1", slots=4)
    worker.hear(4)
    assert sorted(body < 4 for _, body in worker.seen) == [False, False, True, True]


def test_a_worker_hears_only_its_bells(fleet: Fleet, client: redis.Redis) -> None:
    fleet.send(1, "mine", bell="bell.1")
    fleet.send(2, "yours", bell="bell.2")
    worker = fleet.worker("bell.1")
    worker.hear(1)
    worker.turn()
    assert worker.seen == [("device.1", "mine")]
    assert client.llen("device.2") == 1


def test_one_fetch_takes_no_more_than_there_are_slots(fleet: Fleet, client: redis.Redis) -> None:
    for device in range(10):
        fleet.send(device, device)
    worker = fleet.worker(slots=3)
    worker.connection.drain_events(timeout=5)
    assert len(worker.got) == 3
    assert client.hlen("unacked") == 3
    assert client.llen("bell.0") == 1, "the rest must wake somebody else"


def test_one_fetch_takes_no_more_than_its_limit(fleet: Fleet) -> None:
    for device in range(10):
        fleet.send(device, device)
    worker = fleet.worker(fetch_limit=4)
    worker.connection.drain_events(timeout=5)
    assert len(worker.got) == 4


def test_what_one_worker_leaves_wakes_the_next(fleet: Fleet) -> None:
    waiting = fleet.worker(slots=50)
    waiting.turn()
    small = fleet.worker(slots=1)
    small.turn()
    for device in range(6):
        fleet.send(device, device)

    def all_out() -> bool:
        if len(small.got) < small.slots:
            small.turn()
        waiting.turn()
        return len(small.got) + len(waiting.got) == 6

    wait_until(all_out, what="six messages")
    assert len(small.got) <= 1


def test_messages_are_registered_by_the_fetch_itself(fleet: Fleet, client: redis.Redis) -> None:
    """One round trip saved: after the script, the client does not write the entry again."""
    for device in range(5):
        fleet.send(device, device)
    worker = fleet.worker()
    client.config_resetstat()
    worker.hear(5)
    calls = client.info("commandstats")
    assert "cmdstat_multi" not in calls
    assert calls["cmdstat_hset"]["calls"] == 5
    for message in worker.got:
        message.ack()
    assert client.info("commandstats")["cmdstat_evalsha"]["calls"] <= calls["cmdstat_evalsha"]["calls"] + 5


def test_acks_of_one_turn_go_out_together(fleet: Fleet, client: redis.Redis) -> None:
    """Inside an event loop: a hub as Celery's worker has one."""
    from kombu.asynchronous import Hub

    for device in range(6):
        fleet.send(device, device)
    worker = fleet.worker()
    hub = Hub()
    worker.connection.register_with_event_loop(hub)
    wait_until(lambda: hub.run_once() or len(worker.got) == 6)
    assert client.hlen("unacked") == 6
    client.config_resetstat()
    for message in worker.got:
        hub.call_soon(message.ack)
    wait_until(lambda: hub.run_once() or client.hlen("unacked") == 0)
    assert client.info("commandstats")["cmdstat_hdel"]["calls"] == 1
    fleet.send(1, "last")
    wait_until(lambda: hub.run_once() or len(worker.got) == 7)
    hub.call_soon(worker.got[-1].ack)
    hub.close()
    assert client.hlen("unacked") == 0, "a closing hub sends what it gathered"
    worker.connection.close()


def test_requeued_messages_keep_their_place(fleet: Fleet) -> None:
    for number in range(5):
        fleet.send(1, number)
    worker = fleet.worker(slots=3)
    zero, one, two = worker.hear(3)
    one.requeue()
    two.requeue()
    zero.requeue()
    other = fleet.worker()
    other.hear(5)
    assert [body for _, body in other.seen] == [0, 1, 2, 3, 4]


def test_messages_of_two_lost_workers_keep_their_place(fleet: Fleet, client: redis.Redis) -> None:
    for number in range(5):
        fleet.send(1, number)
    first, second = fleet.worker(slots=1), fleet.worker(slots=2)
    first.hear(1)
    second.hear(2)
    first.channel.close()
    second.channel.close()
    last = fleet.worker()
    last.hear(5)
    assert [body for _, body in last.seen] == [0, 1, 2, 3, 4]


def test_a_message_that_came_back_goes_to_whichever_bell_its_queue_has_now(fleet: Fleet, client: redis.Redis) -> None:
    fleet.send(1, "a", bell="bell.0")
    worker = fleet.worker()
    (message,) = worker.hear(1)
    fleet.send(1, "b", bell="bell.9")
    message.requeue()
    assert tokens(client) == [("bell.9", "device.1")]
    other = fleet.worker("bell.9")
    other.hear(2)
    assert [body for _, body in other.seen] == ["a", "b"]


def test_a_queue_moves_with_its_latest_message(fleet: Fleet, client: redis.Redis) -> None:
    fleet.send(1, "a", bell="bell.0")
    fleet.send(1, "b", bell="bell.1")
    assert tokens(client) == [("bell.1", "device.1")]


def test_two_sweeps_bring_a_message_back_once(fleet: Fleet, client: redis.Redis) -> None:
    fleet.send(1, "a")
    lost = fleet.worker(visibility_timeout=0)
    lost.hear(1)
    others = [fleet.worker(visibility_timeout=0) for _ in range(2)]
    for other in others:
        other.channel.qos.restore_visible(num=None, interval=1)
    assert client.llen("device.1") == 1
    lost.got[0].ack()
    assert client.llen("device.1") == 1, "a late acknowledgement does not reach into the list"
    lost.channel.qos._delivered.clear()


def test_a_sweep_leaves_alone_what_has_been_taken_again(fleet: Fleet, client: redis.Redis) -> None:
    fleet.send(1, "a")
    worker = fleet.worker()
    (message,) = worker.hear(1)
    qos = worker.channel.qos
    entry = client.hget("unacked", message.delivery_tag)
    # The sweep read this row as overdue, and before it moved it the message went home and out again.
    qos._restore(client, tag=message.delivery_tag, entry=entry, score=1.0, not_after="1000.0")
    assert client.hlen("unacked") == 1
    assert client.llen("device.1") == 0


def test_a_sweep_leaves_alone_what_was_acknowledged_meanwhile(fleet: Fleet, client: redis.Redis) -> None:
    fleet.send(1, "a")
    worker = fleet.worker()
    (message,) = worker.hear(1)
    entry = client.hget("unacked", message.delivery_tag)
    message.ack()
    worker.channel.qos._restore(client, tag=message.delivery_tag, entry=entry, score=1.0)
    assert client.llen("device.1") == 0


def test_a_sweep_of_many_pages(fleet: Fleet, client: redis.Redis) -> None:
    count = 450
    with fleet.producer.batch():
        for number in range(count):
            fleet.send(number % 3, number)
    worker = fleet.worker(slots=count, visibility_timeout=0)
    worker.hear(count)
    worker.channel.qos.restore_visible(num=None, interval=1)
    assert sum(client.llen(f"device.{device}") for device in range(3)) == count
    worker.channel.qos._delivered.clear()
    other = fleet.worker(slots=count)
    other.hear(count)
    for device in range(3):
        assert [b for q, b in other.seen if q == f"device.{device}"] == list(range(device, count, 3))


def test_a_consumer_that_raises_gives_the_rest_back(fleet: Fleet, client: redis.Redis) -> None:
    for device in range(4):
        fleet.send(device, device)
    worker = fleet.worker()

    def stumble(message: Any) -> None:
        worker.got.append(message)
        if len(worker.got) == 2:
            raise ZeroDivisionError

    worker.consumer.on_message = stumble
    with pytest.raises(ZeroDivisionError):
        wait_until(worker.turn)
    assert client.hlen("unacked") == 2
    assert sorted(queue for _, queue in tokens(client)) == ["device.2", "device.3"]


def test_a_closing_consumer_passes_the_bell_on(fleet: Fleet, client: redis.Redis) -> None:
    worker = fleet.worker()
    worker.turn()
    worker.channel.connection.cycle.on_poll_start()  # waits in BRPOP
    fleet.send(1, "a")
    wait_until(lambda: client.llen("bell.0") == 0, what="a bell that was heard")
    worker.channel.close()
    assert client.llen("device.1") == 1
    assert client.llen("bell.0") == 1


def test_without_a_bell_a_ready_device_is_found_by_the_timeout(fleet: Fleet, client: redis.Redis) -> None:
    fleet.send(1, "a")
    client.delete("bell.0")  # heard by a consumer that died before it fetched
    assert fleet.worker().hear(1)[0].decode() == "a"


def test_purge_takes_the_token(fleet: Fleet, client: redis.Redis) -> None:
    fleet.send(1, "a")
    fleet.send(2, "b")
    channel = fleet.connect().channel()
    assert channel.queue_purge("device.1") == 1
    assert tokens(client) == [("bell.0", "device.2")]


def test_purging_a_bell_purges_no_device(fleet: Fleet, client: redis.Redis) -> None:
    fleet.send(1, "a")
    channel = fleet.connect().channel()
    assert channel.queue_purge("bell.0") == 0
    assert client.llen("device.1") == 1
    assert client.llen("bell.0") == 1


def test_deleting_leaves_ordinary_queues_of_others_alone(fleet: Fleet, client: redis.Redis) -> None:
    fleet.producer.publish("x", exchange="", routing_key="plain")
    fleet.connect().channel().queue_delete("plain")
    assert client.llen("plain") == 1, "stock deletes only what the channel declared"


def test_garbage_in_a_device_list_is_set_aside(fleet: Fleet, client: redis.Redis) -> None:
    fleet.send(1, "good")
    client.rpush("device.1", "garbage", '{"properties": {"delivery_tag": "t"}, "only Lua reads this": 0x10}')
    worker = fleet.worker()
    worker.hear(1)
    assert worker.seen == [("device.1", "good")]
    assert client.llen("bell:unreadable") == 2
    assert client.hlen("unacked") == 1


def test_an_entry_that_cannot_be_read_does_not_stop_a_sweep(fleet: Fleet, client: redis.Redis) -> None:
    client.hset("unacked", mapping={"bad": "garbage", "worse": '[1, "", "x"]'})
    client.zadd("unacked_index", {"bad": 1.0, "worse": 2.0})
    fleet.send(1, "a")
    worker = fleet.worker(visibility_timeout=0)
    worker.hear(1)
    worker.channel.qos.restore_visible(num=None, interval=1)
    assert client.llen("device.1") == 1
    assert client.hlen("unacked") == 0
    assert set(client.lrange("bell:unreadable", 0, -1)) == {b"garbage", b'[1, "", "x"]'}
    worker.channel.qos._delivered.clear()


def test_awkward_names_and_bodies_survive(fleet: Fleet, client: redis.Redis) -> None:
    name = 'device."é/\\1'
    body = {"empty": [], "none": None, "big": 2**60, "nested": {"a": [[], {}]}, "text": "☃" * 100}
    headers = {BELL_HEADER: "bell.0", "empty": [], "nested": {"list": [], "dict": {}}, "big": 2**60}
    fleet.producer.publish(body, exchange="", routing_key=name, headers=headers)
    worker = fleet.worker()
    (message,) = worker.hear(1)
    message.requeue()
    again = worker.hear(2)[1]
    assert again.decode() == body
    assert {key: again.headers[key] for key in headers} == headers
    assert again.delivery_info["routing_key"] == name
    again.ack()
    assert client.hlen("unacked") == 0


def test_scripts_forgotten_in_the_middle_of_a_batch(fleet: Fleet, client: redis.Redis) -> None:
    with fleet.producer.batch(max_size=5):
        for number in range(23):
            if number in {3, 11}:
                client.script_flush()
            fleet.send(number % 4, number)
    assert sum(client.llen(f"device.{device}") for device in range(4)) == 23
    worker = fleet.worker()
    worker.hear(23)
    assert sorted(body for _, body in worker.seen) == list(range(23))


def test_a_refused_script_in_a_batch_is_sent_again_alone(fleet: Fleet, client: redis.Redis) -> None:
    """Ordinary messages of the same write are not sent twice."""
    with fleet.producer.batch() as batch:
        fleet.send(1, "first")
        batch.flush()
        client.script_flush()
        fleet.producer.publish("x", exchange="", routing_key="plain")
        fleet.send(1, "second")
        with pytest.raises(NoScriptError):
            client.evalsha("0" * 40, 0)
    assert client.llen("plain") == 1
    assert client.llen("device.1") == 2


def test_the_cost_of_a_message_does_not_grow_with_the_number_of_queues(fleet: Fleet, client: redis.Redis) -> None:
    def commands(devices: int) -> float:
        with fleet.producer.batch():
            for device in range(devices):
                fleet.send(device, "x")
        worker = fleet.worker(slots=devices)
        client.config_resetstat()
        worker.hear(devices)
        calls = sum(row["calls"] for row in client.info("commandstats").values())
        for message in worker.got:
            message.ack()
        worker.connection.close()
        return calls / devices

    few, many = commands(50), commands(2000)
    assert many <= few * 1.2
