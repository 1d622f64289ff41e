"""A device's own webhook address: who is believed there, and what follows, over real HTTP from a real simulator."""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import threading
from datetime import timedelta
from typing import Any
from urllib.parse import urlencode

import pytest
from django.db import connection, connections
from django.test import Client
from django.utils import timezone
from hypothesis import HealthCheck, given
from hypothesis import settings as bounds
from hypothesis import strategies as st

from devices import hook_keys
from devices.gateways import registry
from devices.gateways.news import DeviceEvent
from devices.models import BANNED, LOGGED_OUT, Device, DeviceState
from messaging.device_news import FRESH, apply_device_events
from messaging.dispatch.release import release_next
from messaging.models import InboundMessage, WaitingReceipt
from messaging.receipts import match_waiting
from messaging.states import State
from tests.devices.gateways.test_webhook_fuzz import BODIES, KINDS
from tests.factories import make_batch, make_device, make_leads, make_user, messages_of
from tests.messaging.recount import assert_counters_hold
from tests.simulator_process import wait_until

pytestmark = pytest.mark.django_db(transaction=True)

CREDENTIALS: dict[str, Any] = {
    "wablas": lambda token: {"token": token},
    "whacenter": lambda token: {"device_id": token},
    "meta": lambda token: {"access_token": token, "phone_number_id": "200", "app_secret": "the app's secret"},
    "generic": lambda token: {"secret": token},
    "simulator": lambda token: {"token": token, "webhook_secret": "its own secret"},
}
BASES = {"wablas": "/wablas", "whacenter": "/whacenter/api", "meta": "/meta"}


@pytest.fixture(autouse=True)
def _no_shared_secrets(settings):
    settings.FLOTILLA_WEBHOOK_SECRETS = {}


def device_of(kind: str, *, owner=None, **fields: Any) -> Device:
    return make_device(
        owner=owner or make_user(), gateway=kind, credentials=CREDENTIALS[kind](f"t-{kind}"),
        base_url="https://gateway.example", **fields,
    )  # fmt: skip


def address(device: Device, **how: Any) -> str:
    made = hook_keys.rotate(device=device, now=timezone.now(), **how)
    return hook_keys.path_of(gateway=device.gateway, key=made)


def post(path: str, body: Any, *, form: bool = False, secret: str = "the app's secret", client: Client | None = None):  # noqa: S107
    raw = body if isinstance(body, bytes) else (urlencode(body) if form else json.dumps(body)).encode()
    digest = hmac.new(secret.encode(), raw, hashlib.sha256).hexdigest()
    kind = "application/x-www-form-urlencoded" if form else "application/json"
    headers = {"X-Hub-Signature-256": f"sha256={digest}", "X-Simulator-Signature": f"sha256={digest}"}
    return (client or Client(enforce_csrf_checks=True)).post(path, data=raw, content_type=kind, headers=headers)


def heard(**fields: Any) -> dict[str, Any]:
    return {"id": "in-1", "phone": "60123456789", "message": "Yes please", **fields}


@pytest.mark.parametrize("kind", ["wablas", "whacenter", "meta"])
def test_a_campaign_over_a_hosted_gateway_is_sent_read_and_answered(
    kind, sender, simulator, settings, live_server, monkeypatch
):
    monkeypatch.setitem(connections.settings["default"], "CONN_MAX_AGE", 0)
    settings.FLOTILLA_GATEWAY_URLS = {kind: f"{simulator.url}{BASES[kind]}"}
    owner = make_user()
    device = make_device(owner=owner, gateway=kind, credentials=CREDENTIALS[kind](f"live-{kind}"))
    batch = make_batch(owner=owner, devices=[device], leads=15)
    simulator.control(
        "POST",
        "webhook",
        {
            "url": f"{live_server.url}/hooks/nowhere",
            "devices": {f"live-{kind}": live_server.url + address(device)},
            "secret": "the app's secret",
            "receipts": {"delivered": 1, "read": 1},
            "replies": {"probability": 1, "texts": ["Tell me more"]},
            "repeat": 0.5,
        },
    )
    released = release_next(device_id=device.pk)
    assert sender.carry(message_id=released.message_id, release_no=released.release_no) == 15
    receipts = registry.driver_for(kind).receipts
    goal = State.READ if receipts else State.SENT

    def all_told() -> bool:
        status = simulator.control("GET", "webhook").json()
        WaitingReceipt.objects.update(try_at=timezone.now())  # some came before the record
        match_waiting()
        states = {message.state for message in messages_of(batch)}
        return status["waiting"] == status["posting"] == 0 and states == {goal}

    wait_until(all_told, what="everything to be told and applied")
    assert simulator.control("GET", "webhook").json()["given_up"] == 0
    assert_counters_hold()
    replies = InboundMessage.objects.all()
    assert {row.lead_id for row in replies} == {message.lead_id for message in messages_of(batch)}
    assert {(row.device_id, row.text) for row in replies} == {(device.pk, "Tell me more")}
    assert len(replies) == 15


def test_an_unsigned_gateway_is_believed_at_its_devices_address_alone():
    owner = make_user()
    device, other = device_of("wablas", owner=owner), device_of("meta", owner=owner)
    path, key = address(device), "x" * 43
    assert Client().post("/hooks/wablas", data=heard(), content_type="application/json").status_code == 401
    for wrong in (
        f"/hooks/wablas/{key}",
        path.replace("wablas", "whacenter"),
        address(other).replace("meta", "wablas"),
    ):
        answer = post(wrong, heard())
        assert (answer.status_code, answer.content, answer["X-Flotilla-Problem"]) == (404, b"", "not_found")
    assert not InboundMessage.objects.exists()
    (lead,) = make_leads(1, owner=owner)
    for form in (False, True, False):
        answer = post(path, heard(phone=lead.phone[1:]), form=form)
        assert (answer.status_code, answer.content) == (204, b"")
    assert InboundMessage.objects.get().lead == lead


def test_a_signing_gateway_signs_at_its_devices_address_too():
    device = device_of("simulator")
    other = device_of("simulator")
    path = address(device)
    event = {"id": "evt-1", "timestamp": timezone.now().timestamp(), "message_id": "x-1", "event": "message",
             "sender": str(other.pk), "from": "+60123456789", "text": "Hi"}  # fmt: skip
    refused = post(path, event, secret="another")
    assert (refused.status_code, refused.content, refused["X-Flotilla-Problem"]) == (401, b"", "bad_signature")
    assert post(path, event, secret="its own secret").status_code == 204
    assert InboundMessage.objects.get().device == device, (
        "whatever it says, it is news of the device whose address it is"
    )
    Device.objects.filter(pk=device.pk).update(credentials={"token": "t"})
    assert post(path, event, secret="its own secret").status_code == 401


def test_a_key_is_changed_in_peace_or_at_once():
    device = device_of("wablas")
    first = address(device)
    second = address(device)
    assert [post(each, heard()).status_code for each in (first, second)] == [204, 204]
    until = hook_keys.older_until(device=device, now=timezone.now())
    assert until is not None
    assert timedelta(hours=23) < until - timezone.now() <= timedelta(hours=24)
    device.hook_keys.filter(expires_at=until).update(expires_at=timezone.now() - timedelta(seconds=1))
    assert [post(each, heard()).status_code for each in (first, second)] == [404, 204]
    third = address(device, keep_hours=0)
    assert [post(each, heard()).status_code for each in (second, third)] == [404, 204]
    assert device.hook_keys.count() == 1


def test_who_reads_the_database_cannot_post():
    device = device_of("wablas")
    key = address(device).rpartition("/")[2]
    with connection.cursor() as cursor:
        cursor.execute("SELECT row_to_json(k)::text FROM devices_hookkey k")
        (row,) = cursor.fetchall()
    assert key not in row[0]
    stored = json.loads(row[0])
    assert post(f"/hooks/wablas/{stored['digest']}", heard()).status_code == 404


def test_two_rotations_at_once_leave_one_current_key():
    device = device_of("wablas")
    start = threading.Barrier(4)

    def run() -> None:
        start.wait(10)
        try:
            hook_keys.rotate(device=device, now=timezone.now())
        finally:
            connection.close()

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert device.hook_keys.filter(expires_at=None).count() == 1
    assert device.hook_keys.count() == 4


def test_meta_asks_whether_the_address_is_ours():
    device = device_of("meta")
    path = address(device)
    query = {"hub.mode": "subscribe", "hub.challenge": "1158201444", "hub.verify_token": path.rpartition("/")[2]}
    answer = Client().get(path, query)
    assert (answer.status_code, answer.content, answer["Content-Type"]) == (200, b"1158201444", "text/plain")
    Device.objects.filter(pk=device.pk).update(credentials={**device.credentials, "verify_token": "chosen ünlike"})
    assert Client().get(path, query).status_code == 401
    assert Client().get(path, {**query, "hub.verify_token": "chosen ünlike"}).status_code == 200
    for wrong in ({"hub.challenge": "<script>"}, {"hub.mode": "other"}, {"hub.verify_token": ""}):
        answer = Client().get(path, {**query, "hub.verify_token": "chosen ünlike", **wrong})
        assert (answer.status_code, answer.content) == (401, b"")
    assert Client().get(address(device_of("wablas"))).status_code == 404
    assert Client().put(path).status_code == 405


def state_of(device: Device) -> tuple[str, str]:
    device.refresh_from_db()
    return device.state, device.attention_code


def test_news_of_a_device_stops_it_and_lets_it_go_on():
    device = device_of("wablas")
    path, now = address(device), timezone.now()

    def told(status: Any, *, at=now) -> tuple[str, str]:
        apply_device_events([DeviceEvent("e", status, at, device_id=device.pk)], gateway=device.gateway, now=now)
        return state_of(device)

    active = (DeviceState.ACTIVE, "")
    assert told("disconnected") == active, "news, not a verdict"
    assert told("logged_out", at=now - FRESH - timedelta(seconds=1)) == active, "long over, perhaps"
    assert told("logged_out") == (DeviceState.NEEDS_ATTENTION, LOGGED_OUT)
    assert "Pair it again" in device.state_reason
    connected = {"deviceId": "AB12CD", "status": "connected", "timestamp": now.timestamp()}
    assert post(path, connected).status_code == 204
    assert state_of(device) == active
    assert told("replaced") == (DeviceState.NEEDS_ATTENTION, "replaced")
    assert told("connected") == active
    assert told("banned") == (DeviceState.NEEDS_ATTENTION, BANNED)
    assert told("connected") == (DeviceState.NEEDS_ATTENTION, BANNED), "connecting does not mend a ban"
    Device.objects.filter(pk=device.pk).update(state=DeviceState.PAUSED, attention_code="")
    assert told("connected") == (DeviceState.PAUSED, ""), "nor what a person decided"
    assert told("logged_out") == (DeviceState.PAUSED, "")


def test_neither_keys_nor_people_are_logged(caplog, capfd):
    device = device_of("wablas")
    path = address(device)
    with caplog.at_level(logging.DEBUG):
        statuses = [post(path, body).status_code for body in (heard(), b"{", b"\xff=", heard(id=None))]
        statuses.append(Client().put(path).status_code)
        statuses.append(Client().get(path).status_code)
        statuses.append(Client().post(f"{path}x/", data={}).status_code)
    assert statuses == [204, 422, 422, 422, 405, 404, 404]
    shown = "\n".join([caplog.text, *[record.getMessage() for record in caplog.records], *capfd.readouterr()])
    assert "hook.refused" in shown
    assert "/hooks/wablas/***" in shown
    for private in (path.rpartition("/")[2], "60123456789", "Yes please"):
        assert private not in shown


@bounds(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=40)
@given(body=BODIES, kind=st.sampled_from(sorted(set(KINDS) & set(CREDENTIALS))), form=st.booleans())
def test_no_body_breaks_the_endpoint(body, kind, form):
    device = Device.objects.filter(gateway=kind).first() or device_of(kind)
    key = hook_keys.current(device=device)
    path = hook_keys.path_of(gateway=kind, key=key) if key else address(device)
    secret = "its own secret" if kind == "simulator" else "the app's secret"
    answer = post(path, body, form=form, secret=secret, client=Client(raise_request_exception=False))
    assert answer.status_code in {204, 401, 422}
    assert answer.content == b""


def test_a_burst_of_receipts_is_taken_while_sends_go_on(sender, simulator, settings, live_server, monkeypatch):
    """Three receipts for each message, as fast as sixteen connections post them, with more messages on their way."""
    monkeypatch.setitem(connections.settings["default"], "CONN_MAX_AGE", 0)
    settings.FLOTILLA_GATEWAY_URLS = {"wablas": f"{simulator.url}/wablas"}
    owner = make_user()
    device = make_device(owner=owner, gateway="wablas", credentials={"token": "burst"})
    batch = make_batch(owner=owner, devices=[device], leads=250)
    simulator.control(
        "POST",
        "webhook",
        {
            "url": live_server.url + address(device), "secret": "none", "receipts": {"delivered": 1, "read": 1},
            "repeat": 0.5,
        },
    )  # fmt: skip
    release_next(device_id=device.pk)
    sent = 0
    while (queued := batch.messages.filter(state=State.QUEUED).first()) is not None:  # what the next task carries
        sent += sender.carry(message_id=queued.pk, release_no=queued.release_no)
    assert sent == 250, "sending was never stopped by what came in"

    def all_read() -> bool:
        WaitingReceipt.objects.update(try_at=timezone.now())
        match_waiting()
        return not batch.messages.exclude(state=State.READ).exists()

    wait_until(all_read, what="every message to be read", seconds=90)

    def all_posted() -> bool:
        status = simulator.control("GET", "webhook").json()
        return status["waiting"] == status["posting"] == 0

    wait_until(all_posted, what="the burst to be over", seconds=90)
    status = simulator.control("GET", "webhook").json()
    assert status["given_up"] == 0
    assert status["posted"] > 600
    assert_counters_hold()
