"""The webhook address on a device's page and over REST: who sees and changes it; and options checked as they come."""

from __future__ import annotations

import pytest

from devices import hook_keys
from devices.models import DeviceShare
from tests.api_support import V1, caller, fields_of, problem
from tests.browsing import signed_in
from tests.factories import make_device, make_user

pytestmark = pytest.mark.django_db


def test_the_address_is_made_shown_and_changed_over_rest():
    owner = make_user()
    device = make_device(owner=owner)
    url = f"{V1}/devices/{device.pk}/webhook"
    before = caller(owner).get(url)
    assert before.json() == {"address": None, "created_at": None, "previous_until": None}
    made = caller(owner).post(url)
    assert made.status_code == 200
    assert made["Cache-Control"] == "no-store"
    assert made.json()["address"].startswith(f"http://testserver/hooks/{device.gateway}/")
    assert caller(owner).get(url).json() == made.json()
    changed = caller(owner).post(url, {"keep_hours": 1}).json()
    assert changed["address"] != made.json()["address"]
    assert changed["previous_until"]
    assert caller(owner).post(url, {"keep_hours": 0}).json()["previous_until"] is None
    problem(caller(owner).post(url, {"keep_hours": -1}), 400, "invalid")
    assert (
        made.json()["address"].rpartition("/")[2] not in caller(owner).get(f"{V1}/devices/{device.pk}").content.decode()
    )


def test_an_address_is_for_those_who_may_change_the_device():
    owner, member = make_user(), make_user(role="team")
    device = make_device(owner=owner)
    DeviceShare.objects.create(device=device, user=member)
    url = f"{V1}/devices/{device.pk}/webhook"
    assert caller(make_user(role="admin")).post(url).status_code == 200
    for method in ("get", "post"):
        problem(getattr(caller(member), method)(url), 403, "permission_denied")
        for stranger in (make_user(), make_user(role="team")):
            assert getattr(caller(stranger), method)(url).status_code in {403, 404}
    assert device.hook_keys.count() == 1
    page = signed_in(member).get(f"/admin/devices/device/{device.pk}/change/").content.decode()
    assert "/hooks/" not in page


def test_the_devices_page_shows_the_address_and_changes_it(settings):
    settings.FLOTILLA_URL = "https://flotilla.example"
    owner = make_user()
    device = make_device(owner=owner)
    client, page = signed_in(owner), f"/admin/devices/device/{device.pk}/change/"
    assert "None yet" in client.get(page).content.decode()
    action = f"/admin/devices/device/{device.pk}/rotate_webhook/"
    assert "A webhook address for" in client.get(action).content.decode()
    assert hook_keys.current(device=device) is None, "asking changes nothing"
    client.post(action, {"confirmed": "yes"})
    first = hook_keys.current(device=device)
    assert first is not None
    shown = f"https://flotilla.example{hook_keys.path_of(gateway=device.gateway, key=first)}"
    assert shown in client.get(page).content.decode()
    assert "works for another 24 hours" in client.get(action).content.decode()
    client.post(action, {"confirmed": "yes"})
    again = client.get(page).content.decode()
    assert shown not in again
    assert "The address before it works until" in again
    other = signed_in(make_user())
    assert other.post(action, {"confirmed": "yes"}).status_code in {302, 403, 404}
    assert device.hook_keys.count() == 2


def test_an_unreadable_key_is_said_to_be_so(settings):
    owner = make_user()
    device = make_device(owner=owner)
    hook_keys.rotate(device=device, now=device.created_at)
    settings.FIELD_KEYS = ["1hO3kDy6Cw0hHkXnTzLQ8l2q7vYbWc5e9RjAqN4sM0U="]
    assert caller(owner).get(f"{V1}/devices/{device.pk}/webhook").json()["address"] is None
    page = signed_in(owner).get(f"/admin/devices/device/{device.pk}/change/").content.decode()
    assert "It cannot be read with the key in use" in page


def test_what_a_gateway_needs_is_said_at_its_field():
    api, url = caller(make_user()), f"{V1}/devices"

    def refused(answer) -> set[str]:
        return set(fields_of(problem(answer, 400, "invalid")))

    base = {"name": "n", "gateway": "generic", "base_url": "https://sms.example"}
    answer = api.post(url, {**base, "options": {"path": "x"}}, format="json")
    assert "path: write a path below" in problem(answer, 400, "invalid")["errors"][0]["message"]
    assert refused(answer) == {"options"}
    fine = {"path": "/send", "body": {"to": "{phone}", "text": "{text}"}}
    assert refused(api.post(url, {**base, "base_url": "", "options": fine}, format="json")) == {"base_url"}
    made = api.post(url, {**base, "options": fine}, format="json")
    assert made.status_code == 201, made.content
    device = f"{url}/{made.json()['id']}"
    assert refused(api.patch(device, {"options": {**fine, "format": "x"}}, format="json")) == {"options"}
    meta = {"name": "m", "gateway": "meta", "credentials": {"access_token": "t", "phone_number_id": "1"}}
    assert refused(api.post(url, {**meta, "options": {"version": "x"}}, format="json")) == {"options"}
    assert api.post(url, meta, format="json").status_code == 201
