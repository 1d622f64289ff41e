"""The tick of recurring campaigns: due occurrences become runs, once each, however many ticks look at once.

The unique (campaign, occurrence) decides between schedulers; ``Campaign.planned_until`` only says from where to look,
so a tick that is late, doubled or lost changes nothing. An occurrence that is looked at within
``FLOTILLA_MISSED_AFTER_MINUTES`` becomes a pending run, a later one is recorded as missed, or made up for, where the
campaign says so. A clock that jumps ahead makes occurrences of the future come early or be missed; once it is set back,
those that were missed are due again at their own time, and those that ran do not run again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import takewhile

import structlog
from django.conf import settings
from django.db import transaction
from django.db.models import F, Q

from campaigns import schedules
from campaigns.models import Campaign, CatchUp, Run, Schedule
from campaigns.states import RUN_MOVES, CampaignState, RunState, sources

log = structlog.get_logger(__name__)

CAMPAIGNS_PER_TICK = 500
KEEP_MISSED = timedelta(days=31)
"""After a longer absence only the occurrences of this last part are recorded one by one."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What becomes of the occurrences that were due: those to run, and those that were missed."""

    run: tuple[datetime, ...]
    missed: tuple[datetime, ...]


def decide(due: Sequence[datetime], *, now: datetime, missed_after: timedelta, catch_up: str) -> Plan:
    """Sort due occurrences, oldest first. Pure."""
    on_time = [moment for moment in due if now - moment <= missed_after]
    late = list(due[: len(due) - len(on_time)])
    if late and not on_time and catch_up == CatchUp.LATEST:
        on_time = [late.pop()]
    return Plan(tuple(on_time), tuple(late))


def plan(*, now: datetime) -> int:
    """Write down the runs of every occurrence that is due; returns how many are to be triggered."""
    watched = Campaign.objects.filter(state=CampaignState.SCHEDULED, schedule=Schedule.CRON)  # index campaign_planned
    looked_at = watched.filter(Q(next_at__isnull=True) | Q(next_at__lte=now))
    made = 0
    for pk in looked_at.order_by(F("next_at").asc(nulls_first=True)).values_list("pk", flat=True)[:CAMPAIGNS_PER_TICK]:
        made += _plan_one(pk, now)
    return made


def _plan_one(campaign_id: int, now: datetime) -> int:
    with transaction.atomic():
        campaign = (
            Campaign.objects.select_for_update(skip_locked=True, no_key=True)
            .filter(pk=campaign_id, state=CampaignState.SCHEDULED, schedule=Schedule.CRON)
            .first()
        )
        if campaign is None:  # another scheduler has it, or a person was faster
            return 0
        since = max(campaign.planned_until or now, now - KEEP_MISSED)
        try:
            zone = schedules.zone_of(campaign.time_zone)
            coming = schedules.occurrences(campaign.cron, zone=zone, after=since)
            due = list(takewhile(lambda moment: moment <= now, coming))
            done_until = due[-1] if due else since
            following = schedules.following(campaign.cron, zone=zone, after=done_until)
        except schedules.ScheduleProblem as problem:  # saved past its own check: one such row must not stop the others
            log.warning("campaign.schedule_broken", campaign_id=campaign_id, problem=str(problem))
            Campaign.objects.filter(pk=campaign_id).update(next_at=now + timedelta(hours=1))
            return 0
        made = _write_down(campaign, due, now)
        next_at = following[0] if following else now + timedelta(days=365)
        Campaign.objects.filter(pk=campaign_id).update(planned_until=done_until, next_at=next_at)
    return made


def _write_down(campaign: Campaign, due: Sequence[datetime], now: datetime) -> int:
    if not due:
        return 0
    missed_after = timedelta(seconds=settings.FLOTILLA_MISSED_AFTER_SECONDS)
    decided = decide(due, now=now, missed_after=missed_after, catch_up=campaign.catch_up)
    rows = [_run(campaign, moment) for moment in decided.run]
    for moment in decided.missed:
        reason = "Nobody was there in time."
        rows.append(_run(campaign, moment, state=RunState.MISSED, reason=reason, finished_at=now))
    Run.objects.bulk_create(rows, ignore_conflicts=True, batch_size=1000)
    log.info("campaign.planned", campaign_id=campaign.pk, runs=len(decided.run), missed=len(decided.missed))
    return len(decided.run)


def _run(campaign: Campaign, moment: datetime, **more: object) -> Run:
    return Run(campaign=campaign, occurrence=schedules.key_of(moment), planned_at=moment, **more)


def revive(*, now: datetime) -> int:
    """Missed runs whose time has come only now, because the clock was set back: pending again. Returns how many."""
    since = now - timedelta(seconds=settings.FLOTILLA_MISSED_AFTER_SECONDS)
    missed = Run.objects.filter(  # index run_planned
        planned_at__gt=since,
        planned_at__lte=now,
        state__in=sources(RUN_MOVES, "revive"),
        triggered_at__isnull=True,
        campaign__state=CampaignState.SCHEDULED,
    )
    return missed.update(state=RunState.PENDING, reason="", finished_at=None)


def coming(campaign: Campaign, *, now: datetime, number: int = 3) -> list[datetime]:
    """The campaign's next moments, in UTC; none for a draft's “now”, for what is over, or cannot be read."""
    if campaign.state == CampaignState.CANCELLED:
        return []
    if campaign.schedule == Schedule.AT:
        return [campaign.scheduled_at] if campaign.scheduled_at and campaign.scheduled_at > now else []
    if campaign.schedule != Schedule.CRON:
        return []
    try:
        zone = schedules.zone_of(campaign.time_zone)
        return schedules.following(campaign.cron, zone=zone, after=now, number=number)
    except schedules.ScheduleProblem:
        return []


def words(campaign: Campaign, *, now: datetime) -> str:
    """The schedule for people: “every Monday 09:00 Asia/Kuala_Lumpur, next: Mon 7 Dec 2026 09:00”."""
    if campaign.schedule == Schedule.NOW:
        return "as soon as it is launched"
    try:
        zone = schedules.zone_of(campaign.time_zone)
        if campaign.schedule == Schedule.AT:
            at = campaign.scheduled_at
            return (
                f"once, {schedules.moment_words(at, zone=zone)} {zone.key}" if at else "once, at a time still to be set"
            )
        schedules.check(campaign.cron, zone=campaign.time_zone, now=now)
    except schedules.ScheduleProblem as problem:
        return str(problem)
    told = schedules.in_words(campaign.cron, zone=campaign.time_zone)
    following = coming(campaign, now=now, number=1)
    return f"{told}, next: {schedules.moment_words(following[0], zone=zone)}" if following else told
