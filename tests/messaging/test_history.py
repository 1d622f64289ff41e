"""A lead's history: every kind, page by page, and only what one may see."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone

from devices.models import DeviceShare
from leads import optout
from leads.models import ConsentEvent, Lead
from messaging import services
from messaging.models import InboundMessage
from tests.api_support import V1, caller, fields_of, problem
from tests.factories import make_device, make_leads

pytestmark = pytest.mark.django_db


def walked(client: Any, lead: Lead, size: int) -> list[dict[str, Any]]:
    entries, cursor = [], ""
    while True:
        page = client.get(f"{V1}/leads/{lead.pk}/history", {"cursor": cursor, "page_size": size}).json()
        entries += page["entries"]
        cursor = page["older"]
        if not cursor:
            return entries


def test_everything_stands_in_one_line_of_time_page_by_page():
    client = caller()
    device, hidden = make_device(owner=client.user, name="Front"), make_device(owner=client.user)
    (lead,) = make_leads(1, owner=client.user, device=device, consent_at=timezone.now() - timedelta(days=9))
    now = timezone.now()
    sent = services.send_single(owner=client.user, text="Hi", lead=lead, device=device, now=now)
    unseen = services.send_single(owner=client.user, text="Ho", lead=lead, device=hidden, now=now)
    for n in range(3):  # the same moment for all: the order must still be whole
        InboundMessage.objects.create(
            gateway="simulator", event_id=f"e{n}", device=device, lead=lead, phone=lead.phone, text=f"reply {n}",
            written_at=now, received_at=now,
        )  # fmt: skip
    client.patch(f"{V1}/leads/{lead.pk}", {"name": "Renamed"})
    optout.opt_out(lead=lead, channel=ConsentEvent.Channel.API, now=now, by=client.user, source="by telephone")

    whole = walked(client, lead, 200)
    assert sorted(entry["kind"] for entry in whole) == sorted(
        ["message"] * 2 + ["reply"] * 3 + ["consent"] * 2 + ["change"]
    )
    assert whole[-1]["kind"] == "consent"
    assert [entry["at"] for entry in whole] == sorted((entry["at"] for entry in whole), reverse=True)
    change = next(entry for entry in whole if entry["kind"] == "change")
    assert change["details"]["values"]["name"][1] == "Renamed"
    assert change["by"] == client.user.username
    for size in (1, 3):
        assert walked(client, lead, size) == whole

    team = caller(role="team")
    problem(team.get(f"{V1}/leads/{lead.pk}/history"), 404, "not_found")
    DeviceShare.objects.create(device=device, user=team.user)
    seen = {entry["details"].get("message") for entry in walked(team, lead, 200)}
    assert sent.pk in seen
    assert unseen.pk not in seen

    for query, field in (("cursor=abc", "cursor"), ("cursor=WzFd", "cursor"), ("page_size=0", "page_size")):
        body = problem(client.get(f"{V1}/leads/{lead.pk}/history?{query}"), 400, "invalid")
        assert set(fields_of(body)) == {field}

    browser = Client()
    browser.force_login(client.user)
    html = browser.get(f"/admin/leads/lead/{lead.pk}/change/").content.decode()
    assert html.count('data-kind="reply"') == 3
    assert "Renamed" in html
    assert browser.get(f"/admin/leads/lead/{lead.pk}/timeline/").status_code == 200
    assert browser.get(f"/admin/leads/lead/{lead.pk}/timeline/?cursor=x").status_code == 400


def test_what_is_erased_leaves_no_history_and_what_did_not_change_no_line():
    client = caller()
    made = client.post(f"{V1}/leads", {"phone": "0123456789", "name": "Ada"}).json()
    client.post(f"{V1}/leads", {"phone": "0123456789", "name": "Other"})  # merges nothing new
    lead = Lead.objects.get(pk=made["id"])
    assert [change.kind for change in lead.changes.all()] == ["created"]
    assert client.post(f"{V1}/leads/{lead.pk}/erase").status_code == 200
    problem(client.get(f"{V1}/leads/{lead.pk}/history"), 404, "not_found")
