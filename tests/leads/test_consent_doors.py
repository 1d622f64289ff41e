"""Refusing, agreeing again, reviewing and waiving: over the API and in the admin, and who did it."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import User
from django.utils import timezone

from campaigns.services import launch, trigger
from leads import consent, optout
from leads.models import ConsentEvent, ConsentWaiver, Lead
from messaging.models import Message
from tests.api_support import V1, caller, fields_of, problem
from tests.browsing import signed_in
from tests.factories import make_campaign, make_leads, make_pool, make_user

pytestmark = pytest.mark.django_db

LIST = "/admin/leads/lead/"
YES = {"confirmed": "yes"}


def held(owner: User, *, said: str = "stop please") -> Lead:
    (lead,) = make_leads(1, owner=owner)
    optout.hear(owner_id=owner.pk, phone=lead.phone, text=said, now=timezone.now())
    lead.refresh_from_db()
    return lead


def history(client: Any, lead: Lead) -> list[tuple[str, str, str, str]]:
    found = client.get(f"{V1}/leads/{lead.pk}/consent").json()
    return [(entry["kind"], entry["channel"], entry["source"], entry["by"]) for entry in found]


# -- API ---------------------------------------------------------------------------------------------------------------


def test_out_and_in_again_over_the_api():
    client = caller()
    (lead,) = make_leads(1, owner=client.user)
    address, me = f"{V1}/leads/{lead.pk}", client.user.username
    assert client.post(f"{address}/opt-out", {"source": "by telephone"}).json()["opted_out_at"]
    assert client.post(f"{address}/opt-out").status_code == 200
    assert fields_of(problem(client.post(f"{address}/opt-in"), 400, "invalid")) == {"source": "required"}
    assert client.post(f"{address}/opt-in", {"source": "shop counter"}).json()["opted_out_at"] is None
    assert history(client, lead) == [
        ("opted_in", "api", "shop counter", me),
        ("opted_out", "api", "by telephone", me),
        ("given", "record", "test", ""),
    ]


def test_reviews_over_the_api():
    client = caller()
    lead, other = held(client.user), held(client.user)
    listed = client.get(f"{V1}/leads?in_review=true").json()["results"]
    assert {row["id"] for row in listed} == {lead.pk, other.pk}
    address = f"{V1}/leads/{lead.pk}/review"
    assert fields_of(problem(client.post(address, {"decision": "maybe"}), 400, "invalid")) == {
        "decision": "invalid_choice"
    }
    assert client.post(address, {"decision": "dismiss"}).json()["review_at"] is None
    problem(client.post(address, {"decision": "accept"}), 409, "not_in_review")
    accepted = client.post(f"{V1}/leads/{other.pk}/review", {"decision": "accept"}).json()
    assert (accepted["review_at"], bool(accepted["opted_out_at"])) == (None, True)
    assert history(client, other)[1] == ("held", "reply", "stop please", "")


def test_an_edit_keeps_what_was_agreed_before_and_a_zone_has_to_exist():
    client = caller()
    (lead,) = make_leads(1, owner=client.user)
    address = f"{V1}/leads/{lead.pk}"
    assert client.patch(address, {"consent_source": "Web form", "time_zone": "Europe/Paris"}).status_code == 200
    assert [entry[2:] for entry in history(client, lead)] == [("Web form", client.user.username), ("test", "")]
    wrong = problem(client.patch(address, {"time_zone": "Mars/Olympus"}), 400, "invalid")
    assert set(fields_of(wrong)) == {"time_zone"}
    made = client.post(f"{V1}/leads", {"phone": "+60123456789", "time_zone": "Europe/Paris"}).json()
    assert made["time_zone"] == "Europe/Paris"


def test_only_admins_waive_and_what_is_left_out_is_shown_before_a_launch():
    client, admin = caller(), caller(role="admin")
    pool, _ = make_pool(owner=client.user, devices=1)
    make_leads(2, owner=client.user)
    make_leads(3, owner=client.user, consent_at=None)
    held(client.user)
    campaign = make_campaign(owner=client.user, pool=pool)
    preview = f"{V1}/campaigns/{campaign.pk}/preview"
    seen = client.get(preview).json()
    assert (seen["total"], seen["eligible"], seen["devices"], seen["problems"]) == (6, 2, 1, [])
    assert (seen["left_out"], seen["without_consent"]) == ({"in_review": 1, "no_consent": 3}, 0)
    body = {"leads_of": client.user.pk, "reason": "Customers since 2019"}
    for role in ("staff", "team", "ops", "nobody"):
        problem(caller(role=role).post(f"{V1}/consent/waivers", body), 403, "permission_denied")
    assert fields_of(problem(admin.post(f"{V1}/consent/waivers", {}), 400, "invalid")) == {"reason": "required"}
    made = admin.post(f"{V1}/consent/waivers", body)
    assert (made.status_code, made.json()["made_by"]) == (201, admin.user.pk)
    assert fields_of(problem(admin.post(f"{V1}/consent/waivers", body), 400, "invalid")) == {"leads_of": "in_force"}
    assert [row["reason"] for row in client.get(f"{V1}/consent/waivers").json()] == ["Customers since 2019"]
    assert caller().get(f"{V1}/consent/waivers").json() == []
    seen = client.get(preview).json()
    assert (seen["eligible"], seen["left_out"], seen["without_consent"]) == (5, {"in_review": 1}, 3)
    run = launch(campaign=campaign, now=timezone.now()).run
    assert trigger(run_id=run.pk, now=timezone.now()).left_out == {"in_review": 1}
    assert Message.objects.count() == 5
    problem(client.delete(f"{V1}/consent/waivers/{made.json()['id']}"), 403, "permission_denied")
    ended = admin.delete(f"{V1}/consent/waivers/{made.json()['id']}").json()
    assert ended["ended_by"] == admin.user.pk
    assert client.get(preview).json()["left_out"] == {"in_review": 1, "no_consent": 3}


# -- Admin -------------------------------------------------------------------------------------------------------------


def test_the_buttons_of_a_lead_follow_where_it_stands():
    owner = make_user()
    (lead,) = make_leads(1, owner=owner)
    client, page = signed_in(owner), f"{LIST}{lead.pk}"

    def shown() -> set[str]:
        html = client.get(f"{page}/change/").content.decode()
        return {name for name in ("opt_out", "opt_in", "dismiss_review", "erase") if f"/{lead.pk}/{name}/" in html}

    assert shown() == {"opt_out", "erase"}
    assert "Opt out" in client.get(f"{LIST}{lead.pk}/opt_out/").content.decode()
    assert not Lead.objects.filter(opted_out_at__isnull=False).exists()  # only asked
    client.post(f"{LIST}{lead.pk}/opt_out/", YES)
    assert shown() == {"opt_in", "erase"}
    assert client.post(f"{LIST}{lead.pk}/opt_in/", {"source": ""}).context["form"].errors
    client.post(f"{LIST}{lead.pk}/opt_in/", {"source": "Shop counter"})
    optout.hear(owner_id=owner.pk, phone=lead.phone, text="stop pls", now=timezone.now())
    assert shown() == {"opt_out", "dismiss_review", "erase"}
    assert "stop pls" in client.get(f"{LIST}{lead.pk}/dismiss_review/").content.decode()
    client.post(f"{LIST}{lead.pk}/dismiss_review/", YES)
    lead.refresh_from_db()
    assert (lead.opted_out_at, lead.review_at, lead.consent_source) == (None, None, "Shop counter")
    assert {entry.by for entry in consent.history(lead) if entry.channel == "admin"} == {owner.get_username()}
    html = client.get(f"{page}/change/").content.decode()
    for words in ("Shop counter", "stop pls", "By hand", owner.get_username()):
        assert words in html


def test_reviews_are_decided_from_the_list():
    owner = make_user()
    yes, no, free = held(owner), held(owner, said="pls unsubscribe me"), make_leads(1, owner=owner)[0]
    client = signed_in(owner)
    found = client.get(LIST, {"in_review": "yes"}).context["cl"].result_list
    assert {lead.pk for lead in found} == {yes.pk, no.pk}
    chosen = {"action": "dismiss_reviews", "_selected_action": [no.pk, free.pk]}
    asked = client.post(LIST, chosen)
    assert b"pls unsubscribe me" in asked.content
    client.post(LIST, {**chosen, **YES})
    client.post(LIST, {"action": "opt_out_leads", "_selected_action": [yes.pk], **YES})
    assert Lead.objects.filter(review_at__isnull=False).count() == 0
    assert list(Lead.objects.filter(opted_out_at__isnull=False)) == [yes]
    assert ConsentEvent.objects.filter(lead=free).count() == 0


def test_nobody_decides_about_what_is_not_theirs():
    lead = held(make_user())
    stranger, member = signed_in(make_user()), signed_in(make_user(role="team"))
    for name in ("opt_out", "opt_in", "dismiss_review", "erase"):
        assert stranger.post(f"{LIST}{lead.pk}/{name}/", YES).status_code in {403, 404}
        assert member.post(f"{LIST}{lead.pk}/{name}/", YES).status_code in {403, 404}
    lead.refresh_from_db()
    assert lead.review_at is not None


def test_deleting_in_the_admin_keeps_the_refusal():
    owner = make_user()
    (lead,) = make_leads(1, owner=owner, opted_out_at=timezone.now())
    signed_in(owner).post(f"{LIST}{lead.pk}/delete/", {"confirmed": "yes"})
    assert not Lead.objects.exists()
    signed_in(owner).post(
        f"{LIST}add/",
        {"phone": lead.phone, "name": "Back", "status": "prospect", "custom": "{}", "consent_source": ""},
    )
    assert Lead.objects.get().opted_out_at is not None


def test_waivers_in_the_admin_and_on_the_launch_page():
    staff, admin = make_user(), make_user(role="admin")
    add = "/admin/leads/consentwaiver/add/"
    assert signed_in(staff).post(add, {"owner": "", "reason": "Why not"}).status_code == 403
    client = signed_in(admin)
    client.post(add, {"owner": "", "reason": "Paper forms in the archive"})
    waiver = ConsentWaiver.objects.get()
    assert (waiver.made_by, waiver.owner) == (admin, None)
    assert b"in force" in client.post(add, {"owner": "", "reason": "Again"}).content
    pool, _ = make_pool(owner=staff, devices=1)
    make_leads(2, owner=staff, consent_at=None)
    campaign = make_campaign(owner=staff, pool=pool)
    question = signed_in(staff).get(f"/admin/campaigns/campaign/{campaign.pk}/launch_campaign/").content.decode()
    assert "2 of them have no recorded consent" in question
    assert "Paper forms in the archive" in question
    page = f"/admin/leads/consentwaiver/{waiver.pk}"
    assert client.get(f"{page}/change/").status_code == 200
    client.post(f"{page}/end_waiver/", YES)
    waiver.refresh_from_db()
    assert waiver.ended_by == admin
    assert client.post(f"{page}/delete/", {"post": "yes"}).status_code == 403
    assert signed_in(staff).get("/admin/leads/consentwaiver/").status_code == 200
