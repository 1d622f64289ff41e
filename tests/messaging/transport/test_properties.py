"""Whatever producers, consumers, kills and sweeps do in whatever order: nothing lost, nothing doubled, order kept."""

from __future__ import annotations

import itertools
from contextlib import nullcontext, suppress
from typing import Any

import pytest
import redis
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from kombu import Connection, Consumer, Producer, Queue
from kombu.utils.json import loads

from messaging.transport import device_route, repair
from tests.messaging.transport.conftest import Connect
from tests.messaging.transport.server import assert_tokens_right

DEVICES = st.integers(0, 3)
CONSUMERS = st.integers(0, 1)
SHARDS = 2


class Holder:
    """A consumer of both bells and the messages it holds. Killed means: forgotten without any tidying up."""

    def __init__(self, connect: Connect) -> None:
        self.connection: Connection = connect(visibility_timeout=0, polling_interval=0.01)
        self.channel = self.connection.channel()
        self.slots = 0
        self.held: list[Any] = []
        self.channel.qos.free_slots_hook = lambda: self.slots
        bells = [Queue(f"bell.{shard}") for shard in range(SHARDS)]
        Consumer(self.channel, bells, on_message=self.held.append).consume()

    def take(self, slots: int) -> list[Any]:
        """One event. Nothing else restores here: sweeps are a rule of their own."""
        self.slots = slots
        had = len(self.held)
        with suppress(TimeoutError):
            self.connection.drain_events(timeout=0.03)
        return self.held[had:]

    def kill(self) -> None:
        self.channel.qos._delivered.clear()
        self.channel.qos._acked.clear()
        self.channel._in_poll = None
        self.channel._disconnect_pools()
        self.channel._close_clients()


class Traffic(RuleBasedStateMachine):
    """The model: where each message is, and how often it may have been given out."""

    connect: Connect
    client: redis.Redis

    def __init__(self) -> None:
        super().__init__()
        self.numbers = itertools.count()
        self.waiting: dict[int, set[int]] = {device: set() for device in range(4)}
        self.lost: dict[int, set[int]] = {device: set() for device in range(4)}
        self.holders: list[Holder] = []

    @initialize()
    def fresh(self) -> None:
        self.client.flushall()
        self.producer = Producer(self.connect().channel())
        # A sweep inside drain_events would make the machine's steps depend on time.
        self.holders = [self.holder() for _ in range(2)]

    def holder(self) -> Holder:
        holder = Holder(self.connect)
        holder.connection.transport.cycle.maybe_restore_messages = lambda: None
        return holder

    def teardown(self) -> None:
        for holder in self.holders:
            holder.kill()

    @rule(device=DEVICES, shard=st.none() | st.integers(0, SHARDS - 1), count=st.integers(1, 4), batch=st.booleans())
    def put(self, device: int, shard: int | None, count: int, batch: bool) -> None:
        bell = f"bell.{device % SHARDS if shard is None else shard}"
        headers = device_route(queue=f"device.{device}", bell=bell)["headers"]
        batching = self.producer.batch() if batch else nullcontext()
        with batching:
            for _ in range(count):
                number = next(self.numbers)
                self.producer.publish(number, exchange="", routing_key=f"device.{device}", headers=headers)
                self.waiting[device].add(number)

    @rule(who=CONSUMERS, slots=st.integers(1, 6))
    def get(self, who: int, slots: int) -> None:
        taken = self.holders[who].take(slots)
        assert len(taken) <= slots
        last: dict[int, int] = {}
        for message in taken:
            device, number = self.identify(message)
            assert number in self.waiting[device], "given out twice, or never sent"
            assert number > last.get(device, -1), "out of order"
            last[device] = number
            assert number == min(self.waiting[device]), "a later message overtook"
            self.waiting[device].discard(number)
        if not taken:
            assert not any(self.waiting.values()), "a consumer waits while devices have messages"

    @rule(device=DEVICES)
    def get_by_hand(self, device: int) -> None:
        message = self.holders[0].channel.basic_get(f"device.{device}")
        if message is None:
            assert not self.waiting[device]
        else:
            assert self.identify(message)[1] == min(self.waiting[device])
            self.waiting[device].discard(self.identify(message)[1])
            self.holders[0].held.append(message)

    @rule(who=CONSUMERS, data=st.data())
    def acknowledge(self, who: int, data: st.DataObject) -> None:
        if self.holders[who].held:
            self.pick(who, data).ack()

    @rule(who=CONSUMERS, data=st.data())
    def reject(self, who: int, data: st.DataObject) -> None:
        if self.holders[who].held:
            self.pick(who, data).reject()

    @rule(who=CONSUMERS, data=st.data(), count=st.integers(1, 4))
    def requeue(self, who: int, data: st.DataObject, count: int) -> None:
        for _ in range(min(count, len(self.holders[who].held))):
            message = self.pick(who, data)
            message.requeue()
            self.came_back(message)

    @rule(who=CONSUMERS)
    def close(self, who: int) -> None:
        holder = self.holders[who]
        holder.connection.close()
        for message in holder.held:
            self.came_back(message)
        self.holders[who] = self.holder()

    @rule(who=CONSUMERS)
    def kill(self, who: int) -> None:
        holder = self.holders[who]
        for message in holder.held:
            device, number = self.identify(message)
            self.lost[device].add(number)
        holder.kill()
        self.holders[who] = self.holder()

    @rule()
    def sweep(self) -> None:
        """With no visibility timeout at all: whatever is out comes back, also from under a living consumer."""
        self.holders[0].channel.qos.restore_visible(num=None, interval=1)
        for holder in self.holders:
            for message in holder.held:
                self.came_back(message)
            holder.held.clear()
            holder.channel.qos._delivered.clear()
        for device, numbers in self.lost.items():
            self.waiting[device] |= numbers
            numbers.clear()

    @rule(device=DEVICES)
    def purge(self, device: int) -> None:
        removed = self.holders[0].channel.queue_purge(f"device.{device}")
        assert removed == len(self.waiting[device])
        self.waiting[device].clear()

    @rule()
    def forget_scripts(self) -> None:
        self.client.script_flush()

    @rule()
    def mend(self) -> None:
        done = repair(self.client)
        assert (done.tokens_added, done.tokens_dropped) == (0, 0), "there was nothing to mend"

    @invariant()
    def tokens_are_right(self) -> None:
        lengths = {device: self.client.llen(f"device.{device}") for device in self.waiting}
        assert lengths == {device: len(numbers) for device, numbers in self.waiting.items()}
        held = sum(len(holder.held) for holder in self.holders) + sum(map(len, self.lost.values()))
        assert self.client.hlen("unacked") == self.client.zcard("unacked_index") == held
        where = self.client.hgetall("bell:of")
        assert {int(queue.split(b".")[1]) for queue in where} == {d for d, n in self.waiting.items() if n}
        self.tokens_match()

    def tokens_match(self) -> None:
        # A holder may have heard a bell already and fetch at its next event, so bells are not asked for here.
        ready = sum(self.client.zcard(f"bell.{shard}:ready") for shard in range(SHARDS))
        assert ready == sum(bool(numbers) for numbers in self.waiting.values())

    @invariant()
    def lists_are_in_order(self) -> None:
        for device, numbers in self.waiting.items():
            entries = reversed(self.client.lrange(f"device.{device}", 0, -1))
            bodies = [
                self.holders[0].channel.Message(loads(e.decode()), channel=self.holders[0].channel).decode()
                for e in entries
            ]
            assert bodies == sorted(numbers)

    # -- the model's bookkeeping

    def identify(self, message: Any) -> tuple[int, int]:
        return int(message.delivery_info["routing_key"].split(".")[1]), message.decode()

    def pick(self, who: int, data: st.DataObject) -> Any:
        held = self.holders[who].held
        return held.pop(data.draw(st.integers(0, len(held) - 1)))

    def came_back(self, message: Any) -> None:
        device, number = self.identify(message)
        self.waiting[device].add(number)


@pytest.mark.slow
def test_any_interleaving(connect: Connect, client: redis.Redis) -> None:
    machine = type("BoundTraffic", (Traffic,), {"connect": staticmethod(connect), "client": client})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=40,
            stateful_step_count=40,
            deadline=None,
            database=None,
            phases=[Phase.generate],  # shrinking against a real server takes minutes
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
        ),
    )
    client.flushall()
    assert_tokens_right(client)
