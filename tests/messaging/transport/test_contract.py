"""What kombu promises of a Redis transport, asked of stock, of ours, and of ours with device queues.

The same test, word for word, runs over three *flavours*:

* ``stock``: kombu's ``redis`` transport, an ordinary queue. It shows that the test asks what kombu does.
* ``ours``: our transport, the same ordinary queue.
* ``device``: our transport, messages sent to a device queue, the consumer on the bell.

Not asked of ``device``, because it does not apply: message priorities (a device queue is one list, its order is the
promise), ``x-expires`` (device queues are never declared), exchanges and bindings (they are sent to by name).
Not asked of anyone: ``global_keyprefix`` (refused, see below) and Sentinel (another transport class of kombu's).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import pytest
from kombu import Connection, Consumer, Exchange, Producer, Queue
from kombu.exceptions import BatchPublishError
from kombu.utils.json import loads

from messaging.transport import device_queue, device_route
from tests.messaging.transport.conftest import OURS, Connect
from tests.messaging.transport.server import Server, assert_tokens_right, wait_until

pytestmark = pytest.mark.contract


@dataclass
class Flavour:
    """How one flavour sends and listens. ``kept_in``: the list that holds waiting messages."""

    name: str
    connect: Connect
    transport: str
    kept_in: str = "plain"

    def connection(self, **options: Any) -> Connection:
        return self.connect(transport=self.transport, **options)

    @property
    def listened(self) -> Queue:
        return Queue("bell.1") if self.name == "device" else Queue("plain", Exchange("plain"), routing_key="plain")

    def publish(self, producer: Producer, body: Any, **more: Any) -> None:
        if self.name == "device":
            route = device_route(queue=self.kept_in, bell="bell.1")
            producer.publish(body, exchange="", routing_key=self.kept_in, headers=route["headers"], **more)
        else:
            queue = self.listened
            producer.publish(body, exchange=queue.exchange, routing_key=queue.routing_key, declare=[queue], **more)


@pytest.fixture(params=["stock", "ours", "device"])
def flavour(request: pytest.FixtureRequest, connect: Connect) -> Flavour:
    kept_in = "device.1" if request.param == "device" else "plain"
    return Flavour(request.param, connect, "redis" if request.param == "stock" else OURS, kept_in)


@pytest.fixture(params=["stock", "ours"])
def ordinary(request: pytest.FixtureRequest, connect: Connect) -> Flavour:
    return Flavour(request.param, connect, "redis" if request.param == "stock" else OURS)


@pytest.fixture(autouse=True)
def tokens_stay_right(server: Server) -> Iterator[None]:
    yield
    assert_tokens_right(server.client)


class Listener:
    """A consumer that keeps what it got."""

    def __init__(self, flavour: Flavour, *, prefetch: int = 0, no_ack: bool = False, **options: Any) -> None:
        self.connection = flavour.connection(**options)
        self.channel = self.connection.channel()
        self.messages: list[Any] = []
        self.consumer = Consumer(
            self.channel, [flavour.listened], on_message=self.messages.append, no_ack=no_ack, prefetch_count=prefetch
        )
        self.consumer.consume()

    @property
    def bodies(self) -> list[Any]:
        return [message.decode() for message in self.messages]

    def hear(self, count: int) -> list[Any]:
        """Listen until ``count`` messages came in all."""
        wait_until(lambda: self._drain() or len(self.messages) >= count, what=f"{count} messages")
        return self.messages

    def hear_nothing_more(self) -> None:
        had = len(self.messages)
        self._drain(timeout=0.4)
        assert len(self.messages) == had

    def _drain(self, timeout: float = 0.3) -> None:
        with suppress(TimeoutError):
            self.connection.drain_events(timeout=timeout)


def publish(flavour: Flavour, *bodies: Any, **more: Any) -> None:
    with flavour.connection() as connection:
        producer = Producer(connection.channel())
        for body in bodies:
            flavour.publish(producer, body, **more)


def unacked(server: Server) -> int:
    count = server.client.hlen("unacked")
    assert count == server.client.zcard("unacked_index")
    return count


def test_messages_arrive_in_the_order_sent(flavour: Flavour, server: Server) -> None:
    publish(flavour, *range(5))
    listener = Listener(flavour)
    for message in listener.hear(5):
        message.ack()
    assert listener.bodies == [0, 1, 2, 3, 4]
    assert unacked(server) == 0
    assert server.client.llen(flavour.kept_in) == 0


def test_a_consumer_that_waits_is_woken(flavour: Flavour) -> None:
    listener = Listener(flavour)
    listener.hear_nothing_more()
    publish(flavour, {"late": True})
    assert listener.hear(1)[0].decode() == {"late": True}


def test_one_event_is_one_message(flavour: Flavour) -> None:
    publish(flavour, 1, 2, 3)
    listener = Listener(flavour)
    listener.connection.drain_events(timeout=5)
    assert len(listener.messages) == 1


def test_a_message_is_unacked_until_acknowledged(flavour: Flavour, server: Server) -> None:
    publish(flavour, "a", "b")
    listener = Listener(flavour)
    first, second = listener.hear(2)
    assert unacked(server) == 2
    first.ack()
    assert unacked(server) == 1
    second.ack()
    assert unacked(server) == 0


def test_the_unacked_entry_is_kombu_s_own(flavour: Flavour, server: Server) -> None:
    publish(flavour, "a")
    (message,) = Listener(flavour).hear(1)
    raw, exchange, routing_key = loads(server.client.hget("unacked", message.delivery_tag).decode())
    assert raw["properties"]["delivery_tag"] == message.delivery_tag
    assert (exchange, routing_key) == (("plain", "plain") if flavour.name != "device" else ("", "device.1"))
    assert message.delivery_info["routing_key"] == flavour.kept_in


def test_prefetch_bounds_what_is_out(flavour: Flavour) -> None:
    publish(flavour, *range(4))
    listener = Listener(flavour, prefetch=2)
    listener.hear(2)
    listener.hear_nothing_more()
    listener.messages[0].ack()
    listener.hear(3)
    listener.hear_nothing_more()


def test_rejected_is_gone(flavour: Flavour, server: Server) -> None:
    publish(flavour, "a")
    listener = Listener(flavour)
    listener.hear(1)[0].reject()
    assert unacked(server) == 0
    listener.hear_nothing_more()


def test_requeued_comes_again_marked(flavour: Flavour, server: Server) -> None:
    publish(flavour, "a")
    listener = Listener(flavour)
    (first,) = listener.hear(1)
    assert not first.headers.get("redelivered")
    first.requeue()
    again = listener.hear(2)[1]
    assert again.decode() == "a"
    assert again.headers["redelivered"] is True
    assert again.delivery_info["redelivered"] is True
    again.ack()
    assert unacked(server) == 0


def test_a_closing_channel_gives_back_in_order(flavour: Flavour, server: Server) -> None:
    publish(flavour, "a", "b", "c", "d")
    listener = Listener(flavour)
    listener.hear(3)[1].ack()
    listener.channel.close()
    assert unacked(server) == 0
    other = Listener(flavour)
    other.hear(3)
    if flavour.name == "device":
        assert other.bodies == ["a", "c", "d"]
    else:
        assert sorted(other.bodies) == ["a", "c", "d"]
    redelivered = {message.decode(): bool(message.headers.get("redelivered")) for message in other.messages}
    assert redelivered == {"a": True, "c": True, "d": False}


def test_recover_gives_back(flavour: Flavour, server: Server) -> None:
    publish(flavour, "a", "b")
    listener = Listener(flavour)
    listener.hear(2)
    listener.consumer.recover(requeue=True)
    assert unacked(server) == 0
    assert server.client.llen(flavour.kept_in) == 2


def test_a_lost_consumer_s_messages_come_back(flavour: Flavour, server: Server) -> None:
    publish(flavour, "a", "b")
    lost = Listener(flavour, visibility_timeout=0.2)
    lost.hear(2)
    lost.channel.do_restore = False  # as when the process is killed: nobody tidies up
    # A consumer without an event loop sweeps when it waits longer for BRPOP's answer than it was told to wait.
    other = Listener(flavour, visibility_timeout=0.2, polling_interval=1)
    other.hear(2)
    assert sorted(other.bodies) == ["a", "b"]
    assert all(message.headers["redelivered"] for message in other.messages)
    lost.channel.qos._delivered.clear()


def test_messages_out_for_a_short_time_stay_out(flavour: Flavour, server: Server) -> None:
    publish(flavour, "a")
    listener = Listener(flavour, visibility_timeout=600)
    listener.hear(1)
    listener.channel.qos.restore_visible(num=None, interval=1)
    assert unacked(server) == 1


def test_no_ack_leaves_nothing_behind(flavour: Flavour, server: Server) -> None:
    publish(flavour, "a", "b")
    listener = Listener(flavour, no_ack=True)
    listener.hear(2)
    assert unacked(server) == 0
    assert server.client.llen(flavour.kept_in) == 0


def test_without_ack_emulation_nothing_is_registered(flavour: Flavour, server: Server) -> None:
    publish(flavour, "a")
    listener = Listener(flavour, ack_emulation=False)
    assert listener.hear(1)[0].decode() == "a"
    assert unacked(server) == 0
    listener.messages[0].ack()


def test_get_one_by_hand(flavour: Flavour, server: Server) -> None:
    publish(flavour, "a", "b")
    channel = flavour.connection().channel()
    message = channel.basic_get(flavour.kept_in)
    assert channel.message_to_python(message).decode() == "a"
    assert unacked(server) == 1
    message.ack()
    assert unacked(server) == 0
    assert channel.basic_get(flavour.kept_in, no_ack=True).decode() == "b"
    assert unacked(server) == 0
    assert channel.basic_get(flavour.kept_in) is None


def test_size_purge_and_what_is_left(flavour: Flavour, server: Server) -> None:
    publish(flavour, "a", "b", "c")
    channel = flavour.connection().channel()
    assert channel._size(flavour.kept_in) == 3
    assert channel.queue_purge(flavour.kept_in) == 3
    assert channel._size(flavour.kept_in) == 0
    assert channel.queue_purge(flavour.kept_in) == 0
    publish(flavour, "later")
    listener = Listener(flavour)
    listener.hear(1)
    assert listener.bodies == ["later"]


def test_delete(flavour: Flavour, server: Server) -> None:
    publish(flavour, "a")
    channel = flavour.connection().channel()
    if flavour.name != "device":
        flavour.listened(channel).declare()
    channel.queue_delete(flavour.kept_in, if_empty=True)
    assert channel._size(flavour.kept_in) == 1
    channel.queue_delete(flavour.kept_in)
    assert channel._size(flavour.kept_in) == 0
    assert server.client.exists(flavour.kept_in) == 0


def test_cancelled_consumers_get_nothing(flavour: Flavour, server: Server) -> None:
    listener = Listener(flavour)
    listener.hear_nothing_more()
    listener.consumer.cancel()
    publish(flavour, "a")
    listener._drain()
    assert listener.messages == []
    assert server.client.llen(flavour.kept_in) + unacked(server) == 1
    other = Listener(flavour)
    assert other.hear(1)[0].decode() == "a"


def test_a_batch_is_sent_when_it_ends(flavour: Flavour, server: Server) -> None:
    with flavour.connection() as connection:
        producer = Producer(connection.channel())
        assert producer.supports_batch_publish
        with producer.batch():
            for body in range(20):
                flavour.publish(producer, body)
            assert server.client.llen(flavour.kept_in) == 0
    assert server.client.llen(flavour.kept_in) == 20
    listener = Listener(flavour)
    listener.hear(20)
    assert listener.bodies == list(range(20))


def test_a_batch_that_is_full_goes_out(flavour: Flavour, server: Server) -> None:
    with flavour.connection() as connection:
        producer = Producer(connection.channel())
        with producer.batch(max_size=4):
            for body in range(10):
                flavour.publish(producer, body)
            assert server.client.llen(flavour.kept_in) == 8
    assert server.client.llen(flavour.kept_in) == 10


def test_a_batch_with_an_error_sends_nothing(flavour: Flavour, server: Server) -> None:
    with flavour.connection() as connection:
        producer = Producer(connection.channel())
        with suppress(ZeroDivisionError), producer.batch():
            flavour.publish(producer, "a")
            flavour.publish(producer, 1 / 0)
    assert server.client.llen(flavour.kept_in) == 0


def test_a_batch_that_fails_says_so(flavour: Flavour, server: Server) -> None:
    with flavour.connection() as connection:
        producer = Producer(connection.channel())
        batch = producer.batch()
        batch.__enter__()
        flavour.publish(producer, "a")
        server.client.set(flavour.kept_in, "not a list")
        with pytest.raises(BatchPublishError):
            batch.__exit__(None, None, None)
    server.client.delete(flavour.kept_in)


def test_a_lost_connection_is_an_error_and_not_the_end(flavour: Flavour, server: Server) -> None:
    listener = Listener(flavour)
    listener.hear_nothing_more()
    server.client.client_kill_filter(_type="normal", skipme=True)
    with pytest.raises(listener.connection.connection_errors):
        wait_until(lambda: listener.connection.drain_events(timeout=5))
    publish(flavour, "a")
    assert listener.hear(1)[0].decode() == "a"


def test_a_connection_lost_while_publishing_is_retried(flavour: Flavour, server: Server) -> None:
    with flavour.connection() as connection:
        producer = Producer(connection.channel())
        flavour.publish(producer, "a", retry=True)
        server.client.client_kill_filter(_type="normal", skipme=True)
        flavour.publish(producer, "b", retry=True, retry_policy={"max_retries": 3})
    assert server.client.llen(flavour.kept_in) == 2


def test_fanout_reaches_every_listener(ordinary: Flavour) -> None:
    exchange = Exchange("news", type="fanout")
    got: list[tuple[int, Any]] = []
    connections = [ordinary.connection() for _ in range(2)]
    for number, connection in enumerate(connections):
        queue = Queue(f"news.{number}", exchange, auto_delete=True)
        consumer = Consumer(
            connection.channel(), [queue], no_ack=True, on_message=lambda m, n=number: got.append((n, m.decode()))
        )
        consumer.consume()
        with suppress(TimeoutError):
            connection.drain_events(timeout=0.3)  # sends SUBSCRIBE
    with ordinary.connection() as connection:
        Producer(connection.channel(), exchange).publish("hello", declare=[exchange])
    for connection in connections:
        connection.drain_events(timeout=10)
    assert sorted(got) == [(0, "hello"), (1, "hello")]


def test_topics_are_routed(ordinary: Flavour, server: Server) -> None:
    exchange = Exchange("topics", type="topic")
    with ordinary.connection() as connection:
        channel = connection.channel()
        for name, pattern in (("warm", "weather.#"), ("all", "#")):
            Queue(name, exchange, routing_key=pattern)(channel).declare()
        Producer(channel, exchange).publish("x", routing_key="weather.sun")
        Producer(channel, exchange).publish("y", routing_key="sport")
        assert (channel._size("warm"), channel._size("all")) == (1, 2)


def test_priorities_with_kombu_s_default_steps(ordinary: Flavour) -> None:
    steps = {"priority_steps": [0, 3, 6, 9]}
    with ordinary.connection(**steps) as connection:
        producer = Producer(connection.channel())
        for priority in (9, 0, 6):
            ordinary.publish(producer, priority, priority=priority)
        assert connection.channel()._size("plain") == 3
    listener = Listener(ordinary, **steps)
    listener.hear(3)
    assert listener.bodies == [0, 6, 9]


def test_expiring_queues_expire(ordinary: Flavour, server: Server) -> None:
    queue = Queue("brief", Exchange("brief"), routing_key="brief", expires=0.2)
    with ordinary.connection() as connection:
        Producer(connection.channel()).publish("a", exchange="brief", routing_key="brief", declare=[queue])
        assert server.client.pttl("brief") > 0
        wait_until(lambda: not server.client.exists("brief"), what="an expired list")


def test_simple_queues_work(ordinary: Flavour, server: Server) -> None:
    with ordinary.connection() as connection:
        simple = connection.SimpleQueue("simple")
        simple.put({"n": 1})
        message = simple.get(timeout=5)
        assert message.payload == {"n": 1}
        message.ack()
        simple.close()
    assert unacked(server) == 0


def test_devices_and_ordinary_queues_on_one_consumer(connect: Connect) -> None:
    connection = connect()
    got: list[Any] = []
    consumer = Consumer(connection.channel(), [Queue("bell.1"), Queue("plain")], on_message=got.append)
    consumer.consume()
    producer = Producer(connect().channel())
    for number in range(6):
        producer.publish(f"plain {number}", exchange="", routing_key="plain")
        route = device_route(queue=f"device.{number}", bell="bell.1")
        producer.publish(f"device {number}", exchange="", routing_key=f"device.{number}", headers=route["headers"])

    def heard_all() -> bool:
        with suppress(TimeoutError):
            connection.drain_events(timeout=0.5)
        return len(got) == 12

    wait_until(heard_all, what="twelve messages")
    assert sorted({message.decode().split()[0] for message in got}) == ["device", "plain"]
    for message in got:
        message.ack()


def test_a_global_key_prefix_is_refused(connect: Connect) -> None:
    with pytest.raises(ValueError, match="global_keyprefix"):
        connect(global_keyprefix="x.").channel()


def test_a_device_queue_is_an_ordinary_queue_object() -> None:
    queue = device_queue("device.5")
    assert (queue.name, queue.routing_key, queue.exchange.name, queue.no_declare) == ("device.5", "device.5", "", True)
