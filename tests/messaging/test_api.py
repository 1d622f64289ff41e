from __future__ import annotations

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from devices.models import Device, DeviceState
from leads.models import Lead
from messaging.models import Attempt, Message, Priority
from messaging.states import REPORT_WORDS, State
from tests.api_support import V1, caller, fields_of, problem
from tests.factories import make_batch, make_device, make_leads, messages_of

pytestmark = pytest.mark.django_db

PHONE = "+60123456789"


def ids(answer) -> list[int]:
    assert answer.status_code == 200, answer.content
    return [row["id"] for row in answer.json()["results"]]


def test_a_message_to_a_number_is_stored_ahead_of_bulk():
    client = caller()
    device = make_device(owner=client.user)
    answer = client.post(f"{V1}/messages", {"phone": "012-345 6789", "text": " Hello {{ name }} "})
    assert answer.status_code == 202
    body = answer.json()
    assert (body["state"], body["report_status"], body["phone"], body["device"]) == (
        "pending",
        "Pending",
        PHONE,
        device.pk,
    )
    assert body["content"] == {"type": "text", "text": " Hello {{ name }} "}
    assert body["attempts"] == []
    assert answer["Location"].endswith(f"/api/v1/messages/{body['id']}")
    message = Message.objects.select_related("batch", "lead").get(pk=body["id"])
    assert message.batch.priority == Priority.INTERACTIVE
    assert message.lead == Lead.objects.get(owner=client.user, phone=PHONE)
    device.refresh_from_db()
    assert device.wake_at is not None


def test_a_message_to_a_lead_goes_through_its_own_device_unless_another_is_named():
    client = caller()
    own, other = make_device(owner=client.user), make_device(owner=client.user)
    lead = make_leads(1, owner=client.user, device=own)[0]
    assert client.post(f"{V1}/messages", {"lead": lead.pk, "text": "Hi"}).json()["device"] == own.pk
    assert (
        client.post(f"{V1}/messages", {"lead": lead.pk, "text": "Hi", "device": other.pk}).json()["device"] == other.pk
    )


def test_a_message_has_one_recipient_and_a_text():
    client = caller()
    make_device(owner=client.user)
    lead = make_leads(1, owner=client.user)[0]
    for body, fields in (
        ({}, {"text": "required"}),
        ({"text": "Hi"}, {"phone": "one_recipient"}),
        ({"text": "Hi", "phone": PHONE, "lead": lead.pk}, {"phone": "one_recipient"}),
        ({"text": "", "phone": PHONE}, {"text": "blank"}),
        ({"text": "Hi", "lead": "Ada"}, {"lead": "incorrect_type"}),
        ({"text": "Hi", "lead": None}, {"lead": "null"}),
    ):
        assert fields_of(problem(client.post(f"{V1}/messages", body), 400, "invalid")) == fields, body
    assert "phone" in fields_of(problem(client.post(f"{V1}/messages", {"text": "Hi", "phone": "12"}), 400, "invalid"))
    assert Message.objects.count() == 0


def test_what_the_service_refuses_comes_with_its_code_and_field():
    client = caller()
    body = problem(client.post(f"{V1}/messages", {"phone": PHONE, "text": "Hi"}), 422, "no_device")
    assert fields_of(body) == {"device": "no_device"}
    assert Lead.objects.count() == 0  # a refusal leaves nothing behind
    device = make_device(owner=client.user)
    body = problem(client.post(f"{V1}/messages", {"phone": PHONE, "text": "{{ oops"}), 422, "bad_text")
    assert fields_of(body) == {"text": "bad_text"}
    lead = make_leads(1, owner=client.user, opted_out_at=timezone.now(), device=device)[0]
    problem(client.post(f"{V1}/messages", {"lead": lead.pk, "text": "Hi"}), 422, "opted_out")
    Device.objects.filter(pk=device.pk).update(state=DeviceState.PAUSED)
    answer = client.post(f"{V1}/messages", {"phone": PHONE, "text": "Hi", "device": device.pk})
    assert fields_of(problem(answer, 422, "device_not_connected")) == {"device": "device_not_connected"}
    assert Message.objects.count() == 0


def test_the_detail_tells_every_attempt_in_order():
    client = caller()
    device = make_device(owner=client.user)
    batch = make_batch(owner=client.user, devices=[device], text="Hello {{ name }}")
    message = messages_of(batch)[0]
    for number in (1, 2):
        Attempt.objects.create(
            message=message, device=device, release_no=number, number=number, reference="ref", text=f"Hello {number}",
            started_at=timezone.now(), outcome="temporary", error_code="busy", error_text="Later.",
        )  # fmt: skip
    Message.objects.filter(pk=message.pk).update(attempts=2)
    body = client.get(f"{V1}/messages/{message.pk}").json()
    assert [attempt["text"] for attempt in body["attempts"]] == ["Hello 1", "Hello 2"]
    assert (body["attempt_count"], body["content"]["text"]) == (2, "Hello {{ name }}")
    assert "attempts" not in client.get(f"{V1}/messages").json()["results"][0]


def test_messages_cannot_be_changed_here_nor_deleted_before_they_have_failed():
    client = caller()
    batch = make_batch(owner=client.user, devices=[make_device(owner=client.user)])
    address = f"{V1}/messages/{messages_of(batch)[0].pk}"
    for answer in (client.patch(address, {"state": "sent"}), client.put(address, {})):
        problem(answer, 405, "method_not_allowed")
    problem(client.delete(address), 422, "not_failed")


@pytest.mark.django_db(transaction=True)  # a fan-out's temporary table ends with its transaction
def test_filters():
    client = caller()
    one, two = make_device(owner=client.user), make_device(owner=client.user)
    first = make_batch(owner=client.user, devices=[one], leads=2)
    second = make_batch(owner=client.user, devices=[two])
    a, b = messages_of(first)
    c = messages_of(second)[0]
    Message.objects.filter(pk=a.pk).update(state=State.FAILED)
    Message.objects.filter(pk=c.pk).update(state=State.UNKNOWN)
    for query, expected in (
        ("state=failed", [a]), ("state=failed&state=unknown", [c, a]), (f"batch={first.pk}", [b, a]),
        (f"device={two.pk}", [c]), (f"lead={b.lead_id}", [b]), (f"device={one.pk}&state=pending", [b]),
    ):  # fmt: skip
        assert ids(client.get(f"{V1}/messages?{query}")) == [message.pk for message in expected], query


@pytest.mark.parametrize("state", list(State))
def test_each_state_has_its_word(state):
    client = caller()
    message = messages_of(make_batch(owner=client.user, devices=[make_device(owner=client.user)]))[0]
    lane = 0 if state in {State.QUEUED, State.SENDING} else None
    Message.objects.filter(pk=message.pk).update(state=state, lane=lane)
    assert client.get(f"{V1}/messages/{message.pk}").json()["report_status"] == REPORT_WORDS[state]


@pytest.mark.django_db(transaction=True)  # a fan-out's temporary table ends with its transaction
def test_a_page_of_messages_costs_the_same_for_one_and_for_thirty():
    client, counts = caller(), []
    device = make_device(owner=client.user)
    client.get(f"{V1}/messages")  # writes down that the token was used, once a minute
    for number in (1, 29):
        make_batch(owner=client.user, devices=[device], leads=number)
        with CaptureQueriesContext(connection) as queries:
            assert client.get(f"{V1}/messages").status_code == 200
        counts.append(len(queries))
    assert counts[0] == counts[1] <= 6
    assert not any("COUNT(" in query["sql"] for query in queries.captured_queries)
