"""Devices in the admin: who sees them, what may be done to them, and that secrets only go in."""

from __future__ import annotations

from copy import copy
from datetime import time, timedelta
from typing import Any

import pytest
from django.contrib import admin
from django.urls import reverse
from django.utils import timezone

from devices.models import Device, DeviceShare, DeviceState, Pool
from devices.services import CAP_REACHED
from messaging.models import Stream
from tests.browsing import signed_in
from tests.factories import make_batch, make_device, make_pool, make_user

pytestmark = pytest.mark.django_db

LIST = "/admin/devices/device/"
ADD = "/admin/devices/device/add/"
SECRET = "sim-very-secret-token"
NO_SHARES = {
    "shares-TOTAL_FORMS": "0",
    "shares-INITIAL_FORMS": "0",
    "shares-MIN_NUM_FORMS": "0",
    "shares-MAX_NUM_FORMS": "10",
}


def page_of(device: Device) -> str:
    return reverse("admin:devices_device_change", args=[device.pk])


def form_data(**changes: Any) -> dict[str, Any]:
    return {
        "name": "Kuala Lumpur 1",
        "phone": "",
        "pool": "",
        "gateway": "simulator",
        "base_url": "",
        "credential_simulator_token": SECRET,
        "delay_min_seconds": "10",
        "delay_max_seconds": "30",
        "cap_per_hour": "",
        "cap_per_day": "300",
        "lanes": "1",
        "warm_up": "unknown",
        "window_start": "",
        "window_end": "",
        "time_zone": "",
        "options": "{}",
        "initial-options": "{}",  # a field with a callable default brings its initial value along
        **NO_SHARES,
        **changes,
    }


# -- Who sees what -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("role", ["staff", "team", "admin", "ops"])
def test_the_list_shows_what_the_role_may_see(role: str) -> None:
    me = make_user(role=role)
    mine, other = (
        make_device(owner=make_user(role="staff"), name="Shared one"),
        make_device(owner=make_user(), name="Foreign one"),
    )
    if role == "staff":
        Device.objects.filter(pk=mine.pk).update(owner=me)
    if role == "team":
        DeviceShare.objects.create(device=mine, user=me)
    answer = signed_in(me).get(LIST)
    if role == "ops":
        assert answer.status_code == 403
        return
    text = answer.content.decode()
    assert "Shared one" in text
    assert ("Foreign one" in text) is (role == "admin")
    assert signed_in(me).get(page_of(mine)).status_code == 200
    assert (signed_in(me).get(page_of(other)).status_code == 200) is (role == "admin")


def test_team_members_read_and_change_nothing() -> None:
    device, member = make_device(owner=make_user()), make_user(role="team")
    DeviceShare.objects.create(device=device, user=member)
    client = signed_in(member)
    text = client.get(page_of(device)).content.decode()
    assert 'name="name"' not in text
    assert "credential_simulator_token" not in text
    assert client.post(page_of(device), form_data(name="Mine now")).status_code == 403
    assert client.get(ADD).status_code == 403
    assert client.post(f"{LIST}{device.pk}/pause_device/", {"confirmed": "yes"}).status_code == 403
    client.post(LIST, {"action": "pause_devices", "_selected_action": [str(device.pk)]})
    device.refresh_from_db()
    assert (device.name, device.state) != ("Mine now", DeviceState.PAUSED)
    assert device.state == DeviceState.ACTIVE


def test_staff_cannot_touch_the_devices_of_others() -> None:
    foreign, client = make_device(owner=make_user()), signed_in(make_user(role="staff"))
    assert client.post(page_of(foreign), form_data(name="Mine now")).status_code == 302
    assert client.post(f"{LIST}{foreign.pk}/pause_device/", {"confirmed": "yes"}).status_code == 404
    client.post(LIST, {"action": "pause_devices", "_selected_action": [str(foreign.pk)]})
    foreign.refresh_from_db()
    assert foreign.name != "Mine now"
    assert foreign.state == DeviceState.ACTIVE


def test_filters_and_choices_name_no_foreign_rows() -> None:
    me, stranger = make_user(role="staff"), make_user(role="staff")
    foreign = Pool.objects.create(owner=stranger, name="Secret pool of a stranger")
    client = signed_in(me)
    assert foreign.name not in client.get(LIST).content.decode()
    assert foreign.name not in client.get(LIST, {"pool__id__exact": foreign.pk}).content.decode()
    found = client.get("/admin/autocomplete/", {"app_label": "devices", "model_name": "device", "field_name": "pool"})
    assert found.json()["results"] == []
    answer = client.post(ADD, form_data(pool=str(foreign.pk)))
    assert answer.status_code == 200
    assert foreign.name not in answer.content.decode()
    assert not Device.objects.filter(owner=me).exists()


def test_admins_choose_an_owner_and_keep_related_rows_with_it() -> None:
    boss, owner, stranger = make_user(role="admin"), make_user(), make_user()
    pool = Pool.objects.create(owner=stranger, name="pool")
    client = signed_in(boss)
    refused = client.post(ADD, form_data(owner=str(owner.pk), pool=str(pool.pk)))
    assert "belongs to" in refused.content.decode()
    client.post(ADD, form_data(owner=str(stranger.pk), pool=str(pool.pk)))
    assert Device.objects.get().owner == stranger


# -- Forms -------------------------------------------------------------------------------------------------------------


def test_staff_add_their_own_device_and_the_secret_only_goes_in() -> None:
    me = make_user(role="staff")
    client = signed_in(me)
    assert 'name="owner"' not in client.get(ADD).content.decode()
    answer = client.post(ADD, form_data(owner=str(make_user().pk)), follow=True)
    device = Device.objects.get()
    assert device.owner == me
    assert device.credentials == {"token": SECRET}
    pages = [answer, client.get(page_of(device)), client.get(LIST), client.get(f"{LIST}{device.pk}/history/")]
    for shown in pages:
        assert SECRET not in shown.content.decode()


def test_a_secret_is_not_echoed_when_the_form_has_errors() -> None:
    answer = signed_in(make_user(role="staff")).post(ADD, form_data(name=""))
    assert answer.status_code == 200
    assert SECRET not in answer.content.decode()


def test_an_empty_secret_keeps_the_stored_one_and_a_new_one_replaces_it() -> None:
    me = make_user(role="staff")
    device = make_device(owner=me, credentials={"token": SECRET})
    client = signed_in(me)
    client.post(page_of(device), form_data(name="Renamed", credential_simulator_token=""))
    device.refresh_from_db()
    assert (device.name, device.credentials, device.config_version) == ("Renamed", {"token": SECRET}, 1)
    client.post(page_of(device), form_data(name="Renamed", credential_simulator_token="new"))
    device.refresh_from_db()
    assert (device.credentials, device.config_version) == ({"token": "new"}, 2)


def test_a_missing_secret_is_said_at_its_field() -> None:
    answer = signed_in(make_user(role="staff")).post(ADD, form_data(credential_simulator_token=""))
    assert "credential_simulator_token" in answer.context["adminform"].form.errors
    assert not Device.objects.exists()


def test_another_address_does_not_get_the_stored_secret() -> None:
    me = make_user(role="staff")
    device = make_device(owner=me, credentials={"token": SECRET})
    answer = signed_in(me).post(
        page_of(device), form_data(base_url="https://evil.example", credential_simulator_token="")
    )
    assert "enter them again" in answer.content.decode()
    assert "credential_simulator_token" in answer.context["adminform"].form.errors
    device.refresh_from_db()
    assert (device.base_url, device.credentials) == ("", {"token": SECRET})


def test_another_address_with_its_own_secret_is_stored() -> None:
    me = make_user(role="staff")
    device = make_device(owner=me, credentials={"token": SECRET})
    signed_in(me).post(
        page_of(device), form_data(base_url="https://gateway.example", credential_simulator_token="theirs")
    )
    device.refresh_from_db()
    assert (device.base_url, device.credentials) == ("https://gateway.example", {"token": "theirs"})


def test_a_form_read_before_the_address_changed_does_not_bring_the_old_secret_back(rf: Any) -> None:
    """Two requests at once: this one has read the device, the other moves it, this one writes."""
    me = make_user(role="staff")
    device = make_device(owner=me, credentials={"token": SECRET})
    request = rf.post(page_of(device))
    request.user = me
    model_admin = admin.site.get_model_admin(Device)
    as_read = model_admin.get_object(request, str(device.pk))
    form_class = model_admin.get_form(request, as_read, change=True)

    def errors() -> Any:
        return form_class(form_data(credential_simulator_token="new"), instance=copy(as_read)).errors

    assert errors() == {}
    device.base_url = "https://evil.example"
    device.save(update_fields={"base_url"})
    assert "Somebody has just changed" in str(errors())


def test_the_form_asks_for_the_sending_window_in_plain_words() -> None:
    me = make_user(role="staff")
    client = signed_in(me)
    text = client.get(ADD).content.decode()
    for words in (">Sends only from<", ">until<", "Time zone of these times", "By the gateway: on for new WhatsApp"):
        assert words in text
    window = {"window_start": "09:00", "window_end": "18:00", "time_zone": "Asia/Kuala_Lumpur", "warm_up": "true"}
    client.post(ADD, form_data(**window))
    device = Device.objects.get()
    assert (device.window_start, device.window_end) == (time(9), time(18))
    assert (device.time_zone, device.warm_up) == ("Asia/Kuala_Lumpur", True)


def test_a_changed_rhythm_wakes_the_device_and_a_new_name_does_not() -> None:
    me = make_user(role="staff")
    device = make_device(owner=me, name="Kuala Lumpur 1", delay_min_seconds=10, delay_max_seconds=30, cap_per_day=300)
    client = signed_in(me)
    client.post(page_of(device), form_data(name="Renamed", warm_up="false", credential_simulator_token=""))
    device.refresh_from_db()
    assert (device.name, device.wake_at) == ("Renamed", None)
    client.post(page_of(device), form_data(name="Renamed", warm_up="false", lanes="5", credential_simulator_token=""))
    device.refresh_from_db()
    assert device.lanes == 5
    assert device.wake_at <= timezone.now()


@pytest.mark.parametrize(("reason", "rests"), [(CAP_REACHED, False), ("Throttled by the gateway.", True)])
def test_a_wider_cap_ends_a_rest_by_the_old_one_and_not_one_that_the_gateway_asked_for(
    reason: str, rests: bool
) -> None:
    me = make_user(role="staff")
    device = make_device(owner=me, name="Kuala Lumpur 1", cap_per_day=300)
    Device.objects.filter(pk=device.pk).update(held_until=timezone.now() + timedelta(hours=9), hold_reason=reason)
    signed_in(me).post(page_of(device), form_data(cap_per_day="500", credential_simulator_token=""))
    device.refresh_from_db()
    assert device.cap_per_day == 500
    assert (device.held_until is not None) is rests


def test_admins_find_themselves_chosen_as_owner() -> None:
    boss = make_user(role="admin")
    for address in (ADD, "/admin/devices/pool/add/", "/admin/leads/lead/add/", "/admin/campaigns/campaign/add/"):
        form = signed_in(boss).get(address).context["adminform"].form
        assert form.get_initial_for_field(form.fields["owner"], "owner") == boss.pk, address


def test_a_second_device_of_the_same_name_is_an_error_on_the_form() -> None:
    me = make_user(role="staff")
    make_device(owner=me, name="Kuala Lumpur 1")
    answer = signed_in(me).post(ADD, form_data())
    assert answer.status_code == 200
    assert answer.context["adminform"].form.errors


def test_saving_writes_only_what_was_changed() -> None:
    """The release and the senders write to the row while somebody has the form open."""
    me = make_user(role="staff")
    device = make_device(owner=me, name="Before")
    client = signed_in(me)
    client.get(page_of(device))
    moment = timezone.now()
    Device.objects.filter(pk=device.pk).update(next_send_at=moment, state=DeviceState.NEEDS_ATTENTION)
    client.post(page_of(device), form_data(name="After", credential_simulator_token=""))
    device.refresh_from_db()
    assert (device.name, device.next_send_at, device.state) == ("After", moment, DeviceState.NEEDS_ATTENTION)


def test_only_those_who_look_at_shared_devices_can_be_shared_with() -> None:
    me, member, other = make_user(role="staff"), make_user(role="team"), make_user(role="ops")
    device = make_device(owner=me)
    client = signed_in(me)
    share = {**NO_SHARES, "shares-TOTAL_FORMS": "1", "shares-0-device": str(device.pk), "shares-0-id": ""}
    assert client.post(page_of(device), form_data(**share, **{"shares-0-user": str(other.pk)})).status_code == 200
    assert client.post(page_of(device), form_data(**share, **{"shares-0-user": str(member.pk)})).status_code == 302
    assert list(DeviceShare.objects.values_list("user", flat=True)) == [member.pk]


def test_a_window_needs_both_ends() -> None:
    answer = signed_in(make_user(role="staff")).post(ADD, form_data(window_start="09:00"))
    assert "window_end" in answer.context["adminform"].form.errors
    assert not Device.objects.exists()


# -- Actions -----------------------------------------------------------------------------------------------------------


def test_pause_and_resume_ask_first_and_happen_on_yes() -> None:
    me = make_user(role="staff")
    device = make_device(owner=me)
    client = signed_in(me)
    pause, resume = f"{LIST}{device.pk}/pause_device/", f"{LIST}{device.pk}/resume_device/"
    assert "Pause" in client.get(pause).content.decode()
    device.refresh_from_db()
    assert device.state == DeviceState.ACTIVE
    client.post(pause, {"confirmed": "yes"})
    device.refresh_from_db()
    assert device.state == DeviceState.PAUSED
    client.post(resume, {"confirmed": "yes"})
    device.refresh_from_db()
    assert device.state == DeviceState.ACTIVE
    assert device.wake_at is not None
    assert device.wake_at <= timezone.now()


@pytest.mark.parametrize(
    ("state", "offered"),
    [
        (DeviceState.ACTIVE, ["pause"]),
        (DeviceState.PAUSED, ["resume"]),
        (DeviceState.NEEDS_ATTENTION, ["resume"]),
        (DeviceState.UNPAIRED, []),
    ],
)
def test_a_device_offers_only_the_action_that_applies(state: str, offered: list[str]) -> None:
    me = make_user(role="staff")
    device = make_device(owner=me, state=state)
    text = signed_in(me).get(page_of(device)).content.decode()
    assert [word for word in ("pause", "resume") if f"/{device.pk}/{word}_device/" in text] == offered


def test_the_page_says_until_when_a_connected_device_rests_and_why() -> None:
    me = make_user(role="staff")
    device = make_device(owner=me)
    client = signed_in(me)
    assert "Rests until" not in client.get(page_of(device)).content.decode()
    until = timezone.now() + timedelta(hours=3)
    Device.objects.filter(pk=device.pk).update(held_until=until, hold_reason="The gateway asked for a pause.")
    text = client.get(page_of(device)).content.decode()
    assert f'Rests until <time datetime="{until.isoformat()}">' in text
    assert "because: The gateway asked for a pause." in text
    Device.objects.filter(pk=device.pk).update(held_until=timezone.now() - timedelta(seconds=1))
    assert "Rests until" not in client.get(page_of(device)).content.decode()


def test_team_members_get_no_link_to_a_pool_they_may_not_open() -> None:
    owner, member = make_user(), make_user(role="team")
    pool, (device,) = make_pool(owner=owner, devices=1)
    DeviceShare.objects.create(device=device, user=member)
    link = reverse("admin:devices_pool_change", args=[pool.pk])
    text = signed_in(member).get(page_of(device)).content.decode()
    assert f"<bdi>{pool}</bdi>" in text
    assert link not in text
    assert signed_in(member).get(link).status_code == 403


def test_list_actions_change_only_devices_in_a_state_for_it() -> None:
    me = make_user(role="staff")
    active, unpaired = make_device(owner=me), make_device(owner=me, state=DeviceState.UNPAIRED)
    chosen = {"_selected_action": [str(active.pk), str(unpaired.pk)]}
    answer = signed_in(me).post(LIST, {"action": "pause_devices", **chosen}, follow=True)
    assert "1 device paused. 1 were not" in answer.content.decode()
    active.refresh_from_db()
    unpaired.refresh_from_db()
    assert (active.state, unpaired.state) == (DeviceState.PAUSED, DeviceState.UNPAIRED)


def asked_for() -> set[str]:
    return set(Device.objects.filter(refresh_asked_at__isnull=False).values_list("name", flat=True))


def test_refreshing_the_chosen_asks_for_those_that_can_connect_and_are_ours() -> None:
    me = make_user(role="staff")
    make_device(owner=me, name="Fine")
    make_device(owner=me, name="Lost", state=DeviceState.NEEDS_ATTENTION, attention_code="logged_out")
    make_device(owner=me, name="Paused", state=DeviceState.PAUSED)
    make_device(owner=make_user(), name="Foreign")
    chosen = [str(pk) for pk in Device.objects.values_list("pk", flat=True)]
    data = {"action": "refresh_devices", "_selected_action": chosen}
    answer = signed_in(me).post(LIST, data, follow=True)
    assert "2 devices are being connected anew. 1 were not" in answer.content.decode()
    assert asked_for() == {"Fine", "Lost"}


def test_reconnect_all_asks_first_and_leaves_alone_what_it_cannot_help() -> None:
    me = make_user(role="staff")
    make_device(owner=me, name="Fine")
    make_device(owner=me, name="Being tried", reconnect_failures=2)
    make_device(owner=me, name="Unreachable", state=DeviceState.NEEDS_ATTENTION, attention_code="unreachable")
    make_device(owner=me, name="Banned", state=DeviceState.NEEDS_ATTENTION, attention_code="banned")
    foreign = {"state": DeviceState.NEEDS_ATTENTION, "attention_code": "unreachable"}
    make_device(owner=make_user(), name="Foreign", **foreign)
    client = signed_in(me)
    assert reverse("admin:devices_device_reconnect_all") in client.get(LIST).content.decode()
    question = client.get(reverse("admin:devices_device_reconnect_all")).content.decode()
    assert "Reconnect all devices?" in question
    assert asked_for() == set()
    client.post(reverse("admin:devices_device_reconnect_all"), {"confirmed": "yes"})
    assert asked_for() == {"Being tried", "Unreachable"}


def test_lists_cost_the_same_however_many_devices(django_assert_max_num_queries: Any) -> None:
    me = make_user(role="admin")
    _pool, devices = make_pool(owner=me, devices=40)
    make_batch(owner=me, devices=devices, leads=80)
    client = signed_in(me)
    with django_assert_max_num_queries(15):
        found = client.get(LIST).context["cl"].result_list
    assert [row.waiting_messages for row in found] == [2] * 40
    with django_assert_max_num_queries(15):
        found = client.get("/admin/devices/pool/").context["cl"].result_list
    assert [row.by_state for row in found] == [{"active": 40}]


def test_the_waiting_column_counts_open_streams_only() -> None:
    me = make_user(role="staff")
    device = make_device(owner=me)
    batch = make_batch(owner=me, devices=[device], leads=3)
    rows = signed_in(me).get(LIST).context["cl"].result_list
    assert [row.waiting_messages for row in rows] == [3]
    Stream.objects.filter(batch=batch).update(waiting=0, is_open=False)
    rows = signed_in(me).get(LIST).context["cl"].result_list
    assert [row.waiting_messages for row in rows] == [0]


def test_a_list_opens_although_credentials_do_not_decrypt(settings: Any) -> None:
    from cryptography.fernet import Fernet

    me = make_user(role="staff")
    device = make_device(owner=me)
    settings.FIELD_KEYS = [Fernet.generate_key().decode()]
    assert signed_in(me).get(LIST).status_code == 200
    assert "cannot be read" in signed_in(me).get(page_of(device)).content.decode()
