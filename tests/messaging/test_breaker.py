from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from random import Random

import pytest
from django.utils import timezone

from devices.clients import ClientRegistry
from devices.gateways.base import Accepted, Rejected, Temporary, Unknown
from devices.models import Device, GatewayRest
from messaging.dispatch.breaker import Breaker, met_somebody
from messaging.dispatch.pool import Pool
from messaging.dispatch.release import release_round
from messaging.dispatch.send import Result, Sender
from messaging.models import Attempt, Message
from messaging.states import State
from messaging.why import why_not_sent
from tests.factories import make_batch, make_device, make_user, messages_of
from tests.simulator_process import wait_until

ADDRESS = ("simulator", "http://127.0.0.1:1")


@pytest.mark.parametrize(
    ("outcome", "met"),
    [
        (Accepted("x"), True),
        (Rejected("bad", "bad"), True),
        (Temporary("unavailable", "busy"), True),
        (Unknown("connection_lost", "reset"), True),
        (Temporary("connect", "no connection"), False),
        (Unknown("timeout", "no answer"), False),
    ],
)
def test_only_silence_is_nobody(outcome, met):
    assert met_somebody(outcome) is met


def test_the_fifth_call_in_a_row_that_meets_nobody_trips():
    breaker = Breaker(most_in_vain=5)

    def trips(met: bool) -> bool:
        return breaker.trips(ADDRESS, probing=False, met=met)

    assert [trips(met) for met in (False, False, False, False, True)] == [False] * 5
    assert [trips(met=False) for _ in range(6)] == [False] * 4 + [True, False]
    assert breaker.trips(ADDRESS, probing=True, met=False)  # a probe in vain is enough


def test_long_calls_to_one_address_leave_room_for_the_others():
    now = 0.0
    breaker = Breaker(most_slow=2, slow_seconds=10, clock=lambda: now)
    first, second, third = (breaker.calling(ADDRESS) for _ in range(3))
    first.__enter__()
    assert breaker.refuses(ADDRESS, probing=True)  # one probe at a time
    second.__enter__()
    now = 9.0
    third.__enter__()
    assert not breaker.refuses(ADDRESS, probing=False)
    now = 11.0
    assert breaker.refuses(ADDRESS, probing=False)
    assert not breaker.refuses(("simulator", "elsewhere"), probing=False)
    first.__exit__(None, None, None)
    assert not breaker.refuses(ADDRESS, probing=False)


@pytest.fixture
def closed_port() -> Iterator[int]:
    """A port that refuses connections, held so that nobody else takes it."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield held.getsockname()[1]


def release_and_send(sender: Sender) -> list[Result]:
    return [
        sender.send(message_id=item.message_id, release_no=item.release_no)
        for item in release_round(pool=sender.pool)[1]
    ]


@pytest.mark.django_db(transaction=True)
def test_a_dead_address_rests_and_comes_back_by_itself(sender, simulator, closed_port, settings):
    owner = make_user()
    devices = [make_device(owner=owner, base_url=f"http://127.0.0.1:{closed_port}") for _ in range(12)]
    batch = make_batch(owner=owner, devices=devices, leads=12)
    released = release_round()[1]
    results = [sender.send(message_id=item.message_id, release_no=item.release_no) for item in released]
    assert results == [Result.DONE] * 5 + [Result.GIVEN_BACK] * 7
    rest = GatewayRest.objects.get()
    assert (rest.strikes, rest.reason) == (1, "Not sent: no connection to 127.0.0.1.")
    # nothing is released to it, no device is blamed, and only the five calls cost an attempt
    assert release_round()[1] == []
    assert set(Device.objects.values_list("state", "reconnect_failures")) == {("active", 0)}
    assert Attempt.objects.count() == 5
    waiting = Message.objects.filter(batch=batch, attempts=0).select_related("batch", "device", "lead")
    assert why_not_sent(waiting[0], now=timezone.now()).code == "gateway_rests"

    # the rest is over and still nobody is there: one probe, and a longer rest
    GatewayRest.objects.update(until=timezone.now())
    assert release_and_send(sender) == [Result.DONE] + [Result.GIVEN_BACK] * 6
    again = GatewayRest.objects.get()
    assert again.strikes == 2
    assert again.until > rest.until

    # somebody is there again: the first probe ends it
    GatewayRest.objects.update(until=timezone.now())
    Device.objects.update(base_url=simulator.url)
    GatewayRest.objects.update(base_url=simulator.url)
    sender.clients.close()
    assert release_and_send(sender) == [Result.DONE] * 6
    assert not GatewayRest.objects.exists()
    assert Message.objects.filter(batch=batch, state=State.SENT).count() == 6


@pytest.mark.django_db(transaction=True)
def test_hanging_calls_give_the_rest_back(pool: Pool, simulator):
    owner = make_user()
    devices = [make_device(owner=owner) for _ in range(4)]
    make_batch(owner=owner, devices=devices, leads=4)
    simulator.add_faults({"fault": "latency", "seconds": 4, "phase": "before"})
    clients = ClientRegistry()
    sender = Sender(pool=pool, clients=clients, rng=Random(1), breaker=Breaker(slow_seconds=0, most_slow=3))
    released = release_round()[1]
    hanging = [
        threading.Thread(target=sender.send, kwargs={"message_id": item.message_id, "release_no": item.release_no})
        for item in released[:3]
    ]
    for thread in hanging:
        thread.start()
    wait_until(lambda: simulator.summary()["in_flight"] == 3, what="three calls to hang")
    last = released[3]
    assert sender.send(message_id=last.message_id, release_no=last.release_no) is Result.GIVEN_BACK
    assert GatewayRest.objects.get().strikes == 0
    assert messages_of(Message.objects.get(pk=last.message_id).batch)[3].state == State.PENDING
    for thread in hanging:
        thread.join(60)
        assert not thread.is_alive()
    clients.close()
