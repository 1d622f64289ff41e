"""What may be asked of campaigns: launch, pause, resume, cancel, clone; and the tick that looks after all of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import structlog
from django.db import transaction
from django.utils import timezone

from campaigns import answers, audiences, guarding, planning, running
from campaigns import checks as checking
from campaigns.audiences import Preview, audience_of
from campaigns.checks import CampaignNotReady, Problem
from campaigns.models import Campaign, Run, Schedule, Variant
from campaigns.running import cancel, fail, pause, progress, resume, retry_failed, trigger
from campaigns.states import CAMPAIGN_MOVES, LIVE, CampaignState, RunState, sources
from messaging.models import Batch, BatchState
from messaging.services import resume_batch

__all__ = [
    "ONCE",
    "CampaignNotReady",
    "Launch",
    "Preview",
    "Problem",
    "Started",
    "audience_of",
    "cancel",
    "cancel_campaign",
    "check",
    "clone",
    "fail",
    "launch",
    "pause",
    "pause_campaign",
    "preview",
    "progress",
    "resume",
    "resume_campaign",
    "retry_failed",
    "start",
    "tick",
    "trigger",
]

log = structlog.get_logger(__name__)

ONCE = "once"
"""Occurrence key of a one-off: fixed from the start, so that it cannot happen twice."""

CAMPAIGN_PAUSED = "Its campaign is paused."
"""Reason of the batches that a paused campaign stops: resuming it resumes these and no others."""

CLONED = (
    *("owner", "content_type", "text", "media", "template", "greeting", "on_missing"),
    *("status", "niches", "triggers", "lead_device", "segment", "routing", "pool", "limit_per_device"),
    *("delay_min_seconds", "delay_max_seconds", "expires_after_days"),
    *("pause_at_percent", "pause_window_minutes", "pause_min_calls"),
    *("schedule", "scheduled_at", "cron", "time_zone", "catch_up"),
)


@dataclass(frozen=True, slots=True)
class Launch:
    """What a launch came to: the run, and whether this call made it (a second click finds the first one's)."""

    run: Run
    created: bool


@dataclass(frozen=True, slots=True)
class Started:
    """What starting a campaign came to; a recurring one has no run yet."""

    run: Run | None
    created: bool


def start(*, campaign: Campaign, now: datetime) -> Started:
    """Launch a one-off, or let the tick watch a recurring campaign from now on. Raises CampaignNotReady."""
    if campaign.schedule != Schedule.CRON:
        launched = launch(campaign=campaign, now=now)
        return Started(launched.run, launched.created)
    if campaign.state == CampaignState.SCHEDULED:
        return Started(None, created=False)
    _refuse_unless_ready(campaign, now)
    drafts = Campaign.objects.filter(pk=campaign.pk, state__in=sources(CAMPAIGN_MOVES, "launch"))
    created = bool(drafts.update(state=CampaignState.SCHEDULED, launched_at=now, planned_until=now, next_at=None))
    if created:
        log.info("campaign.scheduled", campaign_id=campaign.pk)
    return Started(None, created)


def launch(*, campaign: Campaign, now: datetime) -> Launch:
    """Make a one-off's run, once, however often and from wherever it is called. Raises CampaignNotReady.

    The unique (campaign, occurrence) decides between callers; the run is triggered by the tick when its time has come,
    or right after the commit by whoever called. To run a one-off again, clone it.
    """
    if (run := Run.objects.filter(campaign=campaign, occurrence=ONCE).first()) is not None:
        return Launch(run, created=False)
    if campaign.schedule == Schedule.CRON:
        text = "This campaign runs again and again: schedule it instead."
        raise CampaignNotReady([Problem("schedule", "recurring", text)])
    _refuse_unless_ready(campaign, now)
    planned_at = campaign.scheduled_at if campaign.schedule == Schedule.AT else None
    with transaction.atomic():
        # Whoever cancels holds this row, so that no run appears behind their back.
        locked = Campaign.objects.select_for_update(no_key=True).get(pk=campaign.pk)
        run, created = Run.objects.get_or_create(
            campaign=campaign, occurrence=ONCE, defaults={"planned_at": planned_at or now}
        )
        if created and locked.state == CampaignState.CANCELLED:
            transaction.set_rollback(True)
            raise CampaignNotReady([Problem("state", "cancelled", "It has just been cancelled: clone it.")])
        if created:
            Campaign.objects.filter(pk=campaign.pk).update(state=CampaignState.SCHEDULED, launched_at=now)
            log.info("campaign.launched", campaign_id=campaign.pk, run_id=run.pk)
    return Launch(run, created)


def _refuse_unless_ready(campaign: Campaign, now: datetime) -> None:
    problems = checking.check(campaign=campaign, now=now)
    if problems:
        raise CampaignNotReady(problems)


def check(
    *, campaign: Campaign, now: datetime | None = None, variants: Sequence[Variant] | None = None
) -> list[Problem]:
    """Everything that stands in the way of a launch; with other ``variants`` than those that are stored."""
    return checking.check(campaign=campaign, now=now or timezone.now(), variants=variants)


def preview(campaign: Campaign, *, now: datetime | None = None) -> Preview:
    """Whom a launch would reach at ``now``, and who would be left out and why."""
    return audiences.preview(campaign, now=now or timezone.now())


# -- Pause, resume, cancel, clone --------------------------------------------------------------------------------------


def pause_campaign(campaign: Campaign) -> bool:
    """scheduled → paused: no new run, and those that go on send nothing more. Whether anything changed."""
    with transaction.atomic():
        if not _move(campaign, "pause", CampaignState.PAUSED):
            return False
        for run in campaign.runs.filter(state=RunState.TRIGGERED):
            running.pause(run, reason=CAMPAIGN_PAUSED)
    log.info("campaign.paused", campaign_id=campaign.pk)
    return True


def resume_campaign(campaign: Campaign, *, now: datetime) -> bool:
    """paused → scheduled: goes on with exactly what is left of the runs that it paused itself.

    Occurrences that passed meanwhile are gone; a run that was paused by hand, by errors or by bans stays so.
    """
    with transaction.atomic():
        if not _move(campaign, "resume", CampaignState.SCHEDULED, planned_until=now, next_at=None):
            return False
        for ids in running.batches_of(campaign.runs.filter(state=RunState.TRIGGERED)).values():
            stopped = Batch.objects.filter(pk__in=ids, state=BatchState.PAUSED, reason=CAMPAIGN_PAUSED)
            for batch_id in stopped.values_list("pk", flat=True):
                resume_batch(batch_id=batch_id)
    log.info("campaign.resumed", campaign_id=campaign.pk)
    return True


def cancel_campaign(campaign: Campaign, *, now: datetime) -> bool:
    """Any state → cancelled: no run any more, and nothing of those that go on is sent. Whether anything changed."""
    with transaction.atomic():
        moved = _move(campaign, "cancel", CampaignState.CANCELLED)
    if moved:
        log.info("campaign.cancelled", campaign_id=campaign.pk)
    # Each run in transactions of its own: a large one takes a while. Called again, it goes on with what is left.
    if moved or Campaign.objects.filter(pk=campaign.pk, state=CampaignState.CANCELLED).exists():
        for run in campaign.runs.filter(state__in=LIVE):
            moved = running.cancel(run, now=now) or moved
    return moved


def _move(campaign: Campaign, event: str, target: CampaignState, **more: object) -> bool:
    """The conditional UPDATE behind each move; takes the campaign's row before any run's."""
    found = Campaign.objects.filter(pk=campaign.pk, state__in=sources(CAMPAIGN_MOVES, event))
    moved = bool(found.update(state=target, **more))
    campaign.refresh_from_db()
    return moved


def clone(*, campaign: Campaign) -> Campaign:
    """A draft that is the same in everything but its name and runs: the way to run a one-off again."""
    with transaction.atomic():
        fields = {name: getattr(campaign, name) for name in CLONED}
        made = Campaign.objects.create(name=f"{campaign.name[:140]} (copy)", **fields)
        Variant.objects.bulk_create(
            Variant(campaign=made, name=variant.name, share=variant.share, text=variant.text)
            for variant in campaign.variants.all()
        )
    return made


# -- The tick ----------------------------------------------------------------------------------------------------------


def tick(*, now: datetime) -> int:
    """Plan, trigger, go on with what was interrupted, watch, finish; returns how many runs moved.

    Any number of ticks may run at once. A run that breaks is told in the log and does not stop the others.
    """
    planning.revive(now=now)
    planning.plan(now=now)
    moved = 0
    for run_id in running.due(now=now):
        try:
            running.trigger(run_id=run_id, now=now)
        except Exception:
            log.exception("run.trigger_broke", run_id=run_id)
        moved += 1
    moved += running.reopen(now=now)
    moved += running.finish_ended(now=now)
    moved += guarding.watch(now=now)
    answers.count_new(now=now)
    return moved
