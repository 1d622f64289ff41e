"""What the admin does, over the API as well: users, shares, status links, batches, replies, days, files of reports."""

from __future__ import annotations

import csv
import io
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone
from rest_framework.test import APIClient

from campaigns import services as campaigns
from config.audit_models import AuditEntry
from devices.models import DeviceShare, StatusLink
from messaging import days
from messaging.models import BatchState, DayCount, InboundMessage, Message
from messaging.states import State
from sequences.models import Sequence, StepBatch
from tests.api_support import V1, caller, fields_of, problem
from tests.factories import make_batch, make_campaign, make_device, make_leads, make_user

pytestmark = pytest.mark.django_db
GOOD = "seven-seas-and-9-winds"


def rows_of(answer: Any) -> list[dict[str, str]]:
    assert answer.status_code == 200
    assert answer["Content-Type"].startswith("text/csv")
    text = b"".join(answer.streaming_content).decode("utf-8-sig")
    return list(csv.DictReader(io.StringIO(text)))


# -- users -------------------------------------------------------------------------------------------------------------


def test_an_admin_adds_changes_and_ends_a_user():
    admin = caller(role="admin")
    body = {"username": "maria", "password": GOOD, "roles": ["staff"], "email": "maria@example.com"}
    made = admin.post(f"{V1}/users", body)
    assert made.status_code == 201, made.content
    told = made.json()
    assert (told["roles"], told["is_active"], told["is_staff"], told["is_superuser"]) == (["staff"], True, True, False)
    assert "password" not in told
    log_in = {"username": "maria", "password": GOOD}
    token = APIClient().post(f"{V1}/auth/token", log_in).json()["token"]
    maria = APIClient()
    maria.credentials(HTTP_AUTHORIZATION=f"Token {token}")
    assert maria.post(f"{V1}/pools", {"name": "hers"}).status_code == 201
    address = f"{V1}/users/{told['id']}"
    assert admin.patch(address, {"roles": ["team", "ops"]}).json()["roles"] == ["team", "ops"]
    problem(maria.post(f"{V1}/pools", {"name": "more"}), 403, "permission_denied")
    assert [each["id"] for each in admin.get(f"{V1}/users?role=ops").json()["results"]] == [told["id"]]
    assert admin.patch(address, {"is_active": False}).status_code == 200
    problem(maria.get(f"{V1}/pools"), 401, "authentication_failed")
    problem(APIClient().post(f"{V1}/auth/token", log_in), 401, "authentication_failed")
    actions = AuditEntry.objects.filter(user=admin.user, table="auth_user").values_list("event", flat=True)
    assert sorted(actions) == ["insert", "update"]
    assert GOOD not in str(list(AuditEntry.objects.values()))


@pytest.mark.parametrize(
    ("body", "wrong"),
    [
        ({"username": "maria"}, {"password": "required"}),
        ({"username": "maria", "password": "maria"}, {"password": "weak"}),
        ({"username": "maria", "password": GOOD, "roles": ["king"]}, {"roles": "invalid_choice"}),
        ({"username": "two words", "password": GOOD}, {"username": "invalid"}),
        ({"username": "taken", "password": GOOD}, {"username": "unique"}),
    ],
)
def test_what_is_wrong_with_a_user_is_named(body, wrong):
    make_user(username="taken")
    assert fields_of(problem(caller(role="admin").post(f"{V1}/users", body), 400, "invalid")) == wrong


def test_an_admin_neither_becomes_a_superuser_nor_shuts_themselves_out():
    admin, boss = caller(role="admin"), make_user(role="admin", is_superuser=True)
    me = f"{V1}/users/{admin.user.pk}"
    assert admin.patch(me, {"is_superuser": True}).json()["is_superuser"] is False
    problem(admin.patch(f"{V1}/users/{boss.pk}", {"password": GOOD}), 403, "permission_denied")
    assert fields_of(problem(admin.patch(me, {"is_active": False}), 400, "invalid")) == {"is_active": "own_account"}
    assert fields_of(problem(admin.patch(me, {"roles": ["staff"]}), 400, "invalid")) == {"roles": "own_account"}
    assert admin.patch(me, {"roles": ["admin", "staff"], "first_name": "Ada"}).json()["first_name"] == "Ada"


# -- what one lets others see ------------------------------------------------------------------------------------------


def test_a_device_is_shared_and_no_longer():
    owner, member = caller(), caller(role="team")
    device = make_device(owner=owner.user)
    address = f"{V1}/devices/{device.pk}"
    assert member.get(address).status_code == 404
    for status in (201, 200):
        shared = owner.post(f"{address}/shares", {"username": member.user.username})
        assert (shared.status_code, shared.json()["user"]) == (status, member.user.pk)
    looks = APIClient()
    looks.credentials(**member._credentials)
    assert looks.get(address).status_code == 200
    problem(looks.get(f"{address}/shares"), 403, "permission_denied")
    assert [each["username"] for each in owner.get(f"{address}/shares").json()["shares"]] == [member.user.username]
    assert owner.delete(f"{address}/shares/{member.user.pk}").status_code == 204
    problem(owner.delete(f"{address}/shares/{member.user.pk}"), 404, "not_found")
    assert not DeviceShare.objects.exists()
    for name in ("nobody", make_user(role="ops").username, make_user(role="team", is_active=False).username):
        refused = problem(owner.post(f"{address}/shares", {"username": name}), 400, "invalid")
        assert fields_of(refused) == {"username": "does_not_exist"}


def test_a_status_link_is_made_replaced_and_revoked(client):
    owner = caller()
    device = make_device(owner=owner.user, name="Desk 7")
    address = f"{V1}/devices/{device.pk}/status-link"
    assert owner.get(address).json() == {"created_at": None, "created_by": None}
    made = [owner.post(address, headers={"Idempotency-Key": "the-same"}) for _ in range(2)]
    first, second = (each.json()["address"] for each in made)
    assert first != second, "the answer holds a secret, which no key keeps"
    assert made[0]["Cache-Control"] == "no-store"
    assert client.get(first).status_code == 404
    page = client.get(second)
    assert page.status_code == 200
    assert "Desk 7" in page.content.decode()
    told = owner.get(address).json()
    assert told["created_by"] == owner.user.pk
    assert "address" not in told
    assert owner.delete(address).status_code == 204
    assert client.get(second).status_code == 404
    assert not StatusLink.objects.exists()
    entries = AuditEntry.objects.filter(table="devices_statuslink").order_by("pk")
    assert list(entries.values_list("event", flat=True)) == ["insert", "update", "delete"]
    assert all(entry.before is None or entry.before["digest"] == "(hidden)" for entry in entries)


# -- batches, replies, days --------------------------------------------------------------------------------------------


def test_a_batch_is_paused_resumed_and_cancelled():
    owner = caller()
    batch = make_batch(owner=owner.user, devices=[make_device(owner=owner.user)], leads=3)
    address = f"{V1}/batches/{batch.pk}"
    assert owner.get(address).json()["counts"]["pending"] == 3
    for _ in range(2):
        assert owner.post(f"{address}/pause").json()["state"] == "paused"
    assert owner.post(f"{address}/resume").json()["state"] == "running"
    ended = owner.post(f"{address}/cancel").json()
    assert (ended["state"], ended["counts"]["pending"], ended["counts"]["cancelled"]) == ("cancelled", 0, 3)
    assert set(Message.objects.filter(batch=batch).values_list("state", flat=True)) == {State.CANCELLED}
    problem(owner.post(f"{address}/resume"), 409, "wrong_state")
    assert [each["id"] for each in owner.get(f"{V1}/batches?state={BatchState.CANCELLED}").json()["results"]] == [
        batch.pk
    ]


def test_replies_are_listed_by_lead_and_device():
    owner = caller()
    device = make_device(owner=owner.user)
    (lead,), now = make_leads(1, owner=owner.user, device=device), timezone.now()
    for number in range(3):
        InboundMessage.objects.create(
            gateway="simulator", event_id=f"in-{number}", device=device, lead=lead if number else None,
            phone=lead.phone, text=f"reply {number}", written_at=now, received_at=now,
        )  # fmt: skip
    found = owner.get(f"{V1}/replies?lead={lead.pk}&device={device.pk}").json()["results"]
    assert [each["text"] for each in found] == ["reply 2", "reply 1"]
    assert owner.get(f"{V1}/replies?device={make_device(owner=owner.user).pk}").json()["results"] == []


def test_days_are_counted_for_what_one_sees():
    owner, now = caller(), timezone.now()
    mine, second, theirs = (make_device(owner=user) for user in (owner.user, owner.user, make_user()))
    yesterday = days.today(now) - timedelta(days=1)
    for device, sent in ((mine, 5), (second, 2), (theirs, 30)):
        DayCount.objects.create(device=device, day=yesterday, sent=sent, delivered=sent, read=1, failed=1, replied=1)

    def of(client: APIClient, query: str = "") -> list[int]:
        return [day["sent"] for day in client.get(f"{V1}/stats/days?days=3{query}").json()["days"]]

    assert of(owner) == [0, 7, 0]
    assert of(owner, f"&device={mine.pk}") == [0, 5, 0]
    assert of(caller(role="ops")) == of(caller(role="admin")) == [0, 37, 0]
    assert len(owner.get(f"{V1}/stats/days").json()["days"]) == 14
    for query, field in ((f"device={theirs.pk}", "device"), ("days=0", "days"), ("days=many", "days")):
        assert list(fields_of(problem(owner.get(f"{V1}/stats/days?{query}"), 400, "invalid"))) == [field]


def test_everything_that_failed_is_retried_but_not_the_archive():
    owner = caller()
    batch = make_batch(owner=owner.user, devices=[make_device(owner=owner.user)], leads=3)
    Message.objects.filter(batch=batch).update(state=State.FAILED, failed_at=timezone.now())
    kept = Message.objects.filter(batch=batch).latest("pk")
    Message.objects.filter(pk=kept.pk).update(archived_at=timezone.now())
    assert fields_of(problem(owner.post(f"{V1}/messages/retry", {"all": False}), 400, "invalid")) == {
        "messages": "required"
    }
    assert caller().post(f"{V1}/messages/retry", {"all": True}).json() == {"retried": 0, "left_alone": {}}
    assert owner.post(f"{V1}/messages/retry", {"all": True}).json() == {"retried": 2, "left_alone": {}}
    assert owner.get(f"{V1}/failed").json()["results"] == []
    kept.refresh_from_db()
    assert kept.state == State.FAILED


# -- files of reports --------------------------------------------------------------------------------------------------


@pytest.mark.django_db(transaction=True)  # rows are read through a connection of their own
def test_a_runs_report_and_its_leads_come_as_files():
    owner = caller()
    device = make_device(owner=owner.user, name="=Desk")
    make_leads(2, owner=owner.user, device=device)
    launched = campaigns.launch(campaign=make_campaign(owner=owner.user), now=timezone.now())
    run = campaigns.trigger(run_id=launched.run.pk, now=timezone.now())
    make_batch(owner=owner.user, devices=[device])  # of something else
    (line,) = rows_of(owner.get(f"{V1}/runs/{run.pk}/devices.csv"))
    assert (line["device"], line["total"], line["pending"]) == ("'=Desk", "2", "2")
    assert len(rows_of(owner.get(f"{V1}/messages/export?of=run-{run.pk}"))) == 2
    assert rows_of(owner.get(f"{V1}/messages/export?of=run-{run.pk}&state=sent")) == []
    assert rows_of(owner.get(f"{V1}/messages/export?of=run_replied-{run.pk}")) == []
    assert len(owner.get(f"{V1}/messages?of=run-{run.pk}").json()["results"]) == 2
    for key in (f"run-{run.pk + 1}", "run", "moon-1"):
        assert fields_of(problem(owner.get(f"{V1}/messages?of={key}"), 400, "invalid")) == {"of": "does_not_exist"}
    problem(caller().get(f"{V1}/messages/export?of=run-{run.pk}"), 400, "invalid")


@pytest.mark.django_db(transaction=True)
def test_a_sequences_report_and_its_leads_come_as_files():
    owner = caller()
    device = make_device(owner=owner.user)
    batch = make_batch(owner=owner.user, devices=[device], leads=2)
    sequence = Sequence.objects.create(owner=owner.user, name="s")
    StepBatch.objects.create(sequence=sequence, key=4, revision=1, turn=1, batch=batch)
    (line,) = rows_of(owner.get(f"{V1}/sequences/{sequence.pk}/devices.csv"))
    assert (line["device_id"], line["total"]) == (str(device.pk), "2")
    assert len(rows_of(owner.get(f"{V1}/messages/export?of=sequence-{sequence.pk}-4"))) == 2
