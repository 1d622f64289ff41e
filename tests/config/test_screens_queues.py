"""The pages of queues and of workers: what they show, to whom, and what their buttons do."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone

from config.admin_workers import queue_words
from devices.models import DeviceShare
from messaging import days
from messaging.models import DayCount, Message
from tests.browsing import signed_in
from tests.config.crew import at_work
from tests.factories import make_batch, make_device, make_user, messages_of

pytestmark = pytest.mark.django_db


def test_a_queue_is_cleared_after_its_count_was_seen_by_those_who_may() -> None:
    me, member, colleague = make_user(), make_user(role="team"), make_user()
    device = make_device(owner=me)
    for user in (member, colleague):
        DeviceShare.objects.create(device=device, user=user)
    batch = make_batch(owner=me, devices=[device], leads=3)
    url = f"/admin/queues/{device.pk}/clear/"
    client = signed_in(me)
    assert url in client.get("/admin/queues/").content.decode()
    assert '<dd dir="auto">3</dd>' in client.get(url).content.decode()
    for user, status in ((member, 403), (colleague, 404), (make_user(), 404), (make_user(role="ops"), 403)):
        assert signed_in(user).post(url, {"confirmed": "yes"}).status_code == status
    assert {message.state for message in messages_of(batch)} == {"pending"}
    client.post(url, {"confirmed": "yes"})
    assert {message.state for message in messages_of(batch)} == {"cancelled"}


def test_what_is_old_in_a_queue_expires_and_what_is_young_stays() -> None:
    me, member, colleague = make_user(), make_user(role="team"), make_user()
    device = make_device(owner=me)
    for user in (member, colleague):
        DeviceShare.objects.create(device=device, user=user)
    old, *young = messages_of(make_batch(owner=me, devices=[device], leads=3))
    Message.objects.filter(pk=old.pk).update(created_at=timezone.now() - timedelta(hours=30))
    DayCount.objects.create(device=device, day=days.today(timezone.now()), sent=4321, failed=17)
    url = f"/admin/queues/{device.pk}/expire/"
    client = signed_in(me)
    listed = client.get("/admin/queues/").content.decode()
    assert all(words in listed for words in (url, "4,321", "/pause_device/"))
    for user, status in ((member, 403), (colleague, 404), (make_user(), 404)):
        assert signed_in(user).post(url, {"confirmed": "yes", "hours": "24"}).status_code == status
    for wrong in ("", "0", "-1", "x", "9" * 40):
        assert "is not a number of hours" in client.post(url, {"confirmed": "yes", "hours": wrong}).content.decode()
    assert client.post(url, {"confirmed": "yes", "hours": "24"}).status_code == 302
    assert Message.objects.get(pk=old.pk).state == "expired"
    assert {Message.objects.get(pk=each.pk).state for each in young} == {"pending"}


def test_for_each_device_one_finds_who_serves_it_what_it_did_and_a_way_to_stop_it(settings: Any) -> None:
    settings.FLOTILLA_SHARDS = settings.FLOTILLA_SESSION_SHARDS = 1
    at_work()
    me, colleague = make_user(), make_user()
    front = make_device(owner=me, name="Front desk", last_sent_at=timezone.now())
    back = make_device(owner=me, name="Back office", state="paused")
    phone = make_device(owner=me, name="Phone", gateway="whatsapp", state="unpaired")
    DeviceShare.objects.create(device=front, user=colleague)
    messages_of(make_batch(owner=me, devices=[front], leads=3))
    DayCount.objects.create(device=front, day=days.today(timezone.now()), sent=4321, failed=17)
    client = signed_in(me)

    def rows(query: str = "", by: Client = client) -> dict[str, dict[str, Any]]:
        return {row["name"]: row for row in by.get(f"/admin/workers/{query}").context["rows"]}

    found = rows()
    assert list(found) == ["Back office", "Front desk", "Phone"]
    row = found["Front desk"]
    assert (row["workers"], row["today"]["sent"], row["today"]["failed"], row["depth"].waiting) == (
        "all@here", 4321, 17, 3,
    )  # fmt: skip
    assert row["hold_url"] == f"/admin/devices/device/{front.pk}/pause_device/"
    assert found["Back office"]["hold_url"] == f"/admin/devices/device/{back.pk}/resume_device/"
    assert (found["Phone"]["workers"], found["Phone"]["hold_url"]) == ("", "")  # nobody houses sessions
    assert list(rows("?q=desk")) == ["Front desk"]
    assert list(rows("?state=paused")) == ["Back office"]
    assert list(rows("?worker=all@here")) == ["Back office", "Front desk"]
    assert "No device is like that." in client.get("/admin/workers/?q=nothing").content.decode()
    assert rows(by=signed_in(colleague))["Front desk"]["hold_url"] == ""
    assert "There is no device yet." in signed_in(make_user()).get("/admin/workers/").content.decode()
    assert "nobody takes" in client.get("/admin/workers/state/?state=unpaired").json()["html"]
    for device, words in ((front, "all@here"), (phone, "Nobody takes its queue now")):
        assert words in client.get(f"/admin/devices/device/{device.pk}/change/").content.decode()


def test_a_row_of_queues_is_named_by_its_ends() -> None:
    names = ["devices.session.0", "control", "devices.http.2", "devices.http.3", "devices.http.10", "devices.http.1"]
    assert queue_words(names) == "control, devices.http.1 to 3, devices.http.10, devices.session.0"
    assert queue_words([]) == ""
