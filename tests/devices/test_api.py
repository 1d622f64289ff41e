from __future__ import annotations

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from devices.api import DeviceSerializer
from devices.api_base import Conflict
from devices.models import Device, DeviceState, Pool
from tests.api_support import V1, caller, fields_of, problem
from tests.factories import make_device

pytestmark = pytest.mark.django_db

NEW = {"name": "n", "gateway": "simulator", "credentials": {"token": "s3cret-token"}}


def test_credentials_go_in_encrypted_and_never_come_out():
    client = caller()
    made = client.post(f"{V1}/devices", NEW)
    assert made.status_code == 201
    device = Device.objects.get(pk=made.json()["id"])
    assert dict(device.credentials) == {"token": "s3cret-token"}
    answers = [
        made,
        client.get(f"{V1}/devices"),
        client.get(f"{V1}/devices/{device.pk}"),
        client.patch(f"{V1}/devices/{device.pk}", {"credentials": {"token": "another-s3cret"}}),
        client.post(f"{V1}/devices/{device.pk}/pause"),
        client.options(f"{V1}/devices/{device.pk}"),
    ]
    for answer in answers:
        assert answer.status_code in {200, 201}
        assert b"s3cret" not in answer.content
    device.refresh_from_db()
    assert dict(device.credentials) == {"token": "another-s3cret"}


def test_changing_the_rest_keeps_the_credentials_and_new_ones_reach_live_clients():
    client = caller()
    device = make_device(owner=client.user, credentials={"token": "kept"})
    version = device.config_version
    assert client.patch(f"{V1}/devices/{device.pk}", {"name": "renamed"}).status_code == 200
    device.refresh_from_db()
    assert (device.name, dict(device.credentials), device.config_version) == ("renamed", {"token": "kept"}, version)
    assert client.patch(f"{V1}/devices/{device.pk}", {"credentials": {"token": "new"}}).status_code == 200
    device.refresh_from_db()
    assert device.config_version == version + 1


@pytest.mark.parametrize("move", [{"base_url": "https://evil.example"}, {"gateway": "simulator"}])
def test_another_address_or_gateway_does_not_get_the_stored_credentials(move):
    client = caller()
    before = "simulator" if "base_url" in move else "retired"  # a gateway whose driver is gone
    device = make_device(owner=client.user, gateway=before, credentials={"token": "s3cret-token"})
    for given in ({}, {"credentials": {}}):
        body = problem(client.patch(f"{V1}/devices/{device.pk}", {**move, **given}), 400, "invalid")
        assert fields_of(body) == {"credentials": "enter_again"}
        assert "enter them again" in body["detail"]
    device.refresh_from_db()
    assert (device.gateway, device.base_url, dict(device.credentials)) == (before, "", {"token": "s3cret-token"})
    answer = client.patch(f"{V1}/devices/{device.pk}", {**move, "credentials": {"token": "theirs"}})
    assert answer.status_code == 200
    device.refresh_from_db()
    assert dict(device.credentials) == {"token": "theirs"}
    assert {"gateway": device.gateway, "base_url": device.base_url}.items() >= move.items()


def test_naming_the_address_again_is_no_change():
    client = caller()
    device = make_device(owner=client.user, base_url="https://gateway.example", credentials={"token": "kept"})
    same = {"base_url": "https://gateway.example", "gateway": "simulator", "name": "renamed"}
    assert client.patch(f"{V1}/devices/{device.pk}", same).status_code == 200
    device.refresh_from_db()
    assert (device.name, dict(device.credentials)) == ("renamed", {"token": "kept"})


def test_a_request_that_read_the_device_before_its_address_changed_is_refused():
    """Else the old credentials, merged before and written after, would meet the new address."""
    client = caller()
    device = make_device(owner=client.user, credentials={"token": "s3cret-token"})
    as_read = Device.objects.get(pk=device.pk)
    late = DeviceSerializer(as_read, data={"credentials": {}}, partial=True)
    late.is_valid(raise_exception=True)
    assert dict(late.validated_data["credentials"]) == {"token": "s3cret-token"}
    moved = {"base_url": "https://evil.example", "credentials": {"token": "theirs"}}
    assert client.patch(f"{V1}/devices/{device.pk}", moved).status_code == 200
    with pytest.raises(Conflict) as refused:
        late.save()
    assert refused.value.detail.code == "changed_meanwhile"
    device.refresh_from_db()
    assert dict(device.credentials) == {"token": "theirs"}


def test_window_and_warm_up_are_settings_that_wake_the_device():
    client = caller()
    made = client.post(f"{V1}/devices", NEW).json()
    assert (made["warm_up"], made["window_start"], made["time_zone"]) == (False, None, "")
    device = Device.objects.get(pk=made["id"])
    window = {"window_start": "21:00:00", "window_end": "06:30:00", "time_zone": "Asia/Kuala_Lumpur", "warm_up": True}
    answer = client.patch(f"{V1}/devices/{device.pk}", window)
    assert answer.status_code == 200
    assert {name: answer.json()[name] for name in window} == window
    device.refresh_from_db()
    assert device.wake_at <= timezone.now()
    for change, field in (
        ({"window_end": None}, "window_end"),
        ({"time_zone": "Mars"}, "time_zone"),
        ({"window_start": "late"}, "window_start"),
    ):
        body = problem(client.patch(f"{V1}/devices/{device.pk}", change), 400, "invalid")
        assert fields_of(body) == {field: "invalid"}


def test_what_a_gateway_needs_is_asked_for_and_what_it_does_not_know_refused():
    client = caller()
    body = problem(client.post(f"{V1}/devices", {**NEW, "credentials": {}}), 400, "invalid")
    assert "credentials" in fields_of(body)
    body = problem(client.post(f"{V1}/devices", {**NEW, "credentials": {"token": "t", "pin": "1"}}), 400, "invalid")
    assert fields_of(body) == {"credentials": "unknown_name"}
    device = make_device(owner=client.user)
    body = problem(client.patch(f"{V1}/devices/{device.pk}", {"credentials": {"token": ""}}), 400, "invalid")
    assert "credentials" in fields_of(body)


def test_the_models_own_rules_answer_at_their_fields():
    client = caller()
    body = problem(
        client.post(f"{V1}/devices", {**NEW, "delay_min_seconds": 9, "delay_max_seconds": 1}), 400, "invalid"
    )
    assert fields_of(body) == {"delay_max_seconds": "invalid"}
    device = make_device(owner=client.user, delay_min_seconds=5, delay_max_seconds=9)
    body = problem(client.patch(f"{V1}/devices/{device.pk}", {"delay_max_seconds": 1}), 400, "invalid")
    assert fields_of(body) == {"delay_max_seconds": "invalid"}
    assert fields_of(problem(client.post(f"{V1}/devices", {**NEW, "options": [1]}), 400, "invalid")) == {
        "options": "not_an_object"
    }


def test_a_name_is_used_once_per_owner():
    client, other = caller(), caller()
    assert client.post(f"{V1}/devices", NEW).status_code == 201
    body = problem(client.post(f"{V1}/devices", NEW), 400, "invalid")
    assert fields_of(body) == {"name": "unique_together"}
    assert other.post(f"{V1}/devices", NEW).status_code == 201
    second = client.post(f"{V1}/devices", {**NEW, "name": "m"}).json()
    assert fields_of(problem(client.patch(f"{V1}/devices/{second['id']}", {"name": "n"}), 400, "invalid")) == {
        "name": "unique_together"
    }
    assert client.patch(f"{V1}/devices/{second['id']}", {"name": "m"}).status_code == 200


def test_pausing_and_resuming_and_doing_so_twice():
    client = caller()
    device = make_device(owner=client.user)
    for _ in range(2):
        answer = client.post(f"{V1}/devices/{device.pk}/pause")
        assert (answer.status_code, answer.json()["state"]) == (200, "paused")
    Device.objects.filter(pk=device.pk).update(wake_at=None, reconnect_failures=3)
    for _ in range(2):
        answer = client.post(f"{V1}/devices/{device.pk}/resume")
        assert (answer.status_code, answer.json()["state"]) == (200, "active")
    device.refresh_from_db()
    assert device.wake_at <= timezone.now()  # the release looks at it
    assert (device.reconnect_failures, device.state_reason) == (0, "")


def test_many_are_paused_resumed_and_refreshed_at_once_and_only_ones_own():
    client, colleague = caller(), caller()
    pool = Pool.objects.create(owner=client.user, name="Sales")
    mine = [make_device(owner=client.user, pool=pool) for _ in range(3)]
    asleep, other = make_device(owner=client.user, state="unpaired"), make_device(owner=colleague.user)

    def states() -> list[str]:
        return list(Device.objects.order_by("pk").values_list("state", flat=True))

    url = f"{V1}/devices/bulk"
    answer = client.post(url, {"do": "pause", "filter": {"pool": pool.pk}, "dry_run": True})
    assert answer.json() == {"devices": 3, "changed": 0, "dry_run": True}
    assert client.post(url, {"do": "pause", "filter": {}}).json() == {"devices": 4, "changed": 3, "dry_run": False}
    assert states() == [*["paused"] * 3, "unpaired", "active"]
    ids = [mine[0].pk, asleep.pk]
    assert client.post(url, {"do": "resume", "ids": ids}).json() == {"devices": 2, "changed": 1, "dry_run": False}
    assert states() == ["active", "paused", "paused", "unpaired", "active"]
    assert client.post(url, {"do": "refresh", "filter": {"state": "active"}}).json()["changed"] == 1
    assert Device.objects.filter(refresh_asked_at__isnull=False).get() == mine[0]
    for body, field in (
        ({"do": "pause", "ids": [other.pk]}, "ids"),
        ({"do": "pause"}, "ids"),
        ({"do": "pause", "filter": {"pol": 1}}, "filter"),
        ({"do": "pause", "filter": {"state": "asleep"}}, "filter.state"),
        ({"do": "remove", "filter": {}}, "do"),
    ):
        assert field in fields_of(problem(client.post(url, body), 400, "invalid"))
    problem(caller(role="team").post(url, {"do": "pause", "filter": {}}), 403, "permission_denied")


def test_what_is_not_paired_is_neither_paused_nor_resumed():
    client = caller()
    device = make_device(owner=client.user, state=DeviceState.UNPAIRED)
    for action in ("pause", "resume"):
        problem(client.post(f"{V1}/devices/{device.pk}/{action}"), 409, "wrong_state")


def test_the_state_is_not_a_field_to_write():
    client = caller()
    device = make_device(owner=client.user, state=DeviceState.NEEDS_ATTENTION)
    assert client.patch(f"{V1}/devices/{device.pk}", {"state": "active"}).json()["state"] == "needs_attention"


def test_an_edit_takes_nothing_back_that_dispatch_wrote_meanwhile():
    """Only named columns are written: the row that the request read is old by then."""
    client = caller()
    device = make_device(owner=client.user)
    stale = Device.objects.get(pk=device.pk)
    moment = timezone.now()
    Device.objects.filter(pk=device.pk).update(wake_at=moment, next_send_at=moment, state=DeviceState.NEEDS_ATTENTION)
    DeviceSerializer().update(stale, {"name": "renamed"})
    device.refresh_from_db()
    assert (device.name, device.wake_at, device.next_send_at) == ("renamed", moment, moment)
    assert device.state == DeviceState.NEEDS_ATTENTION


def test_filters():
    client = caller()
    pool = Pool.objects.create(owner=client.user, name="p")
    a = make_device(owner=client.user, name="Alpha", pool=pool)
    b = make_device(owner=client.user, name="Beta", state=DeviceState.PAUSED)
    for query, expected in (
        ("state=paused", [b]), (f"pool={pool.pk}", [a]), ("name=ALPH", [a]), ("gateway=simulator", [b, a]),
        ("pool=999999999999999999999", []),
    ):  # fmt: skip
        found = client.get(f"{V1}/devices?{query}").json()["results"]
        assert [row["id"] for row in found] == [device.pk for device in expected], query


def test_a_page_of_devices_costs_the_same_for_two_and_for_forty():
    client, counts = caller(), []
    client.get(f"{V1}/devices")  # writes down that the token was used, once a minute
    for number in (2, 38):
        for _ in range(number):
            make_device(owner=client.user)
        with CaptureQueriesContext(connection) as queries:
            assert client.get(f"{V1}/devices").status_code == 200
        counts.append(len(queries))
    assert counts[0] == counts[1] <= 6
