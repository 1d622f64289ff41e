"""What becomes of a device that cannot be connected, and of messages to people it may not write to for now."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.core import mail
from django.utils import timezone

from config import alerts
from devices import services
from devices.clients import ClientRegistry, RefreshFailed
from devices.gateways import registry
from devices.gateways.base import Accepted
from devices.gateways.news import DeviceEvent
from devices.gateways.simulated_session import SimulatedSessionDriver
from devices.models import Device, DeviceState
from devices.session_models import Incident
from devices.sessions import House
from devices.weather import Weather
from messaging import refreshing
from messaging.dispatch.publish import bell_of
from messaging.dispatch.reconnect import pardon, refresh_failed
from messaging.dispatch.release import release_round
from messaging.dispatch.send import Result
from messaging.models import Message
from messaging.news import take_in
from messaging.states import State
from messaging.why import why_not_sent
from tests.api_support import published
from tests.factories import make_batch, make_device, make_user, messages_of
from tests.messaging.session_support import KIND, command, make_session_device, sessions
from tests.simulator_process import wait_until

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def clients(simulator, settings):
    """A session host's clients, in this process, with the lease of every shard."""
    settings.FLOTILLA_GATEWAY_URLS |= {KIND: simulator.url}
    registry.register(SimulatedSessionDriver())
    clients = ClientRegistry()
    heard: list[object] = []
    house = House(
        holds=lambda _: True,
        take_in=lambda _kind, news: heard.extend(news),
        store_url="",
        open_seconds=3,
        drain_seconds=3,
    )
    clients.settle(house, most=3)
    clients.heard = heard  # type: ignore[attr-defined]
    clients.house = house  # type: ignore[attr-defined]
    yield clients
    clients.close()
    registry._BY_KIND.pop(KIND)


def fail(device: Device, pool, weather: Weather | None = None) -> Device:
    refresh_failed(device_id=device.pk, problem=RefreshFailed("connect", "No connection.", weather=weather), pool=pool)
    device.refresh_from_db()
    return device


def test_five_failures_in_a_row_call_a_person_and_a_success_forgets_them(pool):
    device = make_device(owner=make_user())
    waits = []
    for _ in range(4):
        fail(device, pool)
        waits.append(round((device.held_until - timezone.now()) / timedelta(minutes=1)))
    assert (waits, device.state) == ([1, 2, 3, 4], DeviceState.ACTIVE)
    fail(device, pool)
    assert (device.state, device.attention_code) == (DeviceState.NEEDS_ATTENTION, "unreachable")
    assert device.state_reason.startswith("No connection. Check its connection")
    assert services.reconnect_all(devices=Device.objects.all()) == 1
    assert refreshing.refresh(device_id=device.pk, clients=Cheerful(), pool=pool)
    device.refresh_from_db()
    assert (device.state, device.reconnect_failures, device.held_until) == (DeviceState.ACTIVE, 0, None)


class Cheerful(ClientRegistry):
    """Whoever is refreshed is well."""

    def refresh(self, *, device_id: int) -> None:
        assert Device.objects.filter(pk=device_id).exists()


def test_failures_that_turn_out_to_be_an_incident_are_taken_back(pool):
    owner, weather = make_user(), Weather()
    devices = [make_device(owner=owner) for _ in range(4)]
    for _ in range(4):
        fail(devices[0], pool)  # its own trouble, long before
    changes = []
    for device in devices:
        changes.append(weather.met_nobody(device_id=device.pk))
        fail(device, pool, weather)
        if changes[-1] is not None:
            pardon(devices=changes[-1].devices, pool=pool)
    assert [change is not None for change in changes] == [False, False, True, False]
    found = [Device.objects.get(pk=device.pk) for device in devices]
    assert [(device.state, device.reconnect_failures) for device in found] == [
        (DeviceState.ACTIVE, 4),
        *[(DeviceState.ACTIVE, 0)] * 3,
    ]


def test_an_incident_that_lasts_is_told_once(settings):
    now = timezone.now()
    settings.FLOTILLA_ALERT_EMAILS = ["ops@example.com"]
    Incident.objects.create(scope="host", subject="a:1", devices=300, started_at=now - timedelta(minutes=3))
    Incident.objects.create(scope="host", subject="b:1", devices=300, started_at=now - timedelta(seconds=30))
    assert [alerts.tell_due(now=now) for _ in range(3)] == [1, 0, 0]
    assert len(mail.outbox) == 1
    assert "300 devices" in mail.outbox[0].body


def test_a_refresh_goes_to_whoever_holds_the_session(broker, pool, clients):
    session, platform = make_session_device(owner=make_user()), make_device(owner=make_user())
    assert services.ask_refresh(devices=Device.objects.all()) == 2
    assert refreshing.pass_on(pool=pool) == 2
    assert refreshing.pass_on(pool=pool) == 0
    bells = {bell_of(session.pk, gateway=KIND), bell_of(platform.pk, gateway="simulator")}
    assert {key.decode() for key in broker.scan_iter("*:ready")} == {f"{bell}:ready" for bell in bells}
    for device in (session, platform):
        assert refreshing.refresh(device_id=device.pk, clients=clients, pool=pool)
        assert not refreshing.refresh(device_id=device.pk, clients=clients, pool=pool)  # nobody wants it any more
    assert not Device.objects.filter(refreshed_at=None).exists()
    assert published() is not None


def test_one_opens_however_many_ask_and_the_least_used_leaves(clients, simulator):
    owner = make_user()
    devices = [make_session_device(owner=owner) for _ in range(5)]
    for device in devices:
        client = clients.get(device_id=device.pk, config_version=device.config_version)
        assert clients.get(device_id=device.pk, config_version=device.config_version) is client
        assert isinstance(client.check(), Accepted)
    wait_until(lambda: len(sessions(simulator)["online"]) == 3, what="two to leave")
    assert set(sessions(simulator)["online"]) == {device.credentials["token"] for device in devices[2:]}
    assert set(sessions(simulator)["logins"].values()) == {1}
    assert clients.sweep(idle_seconds=0) == 3
    wait_until(lambda: not sessions(simulator)["online"], what="all to leave")
    assert clients.sessions() == 0


def test_who_is_expected_stays(clients, simulator):
    owner = make_user()
    devices = [make_session_device(owner=owner) for _ in range(4)]
    clients.settle(clients.house, most=3, expects=lambda asked: {devices[0].pk} & set(asked))
    for device in devices:
        clients.get(device_id=device.pk, config_version=device.config_version)
    wait_until(lambda: len(sessions(simulator)["online"]) == 3, what="one to leave")
    assert devices[0].credentials["token"] in sessions(simulator)["online"]
    assert clients.sweep(idle_seconds=0) == 2
    wait_until(lambda: sessions(simulator)["online"] == [devices[0].credentials["token"]], what="the others to leave")


@pytest.mark.parametrize(
    ("trouble", "state", "code", "words"),
    [
        ({"log_out": True}, DeviceState.NEEDS_ATTENTION, "logged_out", "Pair it again."),
        ({"ban": True}, DeviceState.NEEDS_ATTENTION, "banned", "appeal there"),
        ({"mood": "temporary_ban"}, DeviceState.ACTIVE, "", ""),
    ],
)
def test_failure_classes_at_log_in(sender, clients, simulator, trouble, state, code, words):
    device = make_session_device(owner=make_user())
    token = device.credentials["token"]
    batch = make_batch(owner=device.owner, devices=[device])
    if "ban" in trouble:
        simulator.ban(token)
    command(
        simulator, **({"log_out": [token]} if "log_out" in trouble else {"moods": {token: trouble.get("mood", "")}})
    )
    sender.clients = clients
    (item,) = release_round(pool=sender.pool)[1]
    assert item.gateway == KIND
    assert sender.send(message_id=item.message_id, release_no=item.release_no) is Result.GIVEN_BACK
    device.refresh_from_db()
    assert (device.state, device.attention_code, device.reconnect_failures) == (state, code, 0)
    assert words in device.state_reason
    (message,) = messages_of(batch)
    assert (message.state, message.attempts) == (State.PENDING, 0)
    if state == DeviceState.ACTIVE:
        assert device.held_until > timezone.now() + timedelta(minutes=9)


def test_a_session_replaced_twice_is_somebody_elses(clients, pool):
    device = make_session_device(owner=make_user())
    event = DeviceEvent("e", "replaced", timezone.now())
    tell = lambda: clients.house.tell(kind=KIND, device_id=device.pk, news=[event])  # noqa: E731
    assert tell()
    assert clients.heard == []
    assert tell()
    assert [news.device_id for news in clients.heard] == [device.pk]
    take_in(gateway=KIND, news=clients.heard, now=timezone.now(), pool=pool)
    device.refresh_from_db()
    assert (device.state, device.attention_code) == (DeviceState.NEEDS_ATTENTION, "replaced")
    assert "took the session over" in device.state_reason


def test_a_rest_from_new_contacts_stops_nobody_else(sender, clients, simulator):
    owner = make_user()
    device = make_session_device(owner=owner)
    sender.clients = clients
    batch = make_batch(owner=owner, devices=[device], leads=2)
    (item,) = release_round(pool=sender.pool)[1]
    sender.carry(message_id=item.message_id, release_no=item.release_no)
    known = messages_of(batch)[0]
    command(simulator, moods={device.credentials["token"]: "reach_out"})
    strangers = make_batch(owner=owner, devices=[device], leads=3)
    (item,) = release_round(pool=sender.pool)[1]
    assert sender.carry(message_id=item.message_id, release_no=item.release_no) == 3
    device.refresh_from_db()
    assert (device.held_until, device.state) == (None, DeviceState.ACTIVE)
    assert device.new_contacts_held_until > timezone.now() + timedelta(minutes=9)
    waiting = messages_of(strangers)
    assert {(message.state, message.attempts) for message in waiting} == {(State.PENDING, 0)}
    assert why_not_sent(waiting[1], now=timezone.now()).code == "new_contacts_rest"
    assert simulator.summary()["requests"] == 3  # the first of them learned of it, and only it

    command(simulator, moods={device.credentials["token"]: ""})
    again = services_batch(owner=owner, device=device, lead=known.lead)
    (item,) = release_round(pool=sender.pool)[1]
    assert item.message_id == again.pk
    assert sender.send(message_id=item.message_id, release_no=item.release_no) is Result.DONE
    assert Message.objects.get(pk=again.pk).state == State.SENT


def services_batch(*, owner, device, lead) -> Message:
    from leads.audience import Audience
    from messaging import fanout
    from messaging import services as batches

    batch = batches.open_batch(owner=owner, name="again", content={"type": "text", "text": "Again"}, now=timezone.now())
    leads = Audience(owner_id=owner.pk).reachable().filter(pk=lead.pk)
    fanout.fill(batch_id=batch.pk, leads=leads, devices=[device.pk])
    return Message.objects.get(batch=batch)
