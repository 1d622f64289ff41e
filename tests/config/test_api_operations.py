"""Workers, queues, failures and many rows at once, over REST; and what every answer and every POST has."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from django.utils import timezone

from config.api.idempotency import is_exempt
from devices.models import Device, DeviceShare
from leads.models import Lead
from messaging.models import Message, WorkerProcess
from messaging.states import State
from tests.api_support import V1, caller, fields_of, problem
from tests.config import role_walk
from tests.factories import make_batch, make_device, make_user, messages_of

pytestmark = pytest.mark.django_db


def test_workers_are_the_operators(settings):
    now = timezone.now()
    WorkerProcess.objects.create(
        id=uuid4(), name="devices@a", host="a", pid=7, queues=["devices.http.0"], threads=8, started_at=now,
        seen_at=now, figures={"secret": 1},
    )  # fmt: skip
    (worker,) = caller(role="ops").get(f"{V1}/workers").json()["workers"]
    assert (worker["name"], worker["queues"], worker["silent"]) == ("devices@a", ["devices.http.0"], False)
    assert "figures" not in worker
    problem(caller(role="staff").get(f"{V1}/workers"), 403, "permission_denied")


def test_queues_are_the_unsent_messages_of_the_devices_one_may_see():
    owner = make_user()
    first, second = make_device(owner=owner), make_device(owner=owner)
    make_batch(owner=owner, devices=[second], leads=3)
    make_batch(owner=owner, devices=[first], leads=1)
    found = caller(owner).get(f"{V1}/queues").json()
    assert found["waiting"] == 4
    assert [(row["device"], row["queue"], row["waiting"]) for row in found["queues"]] == [
        (second.pk, f"device.{second.pk}", 3),
        (first.pk, f"device.{first.pk}", 1),
    ]
    assert len(caller(owner).get(f"{V1}/queues", {"limit": 1}).json()["queues"]) == 1
    assert caller(role="ops").get(f"{V1}/queues").json()["waiting"] == 4
    assert caller().get(f"{V1}/queues").json() == {"waiting": 0, "queues": []}
    assert fields_of(problem(caller(owner).get(f"{V1}/queues?limit=0"), 400, "invalid")) == {"limit": "min_value"}


def test_a_queue_is_cleared_or_what_is_old_in_it_expires_for_those_whose_device_it_is():
    owner, colleague = make_user(), make_user()
    device, other = make_device(owner=owner), make_device(owner=owner)
    DeviceShare.objects.create(device=device, user=colleague)
    old, *young = messages_of(make_batch(owner=owner, devices=[device], leads=3))
    elsewhere = make_batch(owner=owner, devices=[other], leads=2)
    Message.objects.filter(pk=old.pk).update(created_at=timezone.now() - timedelta(hours=25))
    url, client = f"{V1}/queues/{device.pk}", caller(owner)
    for who, status in (
        (caller(colleague), 404),
        (caller(), 404),
        (caller(role="ops"), 403),
        (caller(role="team"), 403),
    ):
        for path, body in ((f"{url}/clear", {}), (f"{url}/expire", {"older_than_hours": 1})):
            assert who.post(path, body).status_code == status
    for hours in (0, 10_001, "x", None):
        wrong = problem(client.post(f"{url}/expire", {"older_than_hours": hours}), 400, "invalid")
        assert set(fields_of(wrong)) == {"older_than_hours"}
    assert set(Message.objects.values_list("state", flat=True)) == {State.PENDING}

    key = {"Idempotency-Key": "once"}
    for _ in range(2):
        assert client.post(f"{url}/expire", {"older_than_hours": 24}, headers=key).json() == {
            "messages": 1,
            "waiting": 2,
        }
    assert Message.objects.get(pk=old.pk).state == State.EXPIRED
    assert client.post(f"{url}/expire", {"older_than_hours": 24}).json() == {"messages": 0, "waiting": 2}
    assert client.post(f"{url}/clear").json() == {"messages": 2, "waiting": 0}
    assert {Message.objects.get(pk=each.pk).state for each in young} == {State.CANCELLED}
    assert {message.state for message in messages_of(elsewhere)} == {State.PENDING}
    (row,) = client.get(f"{V1}/queues").json()["queues"]
    assert (row["device"], row["waiting"]) == (other.pk, 2)


def test_failed_messages_are_listed_and_retried_one_by_one():
    owner = make_user()
    batch = make_batch(owner=owner, devices=[make_device(owner=owner)], leads=3)
    failed, refused, waiting = Message.objects.filter(batch=batch).order_by("pk")
    batch.streams.update(waiting=1, failed=2)
    Message.objects.filter(pk=failed.pk).update(state=State.FAILED, error_code="timeout")
    Message.objects.filter(pk=refused.pk).update(state=State.FAILED, error_code="timeout", archived_at=timezone.now())
    client = caller(owner)
    assert [row["id"] for row in client.get(f"{V1}/failed").json()["results"]] == [failed.pk]
    assert caller().get(f"{V1}/failed").json()["results"] == []
    for message, insist, number in ((waiting, True, 0), (refused, False, 0), (refused, True, 1), (failed, False, 1)):
        answer = client.post(f"{V1}/messages/{message.pk}/retry", {"insist": insist})
        assert (answer.status_code, answer.json()["retried"]) == (200, number), answer.content
    assert set(Message.objects.values_list("state", flat=True)) == {State.PENDING}


def test_many_leads_at_once_are_created_and_merged_or_none_is():
    client = caller()
    rows = [{"phone": "+60123456789", "name": "A", "niches": ["x"]}, {"phone": "+60123456780"}]
    made = client.post(f"{V1}/leads/batch", {"leads": rows}).json()
    assert (made["created"], made["merged"], [row["phone"] for row in made["leads"]]) == (
        2, 0, ["+60123456789", "+60123456780"],
    )  # fmt: skip
    again = client.post(f"{V1}/leads/batch", {"leads": [*rows, {"phone": "+60123456781"}]}).json()
    assert (again["created"], again["merged"]) == (1, 2)
    wrong = client.post(f"{V1}/leads/batch", {"leads": [{"phone": "+60123456782"}, {"phone": "12"}]})
    assert list(fields_of(problem(wrong, 400, "invalid"))) == ["leads.1.phone"]
    assert fields_of(problem(client.post(f"{V1}/leads/batch", {"leads": []}), 400, "invalid"))
    assert Lead.objects.filter(owner=client.user).count() == 3


def test_many_devices_at_once_are_created_or_none_is():
    client = caller()

    def device(name: str, **fields: Any) -> dict[str, Any]:
        return {"name": name, "gateway": "simulator", "credentials": {"token": f"t-{name}"}, **fields}

    made = client.post(f"{V1}/devices/batch", {"devices": [device("a"), device("b")]})
    assert (made.status_code, [row["name"] for row in made.json()["devices"]]) == (201, ["a", "b"])
    assert "t-a" not in made.content.decode()
    assert Device.objects.get(name="b").credentials == {"token": "t-b"}
    twice = client.post(f"{V1}/devices/batch", {"devices": [device("c"), device("c")]})
    assert list(fields_of(problem(twice, 400, "invalid"))) == ["devices.1.name"]
    wrong = client.post(f"{V1}/devices/batch", {"devices": [device("c"), device("d", gateway="nobody")]})
    assert list(fields_of(problem(wrong, 400, "invalid"))) == ["devices.1.gateway"]
    assert Device.objects.filter(owner=client.user).count() == 2


def test_every_answer_says_how_many_requests_are_left(settings):
    client = caller()
    first, second = (client.get(f"{V1}/leads") for _ in range(2))
    assert int(first["RateLimit-Limit"]) == int(second["RateLimit-Remaining"]) + 2
    assert 0 <= int(second["RateLimit-Reset"]) <= 60
    assert "RateLimit-Remaining" in client.get(f"{V1}/leads/0")
    assert "RateLimit-Remaining" in client.post(f"{V1}/leads", {})
    assert "RateLimit-Limit" not in client.get("/healthz")


def test_every_post_that_acts_takes_a_key(world_of_keys):
    """Each POST of the resolver is asked with a key that cannot be one: whoever reads it says so."""
    client, addresses = world_of_keys
    assert len(addresses) > 40
    for address in addresses:
        answer = client.post(address, {}, headers={"Idempotency-Key": "no blanks"})
        if is_exempt(address):
            assert answer.status_code != 500, address
        else:
            problem(answer, 400, "idempotency_key_invalid")


@pytest.fixture
def world_of_keys() -> tuple[Any, list[str]]:
    """An admin, and every address of the API that is posted to, with ids of nobody."""
    found = [route for route in role_walk.routes() if route.pattern.startswith("api/v1/") and "post" in route.methods]
    addresses = ["/" + role_walk.GROUP.sub("1", route.pattern).replace("^", "").rstrip("$") for route in found]
    return caller(role="admin"), [address for address in addresses if not address.endswith("auth/logout")]
