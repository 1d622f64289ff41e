"""What gateways post: over real HTTP, signed, from a real simulator, and from strangers."""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import threading
from typing import Any

import pytest
import requests
from django.db import connections
from django.test import Client
from django.utils import timezone

from leads.models import Lead
from messaging import hooks, inbound, news
from messaging.dispatch.release import release_next
from messaging.models import Attempt, InboundMessage, Message, WaitingReceipt
from messaging.receipts import match_waiting
from messaging.states import State
from tests.api_support import problem
from tests.browsing import signed_in
from tests.factories import make_batch, make_device, make_leads, make_user, messages_of
from tests.messaging.recount import assert_counters_hold
from tests.simulator_process import wait_until

pytestmark = pytest.mark.django_db(transaction=True)

SECRET = "webhook-secret-of-the-tests"
PHONE = "+60123456789"


@pytest.fixture(autouse=True)
def secrets(settings):
    settings.FLOTILLA_WEBHOOK_SECRETS = {"simulator": (SECRET,)}


@pytest.fixture
def live(live_server, monkeypatch) -> str:
    """The web application's address. Its threads live as long as the simulator keeps its connections, so none may keep
    a database connection between requests."""
    monkeypatch.setitem(connections.settings["default"], "CONN_MAX_AGE", 0)
    return live_server.url


def event(**fields: Any) -> dict[str, Any]:
    return {"id": "evt-1", "timestamp": timezone.now().timestamp(), "message_id": "x-1", **fields}


def reply(device, **fields: Any) -> dict[str, Any]:
    return event(event="message", sender=str(device.pk), **{"from": PHONE, "text": "Yes please", **fields})


def post(body: Any, *, gateway: str = "simulator", secret: str = SECRET, client: Client | None = None, **extra: Any):
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    signature = "sha256=" + hmac.new(secret.encode(), raw, hashlib.sha256).hexdigest()
    headers = {"X-Simulator-Signature": signature, **extra}
    client = client or Client(enforce_csrf_checks=True)
    return client.post(f"/hooks/{gateway}", data=raw, content_type="application/json", headers=headers)


def test_receipts_and_replies_of_a_real_simulator_arrive(sender, simulator, live):
    owner = make_user()
    device = make_device(owner=owner)
    batch = make_batch(owner=owner, devices=[device], leads=20)
    simulator.control(
        "POST",
        "webhook",
        {
            "url": f"{live}/hooks/simulator",
            "secret": SECRET,
            "receipts": {"delivered": 1, "read": 1},
            "replies": {"probability": 1, "texts": ["Tell me more"]},
            "repeat": 0.5,
        },
    )
    released = release_next(device_id=device.pk)
    assert sender.carry(message_id=released.message_id, release_no=released.release_no) == 20

    def all_told() -> bool:
        status = simulator.control("GET", "webhook").json()
        return status["waiting"] == status["posting"] == 0 and status["posted"] >= 60

    wait_until(all_told, what="the simulator to have posted everything")
    assert simulator.control("GET", "webhook").json()["given_up"] == 0

    def all_read() -> bool:
        WaitingReceipt.objects.update(try_at=timezone.now())  # some came before the record
        match_waiting()
        return {message.state for message in messages_of(batch)} == {State.READ}

    wait_until(all_read, what="every message to be read")
    assert_counters_hold()
    replies = InboundMessage.objects.all()
    assert {row.lead_id for row in replies} == {message.lead_id for message in messages_of(batch)}
    assert len(replies) == 20
    assert {(row.device_id, row.text) for row in replies} == {(device.pk, "Tell me more")}


def test_a_reply_is_kept_once_and_belongs_to_the_lead_of_the_devices_owner(monkeypatch):
    owner, other = make_user(), make_user()
    device = make_device(owner=owner)
    mine = make_leads(1, owner=owner)[0]
    make_leads(1, owner=other)
    reacted = []
    monkeypatch.setattr(inbound, "react", lambda heard, *, now: reacted.append(heard.inbound_id))
    body = reply(device, **{"from": mine.phone})
    assert [post(body).status_code for _ in range(3)] == [204, 204, 204]
    (row,) = InboundMessage.objects.all()
    assert (row.lead, row.device, row.phone, row.text) == (mine, device, mine.phone, "Yes please")
    assert row.written_at <= row.received_at
    assert reacted == [row.pk]


def test_a_reaction_that_fails_leaves_nothing_so_that_it_is_told_again(monkeypatch):
    device = make_device(owner=make_user())

    def broken(heard, *, now):
        raise RuntimeError("reaction failed")

    with monkeypatch.context() as patch:
        patch.setattr(inbound, "react", broken)
        client = Client(raise_request_exception=False)
        assert post(reply(device), client=client).status_code == 500
    assert not InboundMessage.objects.exists()
    assert post(reply(device)).status_code == 204
    assert InboundMessage.objects.count() == 1


def test_a_reply_to_no_device_of_ours_is_kept_for_admins():
    gone = make_device(owner=make_user())
    gone_id = gone.pk
    gone.delete()
    assert post(event(event="message", sender=str(gone_id), **{"from": PHONE, "text": "Hello?"})).status_code == 204
    assert (InboundMessage.objects.get().device, InboundMessage.objects.get().lead) == (None, None)
    assert signed_in(make_user(role="admin")).get("/admin/messaging/inboundmessage/").content.count(b"Hello?") == 1
    assert b"Hello?" not in signed_in(make_user()).get("/admin/messaging/inboundmessage/").content


def test_replies_are_shown_on_the_leads_page():
    owner = make_user()
    device = make_device(owner=owner)
    (lead,) = make_leads(1, owner=owner)
    post(reply(device, **{"from": lead.phone, "text": "Is it still <b>available</b>?"}))
    page = signed_in(owner).get(f"/admin/leads/lead/{lead.pk}/change/").content.decode()
    assert "Is it still &lt;b&gt;available&lt;/b&gt;?" in page


def test_who_is_not_believed_or_not_understood_hears_why(settings):
    device = make_device(owner=make_user())
    problem(post(reply(device), secret="another"), 401, "bad_signature")
    problem(post(reply(device, timestamp=timezone.now().timestamp() - 3600)), 401, "stale")
    problem(post(b"[]"), 422, "malformed")
    problem(post(b"x" * (hooks.MAX_BODY_BYTES + 1)), 413, "too_large")
    problem(post(reply(device), gateway="nowhere"), 404, "not_found")
    answer = Client().get("/hooks/simulator")
    problem(answer, 405, "method_not_allowed")
    assert answer["Allow"] == "POST"
    settings.FLOTILLA_WEBHOOK_SECRETS = {}
    problem(post(reply(device)), 401, "bad_signature")
    assert not InboundMessage.objects.exists()


def test_a_database_that_is_away_asks_to_be_told_again(monkeypatch):
    import psycopg2

    def away(**_):
        raise psycopg2.OperationalError("gone")

    monkeypatch.setattr(news, "apply_receipts", away)
    answer = post(reply(make_device(owner=make_user())))
    problem(answer, 503, "unavailable")
    assert answer["Retry-After"]


def test_no_number_text_or_secret_is_logged(caplog, capfd):
    device = make_device(owner=make_user())
    with caplog.at_level(logging.DEBUG):
        post(reply(device, text="A private matter"))
        post(reply(device, text="A private matter"), secret="another")
        post(reply(device, text=["A private matter"]))
    shown = "\n".join([caplog.text, *[str(record.msg) for record in caplog.records], *capfd.readouterr()])
    assert "reply.heard" in shown
    for private in (PHONE, PHONE[1:], "private matter", SECRET):
        assert private not in shown


def test_many_at_once_over_sockets(live):
    """Signed bytes on real connections: the same event from many threads is one reply."""
    owner = make_user()
    device = make_device(owner=owner)
    raw = json.dumps(reply(device)).encode()
    headers = {"X-Simulator-Signature": "sha256=" + hmac.new(SECRET.encode(), raw, hashlib.sha256).hexdigest()}
    start, statuses = threading.Barrier(8), []

    def run() -> None:
        start.wait(10)
        answer = requests.post(f"{live}/hooks/simulator", data=raw, headers=headers, timeout=30)
        statuses.append((answer.status_code, answer.content))

    threads = [threading.Thread(target=run) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert statuses == [(204, b"")] * 8
    assert InboundMessage.objects.count() == 1


def test_a_request_costs_two_trips_at_most(django_assert_max_num_queries):
    device = make_device(owner=make_user())
    assert not Message.objects.exists()
    with django_assert_max_num_queries(3):  # BEGIN or savepoint, and one INSERT
        assert post(reply(device)).status_code == 204


def test_stop_in_a_reply_stops_what_waits_and_is_confirmed_once(settings, sender, simulator):
    settings.FLOTILLA_OPT_OUT_REPLY = "You will not hear from us again."
    owner = make_user()
    device = make_device(owner=owner)
    batch = make_batch(owner=owner, devices=[device], leads=1)
    (message,) = messages_of(batch)
    told = reply(device, **{"from": message.phone, "text": " stop. "})
    assert [post(told).status_code for _ in range(2)] == [204, 204]
    assert Lead.objects.get(pk=message.lead_id).opted_out_at is not None
    while (released := release_next(device_id=device.pk)) is not None:
        sender.carry(message_id=released.message_id, release_no=released.release_no)
    message.refresh_from_db()
    assert (message.state, message.error_code) == (State.CANCELLED, "opted_out")
    (confirmation,) = simulator.landed(device.credentials["token"])
    assert confirmation["phone"] == message.phone
    assert Attempt.objects.get().text == "You will not hear from us again."
