"""Campaigns and runs in the admin: from the form to the launch and the run's page."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.utils import timezone
from django.utils.html import strip_tags

from campaigns import services
from campaigns.models import Campaign, Run, RunState
from messaging.models import BatchState, Message
from tests.browsing import signed_in
from tests.factories import make_campaign, make_device, make_leads, make_pool, make_user

pytestmark = pytest.mark.django_db

LIST = "/admin/campaigns/campaign/"
RUNS = "/admin/campaigns/run/"


def form_data(**changes: Any) -> dict[str, Any]:
    return {
        "name": "Raya greetings",
        "text": "Hello {{ name or 'friend' }}",
        "content_type": "text",
        "on_missing": "fallback",
        "pause_window_minutes": "10",
        "pause_min_calls": "20",
        "catch_up": "none",
        "variants-TOTAL_FORMS": "0",
        "variants-INITIAL_FORMS": "0",
        "status": "",
        "niches": "property",
        "triggers": "",
        "initial-niches": "",
        "initial-triggers": "",
        "lead_device": "",
        "routing": "own",
        "pool": "",
        "delay_min_seconds": "10",
        "delay_max_seconds": "30",
        "expires_after_days": "7",
        "schedule": "now",
        "scheduled_at_0": "",
        "scheduled_at_1": "",
        "cron": "",
        "time_zone": "UTC",
        "initial-time_zone": "UTC",
        **changes,
    }


def ready(owner: User, *, leads: int = 5) -> Campaign:
    """A pooled campaign with people to write to and devices to write from."""
    pool, _devices = make_pool(owner=owner, devices=2)
    make_leads(leads, owner=owner)
    make_leads(1, owner=owner, consent_at=None)
    make_leads(2, owner=owner, opted_out_at=timezone.now())
    return make_campaign(owner=owner, pool=pool, name="Raya greetings")


def launched(owner: User) -> Run:
    """A run whose messages are made."""
    run = services.launch(campaign=ready(owner), now=timezone.now()).run
    return services.trigger(run_id=run.pk, now=timezone.now())


# -- Forms and who may use them ----------------------------------------------------------------------------------------


def test_staff_make_campaigns_of_their_own_and_see_no_others() -> None:
    me, other = make_user(role="staff"), make_user(role="staff")
    foreign = make_campaign(owner=other, name="Foreign")
    client = signed_in(me)
    client.post(f"{LIST}add/", form_data())
    mine = Campaign.objects.get(owner=me)
    assert mine.niches == ["property"]
    assert list(client.get(LIST).context["cl"].result_list) == [mine]
    assert client.get(f"{LIST}{foreign.pk}/change/").status_code == 302
    assert client.get(f"{LIST}{foreign.pk}/launch_campaign/").status_code == 404
    assert client.post(f"{LIST}{foreign.pk}/launch_campaign/", {"confirmed": "yes"}).status_code == 404
    client.post(LIST, {"action": "launch_campaigns", "_selected_action": [str(foreign.pk)], "confirmed": "yes"})
    assert not Run.objects.exists()
    assert client.get(f"{LIST}not-a-number/change/").status_code == 302


@pytest.mark.parametrize("role", ["team", "ops"])
def test_team_and_ops_see_no_campaigns(role: str) -> None:
    campaign, client = ready(make_user()), signed_in(make_user(role=role))
    assert client.get(LIST).status_code == 403
    assert client.get(RUNS).status_code == 403
    assert client.post(f"{LIST}{campaign.pk}/launch_campaign/", {"confirmed": "yes"}).status_code == 403
    assert not Run.objects.exists()


def test_problems_are_said_at_their_fields() -> None:
    client = signed_in(make_user(role="staff"))
    for field, changes in {
        "text": {"text": "{{ name"},
        "pool": {"routing": "pooled"},
        "cron": {"schedule": "cron", "cron": "every monday"},
        "time_zone": {"time_zone": "Mars"},
        "delay_max_seconds": {"delay_max_seconds": "1"},
    }.items():
        assert field in client.post(f"{LIST}add/", form_data(**changes)).context["adminform"].form.errors
    assert not Campaign.objects.exists()


def test_a_launched_one_off_is_read_only_and_can_be_cloned() -> None:
    me = make_user(role="staff")
    run = launched(me)
    client = signed_in(me)
    text = client.get(f"{LIST}{run.campaign_id}/change/").content.decode()
    assert 'name="text"' not in text
    assert "launch_campaign" not in text
    assert client.post(f"{LIST}{run.campaign_id}/change/", form_data(text="changed")).status_code == 403
    assert client.post(f"{LIST}{run.campaign_id}/delete/", {"post": "yes"}).status_code == 403
    client.post(f"{LIST}{run.campaign_id}/clone_campaign/", {"confirmed": "yes"})
    clone = Campaign.objects.exclude(pk=run.campaign_id).get()
    assert (clone.state, clone.text, clone.owner, clone.launched_at) == ("draft", run.campaign.text, me, None)
    assert clone.pool == run.campaign.pool


def state_shown(client: Client, query: dict[str, str] | None = None) -> dict[str, str]:
    """``{name: state}`` as the list shows it."""
    answer = client.get(LIST, query or {})
    model_admin, rows = answer.context["cl"].model_admin, answer.context["cl"].result_list
    return {row.name: strip_tags(model_admin.state_label(row)).strip() for row in rows}


def test_a_one_off_that_is_gone_is_launched_and_what_is_planned_is_scheduled() -> None:
    me, now = make_user(role="staff"), timezone.now()
    run = launched(me)
    Run.objects.filter(pk=run.pk).update(state=RunState.FINISHED)
    states = {
        "Raya greetings": "Launched",
        "draft": "Draft",
        "planned": "Scheduled",
        "missed": "Missed",
        "weekly": "Scheduled",
    }
    make_campaign(owner=me, name="draft")
    for name, schedule in (("planned", "at"), ("missed", "at"), ("weekly", "cron")):
        campaign = make_campaign(owner=me, name=name, schedule=schedule, state="scheduled")
        planned = now + timedelta(days=1) if name == "planned" else now
        state = {"planned": "pending", "missed": "missed", "weekly": "finished"}[name]
        Run.objects.create(campaign=campaign, occurrence="once", planned_at=planned, state=state)
    client = signed_in(me)
    assert state_shown(client) == states
    for query, words in (("launched", {"Launched", "Missed"}), ("scheduled", {"Scheduled"}), ("draft", {"Draft"})):
        expected = {name: state for name, state in states.items() if state in words}
        assert state_shown(client, {"state": query}) == expected
    assert Campaign.objects.get(pk=run.campaign_id).state == "scheduled"
    page = client.get(f"{LIST}{run.campaign_id}/change/").content.decode()
    assert re.search(r'<span class="[^"]*bg-blue-100[^"]*"\s*>\s*Launched\s*</span>', page)


# -- Launch ------------------------------------------------------------------------------------------------------------


def test_launching_shows_what_will_happen_and_then_does_it_once(django_capture_on_commit_callbacks: Any) -> None:
    me = make_user(role="staff")
    campaign = ready(me)
    client = signed_in(me)
    question = client.get(f"{LIST}{campaign.pk}/launch_campaign/").content.decode()
    for words in (
        "5 of 8 leads that match",
        "2 opted out",
        "1 without recorded consent",
        "2 connected",
        "Launch to 5 leads",
    ):
        assert words in question
    assert not Run.objects.exists()
    with django_capture_on_commit_callbacks() as after_commit:
        answer = client.post(f"{LIST}{campaign.pk}/launch_campaign/", {"confirmed": "yes"})
    run = Run.objects.get()
    assert answer.url == f"{RUNS}{run.pk}/change/"
    assert len(after_commit) == 1
    again = client.post(f"{LIST}{campaign.pk}/launch_campaign/", {"confirmed": "yes"}, follow=True)
    assert "had been launched already" in again.content.decode()
    assert Run.objects.get() == run


def test_a_campaign_that_is_not_ready_is_not_launched_and_says_why() -> None:
    me = make_user(role="staff")
    campaign = make_campaign(owner=me, text="{{ broken")
    client = signed_in(me)
    question = client.get(f"{LIST}{campaign.pk}/launch_campaign/").content.decode()
    assert "cannot be launched yet" in question
    answer = client.post(f"{LIST}{campaign.pk}/launch_campaign/", {"confirmed": "yes"}, follow=True)
    assert "was not launched. Text:" in answer.content.decode()
    assert not Run.objects.exists()


def test_the_question_warns_when_nobody_or_nothing_can_send() -> None:
    me = make_user(role="staff")
    pool, devices = make_pool(owner=me, devices=1, state="paused")
    campaign = make_campaign(owner=me, pool=pool)
    client = signed_in(me)
    assert "will finish at once" in client.get(f"{LIST}{campaign.pk}/launch_campaign/").content.decode()
    make_leads(1, owner=me, device=devices[0])
    assert "will fail at once" in client.get(f"{LIST}{campaign.pk}/launch_campaign/").content.decode()


def test_several_are_launched_from_the_list_after_one_question() -> None:
    me = make_user(role="staff")
    good, bad = ready(me), make_campaign(owner=me, text="{{ broken", name="Broken one")
    client = signed_in(me)
    chosen = {"action": "launch_campaigns", "_selected_action": [str(good.pk), str(bad.pk)]}
    question = client.post(LIST, chosen).content.decode()
    assert "5 leads through 2 connected devices" in question
    assert not Run.objects.exists()
    answer = client.post(LIST, {**chosen, "confirmed": "yes"}, follow=True).content.decode()
    assert "“Raya greetings” was launched." in answer
    assert "“Broken one” was not launched." in answer
    assert Run.objects.get().campaign == good


# -- Runs --------------------------------------------------------------------------------------------------------------


def test_a_runs_page_follows_it_and_pauses_resumes_and_cancels() -> None:
    me = make_user(role="staff")
    run = launched(me)
    client = signed_in(me)
    text = client.get(f"{RUNS}{run.pk}/change/").content.decode()
    assert 'data-part="Pending">5<' in text
    assert f'data-poll="{RUNS}{run.pk}/progress/"' in text
    for what, after, words in (
        ("pause", "paused", "Resume"),
        ("resume", "running", "Pause"),
        ("cancel", "cancelled", None),
    ):
        assert "confirmed" in client.get(f"{RUNS}{run.pk}/{what}_run/").content.decode()
        client.post(f"{RUNS}{run.pk}/{what}_run/", {"confirmed": "yes"})
        assert run.batch is not None
        run.batch.refresh_from_db()
        assert run.batch.state == BatchState(after)
        news = client.get(f"{RUNS}{run.pk}/progress/").json()
        if words:
            assert words in news["html"]
    assert set(Message.objects.values_list("state", flat=True)) == {"cancelled"}
    services.tick(now=timezone.now())
    news = client.get(f"{RUNS}{run.pk}/progress/").json()
    assert news["done"] is True
    assert "5 cancelled" in news["html"]


def test_strangers_neither_see_nor_stop_a_run() -> None:
    run = launched(make_user(role="staff"))
    stranger = signed_in(make_user(role="staff"))
    assert stranger.get(f"{RUNS}{run.pk}/change/").status_code == 404
    assert stranger.get(f"{RUNS}{run.pk}/progress/").status_code == 404
    assert stranger.post(f"{RUNS}{run.pk}/cancel_run/", {"confirmed": "yes"}).status_code == 404
    run.refresh_from_db()
    assert run.state == RunState.TRIGGERED


@pytest.mark.django_db(transaction=True)  # a fan-out's scratch table lives as long as its transaction
def test_lists_cost_the_same_however_many_campaigns_and_runs(django_assert_max_num_queries: Any) -> None:
    boss = make_user(role="admin")
    pool, _devices = make_pool(owner=boss, devices=3)
    make_leads(3, owner=boss)
    for _ in range(30):
        campaign = make_campaign(owner=boss, pool=pool)
        run = services.launch(campaign=campaign, now=timezone.now()).run
        services.trigger(run_id=run.pk, now=timezone.now())
    client = signed_in(boss)
    for address in (LIST, RUNS):
        with django_assert_max_num_queries(12):
            text = client.get(address).content.decode()
        assert text.count("0 of 3") >= 30


def test_a_campaign_of_own_devices_counts_leads_without_one() -> None:
    me = make_user(role="staff")
    make_leads(2, owner=me, device=make_device(owner=me))
    make_leads(1, owner=me)
    campaign = make_campaign(owner=me)
    question = signed_in(me).get(f"{LIST}{campaign.pk}/launch_campaign/").content.decode()
    assert "1 without a device of their own" in question
    assert "Launch to 2 leads" in question


# -- Step by step ------------------------------------------------------------------------------------------------------


def test_a_draft_may_lack_its_text_and_nothing_else_is_let_through() -> None:
    me = make_user(role="staff")
    client = signed_in(me)
    answer = client.post(f"{LIST}add/", form_data(text="", _continue="1", guide_step="pace"))
    campaign = Campaign.objects.get()
    assert answer["Location"] == f"{LIST}{campaign.pk}/change/?guide_step=pace"
    assert services.check(campaign=campaign)
    answer = client.post(f"{LIST}{campaign.pk}/change/", form_data(text="", content_type="template", template="{"))
    assert set(answer.context["adminform"].form.errors) == {"template"}
    shown = {each.step.key: each.errors for each in answer.context["guide"]}
    assert shown == {"who": 0, "what": 1, "when": 0, "pace": 0, "check": 0}
    answer = client.post(f"{LIST}{campaign.pk}/change/", form_data(_guide_next="1"))
    assert answer["Location"] == f"{LIST}{campaign.pk}/launch_campaign/"
    Campaign.objects.filter(pk=campaign.pk).update(state="scheduled", schedule="cron", cron="0 9 * * MON")
    answer = client.post(f"{LIST}{campaign.pk}/change/", form_data(text="", schedule="cron", cron="0 9 * * MON"))
    assert "text" in answer.context["adminform"].form.errors  # what goes out by itself must be complete


def test_the_last_step_tells_what_a_launch_of_what_is_typed_would_do() -> None:
    me, other, boss = make_user(role="staff"), make_user(role="staff"), make_user(role="admin")
    make_leads(3, owner=me, device=make_device(owner=me), niches=["property"])
    campaign = make_campaign(owner=me)
    client, url = signed_in(me), f"{LIST}{campaign.pk}/check/"

    def asked(**changes: Any) -> tuple[str, set[str], bool]:
        told = client.post(url, form_data(**changes)).json()
        return strip_tags(told["html"]), {key for key, state in told["steps"].items() if state == "todo"}, told["ready"]

    text, lacking, is_ready = asked()
    assert "3 of 3 leads that match" in text
    assert (lacking, is_ready) == (set(), True)
    text, lacking, is_ready = asked(schedule="cron", cron="every monday", delay_max_seconds="1")
    assert (lacking, is_ready) == ({"when", "pace", "check"}, False)
    two = {"variants-TOTAL_FORMS": "2", "variants-0-name": "A", "variants-0-share": "50", "variants-0-text": "One",
           "variants-1-name": "B", "variants-1-share": "40", "variants-1-text": "Two"}  # fmt: skip
    text, lacking, _ = asked(**two)
    assert "make 90 percent" in text
    assert lacking == {"what", "check"}
    assert "A 50 %, B 50 %" in asked(**{**two, "variants-1-share": "50"})[0]
    assert campaign.variants.count() == 0
    campaign.refresh_from_db()
    assert campaign.schedule == "now"

    new = client.post(f"{LIST}check/", form_data(name="")).json()
    assert (new["steps"]["who"], new["ready"]) == ("todo", False)
    assert client.get(url).status_code == 405
    assert signed_in(other).post(url, form_data()).status_code == 404
    assert signed_in(make_user(role="team")).post(f"{LIST}check/", form_data()).status_code == 403
    # An admin sees whom the owner's campaign reaches, though the owner is no field of a stored one.
    page = signed_in(boss).get(f"{LIST}{campaign.pk}/change/").content.decode()
    (count,) = re.findall(r'data-count="([^"]+)"', page)
    assert "3 of 3" in signed_in(boss).post(count, form_data()).json()["text"]
