"""Session hosts as real processes: who holds what, and what becomes of it when one freezes, dies or is told to end."""

from __future__ import annotations

import signal
import time

import pytest

from devices import services
from devices.models import Device, DeviceState
from devices.session_models import Incident, SessionHost, SessionShard
from messaging import refreshing
from messaging.models import Batch, InboundMessage, Message
from messaging.receipts import match_waiting
from messaging.states import State
from tests.factories import make_batch, make_user, messages_of
from tests.messaging.corridor import sent, ticking, verdict_on, wait_for_the_end
from tests.messaging.session_support import (
    command,
    end,
    holders,
    make_session_device,
    session_host,
    sessions,
    start_host,
    wait_for_shares,
)
from tests.simulator_process import wait_until

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.usefixtures("simulated_sessions"),
    pytest.mark.slow,
    pytest.mark.timeout(240),
]


def all_read(batch: Batch) -> bool:
    match_waiting()
    return set(Message.objects.filter(batch=batch).values_list("state", flat=True)) == {State.READ}


def messages_sent(batch: Batch, number: int) -> None:
    wait_until(lambda: sent(batch) >= number, what=f"{number} messages", seconds=60)


def test_a_batch_over_sessions_of_two_hosts_and_nothing_is_left(simulator, tmp_path):
    owner = make_user()
    devices = [make_session_device(owner=owner) for _ in range(12)]
    command(simulator, receipts=True)
    with session_host(simulator, tmp_path / "one.log") as first, ticking():
        wait_for_shares(4)
        batch = make_batch(owner=owner, devices=devices, leads=48)
        wait_for_the_end(batch)
        wait_until(lambda: not sessions(simulator)["untold"], what="all receipts to be taken in")
        with session_host(simulator, tmp_path / "two.log") as second:
            wait_for_shares(2, 2)
            second_batch = make_batch(owner=owner, devices=devices, leads=48)
            wait_for_the_end(second_batch)
            assert set(holders()) == {first.pid, second.pid}
        wait_for_shares(4)
    for each in (batch, second_batch):
        assert verdict_on(each, simulator).clean
        wait_until(lambda each=each: all_read(each), what="receipts to be matched")
    state = sessions(simulator)
    assert state["replaced"] == 0
    assert state["online"] == []
    assert not SessionHost.objects.exists()
    assert max(SessionShard.objects.values_list("fencing", flat=True)) >= 2


def test_a_host_frozen_past_its_lease_loses_its_sessions_and_sends_nothing_more(simulator, tmp_path):
    owner = make_user()
    devices = [make_session_device(owner=owner) for _ in range(8)]
    tokens = {device.credentials["token"] for device in devices}
    with session_host(simulator, tmp_path / "frozen.log") as frozen, ticking():
        wait_for_shares(4)
        first = make_batch(owner=owner, devices=devices, leads=16)
        wait_for_the_end(first)
        assert set(sessions(simulator)["online"]) == tokens
        frozen.send_signal(signal.SIGSTOP)
        try:
            with session_host(simulator, tmp_path / "next.log") as heir:
                wait_until(lambda: holders() == {heir.pid: 4}, what="the next host to take over", seconds=60)
                taken_at = time.time()
                second = make_batch(owner=owner, devices=devices, leads=80)
                messages_sent(second, 20)
                frozen.send_signal(signal.SIGCONT)  # in the middle of it
                wait_for_the_end(second)
                wait_until(lambda: len(holders()) == 2, what="it to come back as a new host", seconds=60)
                third = make_batch(owner=owner, devices=devices, leads=16)
                wait_for_the_end(third)
        finally:
            frozen.send_signal(signal.SIGCONT)
    for batch in (first, second, third):
        verdict = verdict_on(batch, simulator)
        # What the frozen host held goes out again when its lease is over: perhaps after younger ones.
        assert (verdict.lost, verdict.duplicated, verdict.unaccounted) == ((), (), ())
        assert verdict.clean or batch is second
        assert set(Message.objects.filter(batch=batch).values_list("state", flat=True)) == {State.SENT}
    assert all(entry["at"] > taken_at for entry in simulator.ledger() if entry["message"] in ids(second))
    assert "sessions.lease_lost" in (tmp_path / "frozen.log").read_text()
    assert sessions(simulator)["replaced"] <= len(devices)  # by the heir, and never back
    assert set(Device.objects.values_list("state", "reconnect_failures")) == {(DeviceState.ACTIVE, 0)}


def ids(batch: Batch) -> set[int]:
    return set(Message.objects.filter(batch=batch).values_list("pk", flat=True))


@pytest.mark.timeout(300)
def test_a_session_that_kills_its_host_twice_is_set_aside_and_costs_nobody_else(simulator, tmp_path):
    owner = make_user()
    devices = [make_session_device(owner=owner) for _ in range(6)]
    offender = devices[0]
    command(simulator, moods={offender.credentials["token"]: "abort"})
    batch = make_batch(owner=owner, devices=devices, leads=12)
    others, ended = Message.objects.filter(batch=batch).exclude(device=offender), [State.SENT, State.UNKNOWN]
    deaths = 0
    with ticking():
        process = start_host(simulator, tmp_path / "host.log")
        try:
            ends = time.monotonic() + 200
            while Device.objects.get(pk=offender.pk).state == DeviceState.ACTIVE or others.exclude(state__in=ended):
                assert time.monotonic() < ends, "the offender was not set aside"
                if process.poll() is not None:  # what a supervisor does
                    assert process.returncode == -signal.SIGABRT
                    deaths += 1
                    process = start_host(simulator, tmp_path / "host.log")
                time.sleep(0.1)
        finally:
            end(process)
    assert deaths == 2
    offender.refresh_from_db()
    assert (offender.state, offender.attention_code) == (DeviceState.NEEDS_ATTENTION, "brought_host_down")
    assert "Clear its session and pair it again" in offender.state_reason
    assert Device.objects.filter(state=DeviceState.ACTIVE).count() == 5
    assert others.filter(state=State.UNKNOWN).count() <= 2 * 5  # what was being sent when the host died
    assert not verdict_on(batch, simulator).duplicated


def test_an_outage_of_everybody_is_one_incident_that_ends_by_itself(simulator, tmp_path):
    owner = make_user()
    devices = [make_session_device(owner=owner) for _ in range(10)]
    command(simulator, offline=True)
    batch = make_batch(owner=owner, devices=devices, leads=20)
    with session_host(simulator, tmp_path / "host.log"), ticking():
        wait_until(lambda: Incident.objects.filter(ended_at=None).exists(), what="the incident", seconds=60)
        command(simulator, offline=False)
        wait_for_the_end(batch)
        wait_until(lambda: Incident.objects.filter(ended_at__isnull=False).exists(), what="its end")
    assert Incident.objects.count() == 1
    assert set(Device.objects.values_list("state", "reconnect_failures")) == {("active", 0)}
    assert verdict_on(batch, simulator).clean


def test_after_a_long_outage_one_click_brings_three_hundred_devices_back(simulator, tmp_path):
    owner = make_user()
    devices = [make_session_device(owner=owner) for _ in range(300)]
    paused, banned = devices[0], devices[1]
    Device.objects.update(state=DeviceState.NEEDS_ATTENTION, attention_code="unreachable", state_reason="No network.")
    services.pause(devices=Device.objects.filter(pk=paused.pk))
    Device.objects.filter(pk=paused.pk).update(state=DeviceState.PAUSED)
    Device.objects.filter(pk=banned.pk).update(attention_code="banned")
    assert services.reconnect_all(devices=Device.objects.all()) == 298
    with session_host(simulator, tmp_path / "host.log"):
        wait_for_shares(4)
        assert refreshing.pass_on() == 298
        wait_until(
            lambda: Device.objects.filter(state=DeviceState.ACTIVE).count() == 298, what="298 devices", seconds=90
        )
        assert len(sessions(simulator)["online"]) == 298
    assert not Device.objects.filter(refresh_asked_at__isnull=False).exists()
    assert Device.objects.filter(refreshed_at__isnull=False).count() == 298
    assert {device.state for device in Device.objects.filter(pk__in=[paused.pk, banned.pk])} == {
        DeviceState.PAUSED,
        DeviceState.NEEDS_ATTENTION,
    }


def test_what_came_while_a_session_was_away_is_heard_before_the_first_send(simulator, tmp_path):
    owner = make_user()
    device = make_session_device(owner=owner)
    batch = make_batch(owner=owner, devices=[device], leads=1)
    (message,) = messages_of(batch)
    command(simulator, reply={"session": device.credentials["token"], "from": message.phone, "text": "STOP"})
    with session_host(simulator, tmp_path / "host.log"), ticking():
        wait_until(
            lambda: Message.objects.filter(pk=message.pk, state=State.CANCELLED).exists(),
            what="the opt-out",
            seconds=60,
        )
    assert InboundMessage.objects.get().lead_id == message.lead_id
    assert simulator.summary()["deliveries"] == 0
    assert sessions(simulator)["untold"] == {}


def test_hosts_are_replaced_when_they_have_connected_often(simulator, tmp_path):
    owner = make_user()
    devices = [make_session_device(owner=owner) for _ in range(5)]
    batch = make_batch(owner=owner, devices=devices, leads=20)
    with session_host(simulator, tmp_path / "host.log", FLOTILLA_SESSION_HOST_CONNECTS="5") as host, ticking():
        wait_until(lambda: host.poll() is not None, what="the host to end by itself", seconds=60)
        assert host.returncode == 0
        assert not SessionShard.objects.filter(host__isnull=False).exists()
        assert sessions(simulator)["online"] == []
        with session_host(simulator, tmp_path / "next.log"):
            wait_for_the_end(batch)
    assert verdict_on(batch, simulator).clean
