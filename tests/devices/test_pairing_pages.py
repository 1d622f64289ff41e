"""Linking a device through the admin and the API."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from django.test import Client

from devices.gateways import registry
from devices.models import Device, DeviceState, PairingAttempt
from tests.api_support import V1, caller, problem
from tests.devices.pairing_support import PairableDriver, Phone, gateway
from tests.factories import make_device, make_user

pytestmark = pytest.mark.django_db


@pytest.fixture
def platform() -> Iterator[tuple[Device, Phone]]:
    registry.register(PairableDriver())
    with gateway() as (url, phone):
        owner = make_user(role="staff")
        yield (
            make_device(owner=owner, gateway="pairable", base_url=url, credentials={}, state=DeviceState.UNPAIRED),
            phone,
        )
    del registry._BY_KIND["pairable"]


def signed_in(device: Device) -> Client:
    client = Client()
    client.force_login(device.owner)
    return client


def test_the_page_begins_follows_and_ends(platform: tuple[Device, Phone]) -> None:
    device, phone = platform
    client, at = signed_in(device), f"/admin/devices/device/{device.pk}/pairing/"
    assert f'href="/admin/devices/device/{device.pk}/link_device/"' in client.get(
        f"/admin/devices/device/{device.pk}/change/"
    ).content.decode().replace("&quot;", '"')
    fresh = client.get(at).content.decode()
    assert "data-poll=" not in fresh
    assert "Show a QR code" in fresh
    assert client.get(f"{at}start/").status_code == 405

    assert client.post(f"{at}start/", {}, follow=True).redirect_chain == [(at, 302)]
    shown = client.get(at).content.decode()
    assert f'data-poll="{at}state/"' in shown
    assert "<svg" in shown
    assert "2@far,side" not in shown, "the text behind the picture is not in the page"
    first, second = (client.get(f"{at}state/").json() for _ in range(2))
    assert not first["done"]
    assert first == second, "nothing to redraw while nothing changes"

    PairingAttempt.objects.update(seen_at=None)
    phone.status = "connected"
    ended = client.get(f"{at}state/").json()
    assert ended["done"]
    assert "+628110000001" in ended["html"]
    assert "<svg" not in ended["html"]


def test_every_button_asks_first(platform: tuple[Device, Phone]) -> None:
    device, phone = platform
    Device.objects.update(state=DeviceState.ACTIVE)
    client, at = signed_in(device), f"/admin/devices/device/{device.pk}/pairing/"
    for what in ("log-out", "reset", "refresh", "stop"):
        question = client.get(f"{at}{what}/").content.decode()
        assert 'name="confirmed"' in question, what
    assert phone.requests == []
    assert client.get(f"{at}clear-session/").status_code == 404, "there is none at a platform"
    assert client.get(f"{at}nonsense/").status_code == 404

    client.post(f"{at}refresh/", {"confirmed": "yes"})
    device.refresh_from_db()
    assert device.refresh_asked_at is not None
    client.post(f"{at}log-out/", {"confirmed": "yes"})
    device.refresh_from_db()
    assert device.state == DeviceState.UNPAIRED
    refused = client.post(f"{at}refresh/", {"confirmed": "yes"}, follow=True).content.decode()
    assert "nothing to connect anew" in refused
    bad = client.post(f"{at}start/", {"by_code": "1", "phone": "12"}, follow=True).content.decode()
    assert "country code" in bad


def test_pages_are_for_those_who_may_change_the_device(platform: tuple[Device, Phone]) -> None:
    device, _phone = platform
    member = make_user(role="team")
    device.shares.create(user=member)
    for user, status in ((member, 403), (make_user(role="staff"), 404)):
        client = Client()
        client.force_login(user)
        for route in ("", "state/", "log-out/"):
            assert client.get(f"/admin/devices/device/{device.pk}/pairing/{route}").status_code == status
    own = make_device(owner=device.owner)
    assert signed_in(device).get(f"/admin/devices/device/{own.pk}/pairing/").status_code == 404


def test_the_same_over_the_api(platform: tuple[Device, Phone]) -> None:
    device, phone = platform
    api, at = caller(device.owner), f"{V1}/devices/{device.pk}"
    problem(api.get(f"{at}/pairing"), 404, "not_found")
    problem(api.post(f"{at}/pairing", {"phone": "12"}, format="json"), 422, "bad_phone")
    begun = api.post(f"{at}/pairing", {"phone": "+628110000001"}, format="json")
    assert (begun.status_code, begun.json()["state"], begun.json()["code"]) == (201, "code", "ABCD-EFGH")
    begun = api.post(f"{at}/pairing", {}, format="json")
    assert (begun.status_code, begun.json()["qr"]) == (201, "2@far,side")
    phone.status = "connected"
    PairingAttempt.objects.update(seen_at=None)
    assert api.get(f"{at}/pairing").json()["state"] == "connected"
    assert api.post(f"{at}/refresh").status_code == 202
    assert api.post(f"{at}/log-out").status_code == 202
    problem(api.post(f"{at}/refresh"), 409, "wrong_state")
    problem(api.post(f"{at}/clear-session"), 422, "no_session")
    assert api.delete(f"{at}/pairing").status_code == 204

    member = make_user(role="team")
    device.shares.create(user=member)
    problem(caller(member).get(f"{at}/pairing"), 403, "permission_denied")
    problem(caller(role="staff").get(f"{at}/pairing"), 404, "not_found")
