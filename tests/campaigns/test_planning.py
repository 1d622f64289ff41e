"""The planning tick against the database: two schedulers, lost ticks, clocks that jump."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from random import Random

import pytest
import time_machine
from django.utils import timezone

from campaigns import planning, services
from campaigns.models import Campaign, CatchUp, Run, RunState, Schedule
from campaigns.schedules import between, key_of, zone_of
from campaigns.states import CAMPAIGN_MOVES, RUN_MOVES, CampaignState, sources
from tests.api_support import at_once
from tests.factories import make_campaign, make_leads, make_pool, make_user

BEGIN = datetime(2026, 3, 28, 0, 0, tzinfo=UTC)


def weekly(**fields) -> Campaign:
    defaults = {"schedule": Schedule.CRON, "cron": "30 2 * * *", "time_zone": "Europe/Berlin"}
    campaign = make_campaign(owner=make_user(), **{**defaults, **fields})
    services.start(campaign=campaign, now=timezone.now())
    campaign.refresh_from_db()
    return campaign


@pytest.mark.django_db(transaction=True)
def test_eight_schedulers_at_once_make_each_run_once():
    with time_machine.travel(BEGIN, tick=False):
        campaign = weekly(cron="*/5 * * * *")
    now = BEGIN + timedelta(minutes=14)
    at_once(8, lambda _: services.tick(now=now))
    services.tick(now=now)
    keys = list(Run.objects.order_by("planned_at").values_list("occurrence", flat=True))
    assert keys == ["2026-03-28T00:05:00Z", "2026-03-28T00:10:00Z"]
    assert Run.objects.filter(campaign=campaign).exclude(state=RunState.FINISHED).count() == 0  # nobody to write to


@pytest.mark.django_db
def test_weeks_of_ticks_with_outages_and_a_clock_that_jumps_make_every_occurrence_once(settings):
    settings.FLOTILLA_MISSED_AFTER_SECONDS = 900
    rng = Random(3)
    with time_machine.travel(BEGIN, tick=False) as clock:
        campaign = weekly()
        now = BEGIN
        while now < BEGIN + timedelta(days=21):
            now += timedelta(hours=rng.choice([0.02, 0.1, 0.2, 9]))
            clock.move_to(now)
            services.tick(now=now)
            if rng.random() < 0.1:  # for a moment the clock is wrong, by hours, either way
                wrong = now + timedelta(hours=rng.choice([-30, -2, 5, 30]))
                clock.move_to(wrong)
                services.tick(now=wrong)
    expected = {key_of(m) for m in between(campaign.cron, zone=zone_of("Europe/Berlin"), after=BEGIN, until=now)}
    runs = Run.objects.filter(campaign=campaign, planned_at__lte=now)
    assert set(runs.values_list("occurrence", flat=True)) == expected
    assert runs.count() == len(expected)
    assert set(runs.values_list("state", flat=True)) <= {RunState.FINISHED, RunState.MISSED}


@pytest.mark.django_db
def test_what_a_clock_that_ran_ahead_has_missed_is_due_again_at_its_own_time():
    with time_machine.travel(BEGIN, tick=False) as clock:
        weekly()
        ahead = BEGIN + timedelta(hours=9)
        clock.move_to(ahead)
        services.tick(now=ahead)
        run = Run.objects.get()
        assert (run.state, run.occurrence) == (RunState.MISSED, "2026-03-28T01:30:00Z")
        clock.move_to(run.planned_at - timedelta(minutes=1))
        services.tick(now=timezone.now())
        run.refresh_from_db()
        assert run.state == RunState.MISSED
        clock.move_to(run.planned_at + timedelta(seconds=2))
        services.tick(now=timezone.now())
        run.refresh_from_db()
        assert run.state == RunState.FINISHED
        assert Run.objects.count() == 1


@pytest.mark.django_db
@pytest.mark.parametrize(("catch_up", "states"), [(CatchUp.NONE, "missed missed"), (CatchUp.LATEST, "missed finished")])
def test_after_an_outage_the_policy_decides(catch_up, states):
    with time_machine.travel(BEGIN, tick=False):
        weekly(catch_up=catch_up)
    services.tick(now=BEGIN + timedelta(hours=36))
    assert " ".join(Run.objects.order_by("planned_at").values_list("state", flat=True)) == states


@pytest.mark.django_db
def test_a_new_schedule_is_planned_from_its_change_on_not_from_the_past():
    with time_machine.travel(BEGIN, tick=False) as clock:
        campaign = weekly(cron="0 9 * * *")
        services.tick(now=BEGIN)
        clock.move_to(BEGIN + timedelta(hours=5))
        campaign.cron = "50 4 * * *"  # 03:50 UTC that day has just gone by
        campaign.save()
        services.tick(now=timezone.now())
        assert Run.objects.count() == 0
        campaign.refresh_from_db()
        assert campaign.next_at == datetime(2026, 3, 29, 2, 50, tzinfo=UTC)


@pytest.mark.django_db
def test_a_paused_campaign_makes_no_run_and_resuming_goes_on_from_there():
    with time_machine.travel(BEGIN, tick=False):
        campaign = weekly()
    assert services.pause_campaign(campaign)
    assert not services.pause_campaign(campaign)
    services.tick(now=BEGIN + timedelta(hours=30))
    assert Run.objects.count() == 0
    assert services.resume_campaign(campaign, now=BEGIN + timedelta(hours=30))
    services.tick(now=BEGIN + timedelta(hours=30))
    assert Run.objects.count() == 0
    services.tick(now=datetime(2026, 3, 30, 0, 31, tzinfo=UTC))
    assert Run.objects.get().state == RunState.FINISHED


@pytest.mark.django_db
def test_words_tell_the_schedule_and_what_comes_next():
    campaign = make_campaign(owner=make_user(), schedule="cron", cron="0 9 * * MON", time_zone="Asia/Kuala_Lumpur")
    told = planning.words(campaign, now=datetime(2026, 12, 4, tzinfo=UTC))
    assert told == "every Monday 09:00 Asia/Kuala_Lumpur, next: Mon 7 Dec 2026 09:00"


@pytest.mark.django_db
def test_one_broken_schedule_stops_no_other():
    with time_machine.travel(BEGIN, tick=False):
        broken, good = weekly(), weekly()
        Campaign.objects.filter(pk=broken.pk).update(cron="nonsense")
    services.tick(now=BEGIN + timedelta(hours=2))
    assert list(Run.objects.values_list("campaign", flat=True)) == [good.pk]


@pytest.mark.django_db(transaction=True)
def test_a_launch_and_a_cancel_at_once_leave_nothing_behind():
    owner = make_user()
    pool, _ = make_pool(owner=owner, devices=1)
    make_leads(3, owner=owner)
    for _ in range(5):
        campaign = make_campaign(owner=owner, pool=pool)

        def act(index: int, campaign: Campaign = campaign) -> None:
            mine = Campaign.objects.get(pk=campaign.pk)
            if index:
                services.cancel_campaign(mine, now=timezone.now())
                return
            try:
                services.launch(campaign=mine, now=timezone.now())
            except services.CampaignNotReady:
                return
            services.tick(now=timezone.now())

        at_once(2, act)
        services.tick(now=timezone.now())
        campaign.refresh_from_db()
        assert campaign.state == CampaignState.CANCELLED
        assert not campaign.runs.filter(state__in=["pending", "triggered"]).exists()


def test_the_tables_of_moves_are_what_their_diagrams_say():
    assert {move.target for move in CAMPAIGN_MOVES} == {"scheduled", "paused", "cancelled"}
    assert "cancelled" not in {move.source for move in CAMPAIGN_MOVES}
    assert {move.source for move in RUN_MOVES} == {"pending", "triggered", "finished", "missed"}
    assert sources(RUN_MOVES, "finish") == ("triggered",)
    with pytest.raises(KeyError):
        sources(RUN_MOVES, "vanish")
