"""Launching campaigns and looking after their runs."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta

import structlog
from django.core.exceptions import ValidationError
from django.db import transaction
from django.utils import timezone

from campaigns.models import Campaign, CampaignState, Routing, Run, RunState, Schedule
from devices.models import Device
from leads.audience import Audience
from leads.consent import waiver_for
from leads.models import ConsentWaiver
from leads.rules import Rules
from leads.segments import rules_of
from messaging import fanout
from messaging import services as messaging
from messaging.models import Batch, BatchState

log = structlog.get_logger(__name__)

ONCE = "once"
"""Occurrence key of a one-off: fixed from the start, so that it cannot happen twice."""


@dataclass(frozen=True, slots=True)
class Problem:
    """Something to mend before a launch."""

    field: str
    code: str
    text: str


class CampaignNotReady(Exception):  # noqa: N818 - reads as a fact
    """A campaign that cannot be launched, with every reason."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__("; ".join(problem.text for problem in problems))
        self.problems = problems


@dataclass(frozen=True, slots=True)
class Launch:
    """What a launch came to: the run, and whether this call made it (a second click finds the first one's)."""

    run: Run
    created: bool


@dataclass(frozen=True, slots=True)
class Preview:
    """Whom a launch would reach."""

    total: int
    eligible: int
    devices: int
    left_out: dict[str, int] = field(default_factory=dict)
    without_consent: int = 0
    """How many of the eligible have no recorded consent, and are in because of an admin's waiver alone."""
    waiver: ConsentWaiver | None = None


def launch(*, campaign: Campaign, now: datetime) -> Launch:
    """Make the campaign's run, once, however often and from wherever it is called. Raises CampaignNotReady.

    The unique (campaign, occurrence) decides between callers; the run is triggered by the tick, or right after the
    commit by whoever called. To run a one-off again, clone it.
    """
    problems = check(campaign=campaign)
    if problems:
        raise CampaignNotReady(problems)
    with transaction.atomic():
        run, created = Run.objects.get_or_create(campaign=campaign, occurrence=ONCE, defaults={"planned_at": now})
        if created:
            Campaign.objects.filter(pk=campaign.pk).update(state=CampaignState.SCHEDULED, launched_at=now)
            log.info("campaign.launched", campaign_id=campaign.pk, run_id=run.pk)
    return Launch(run, created)


def check(*, campaign: Campaign) -> list[Problem]:
    """Everything that stands in the way of a launch."""
    problems = []
    try:
        campaign.full_clean(exclude=["owner", "lead_device", "segment"])
    except ValidationError as error:
        problems = [Problem(name, "invalid", text) for name, texts in error.message_dict.items() for text in texts]
    if campaign.state == CampaignState.CANCELLED:
        problems.append(Problem("state", "cancelled", "This campaign was cancelled: clone it to run it again."))
    if campaign.schedule != Schedule.NOW:
        problems.append(Problem("schedule", "not_manual", "This campaign runs by its schedule."))
    return problems


def preview(campaign: Campaign, *, now: datetime | None = None) -> Preview:
    """Whom a launch would reach at ``now``, and who would be left out and why."""
    audience = audience_of(campaign, now=now or timezone.now())
    left_out = audience.left_out()
    reachable = audience.reachable()
    eligible = reachable.count()
    if campaign.routing == Routing.OWN:
        homeless = reachable.filter(device__isnull=True).count()
        if homeless:
            left_out["no_device"] = homeless
            eligible -= homeless
    waiver = waiver_for(campaign.owner_id)
    return Preview(
        total=audience.leads().count(),
        eligible=eligible,
        devices=len(_devices(campaign, audience)),
        left_out=left_out,
        without_consent=audience.without_consent() if waiver else 0,
        waiver=waiver,
    )


def audience_of(campaign: Campaign, *, now: datetime) -> Audience:
    """The campaign's audience as it stands at ``now``; what its segment asks is part of it from here on."""
    return Audience(
        owner_id=campaign.owner_id,
        status=campaign.status,
        niches=tuple(campaign.niches),
        triggers=tuple(campaign.triggers),
        device_id=campaign.lead_device_id,
        rules=rules_of(segment=campaign.segment, now=now) if campaign.segment else Rules(),
    )


def trigger(*, run_id: int, now: datetime) -> Run:
    """pending → triggered → filled. Safe to call any number of times at once, and again after a crash."""
    run = Run.objects.select_related("campaign__owner", "campaign__segment").get(pk=run_id)
    if run.state == RunState.PENDING:
        _start(run, now)
        run.refresh_from_db()
    if run.state == RunState.TRIGGERED and run.batch is not None and run.batch.filled_at is None:
        audience = Audience.from_json(run.audience)
        devices = _devices(run.campaign, audience) if run.campaign.routing == Routing.POOLED else []
        try:
            made = fanout.fill(batch_id=run.batch.pk, leads=audience.reachable(), devices=devices)
        except fanout.FanOutBusy:
            return run
        log.info("run.filled", run_id=run.pk, messages=made)
    return run


def _start(run: Run, now: datetime) -> None:
    """Decide, on the state pending and in one transaction, what becomes of the run."""
    campaign = run.campaign
    audience = audience_of(campaign, now=now)
    with transaction.atomic():
        if not Run.objects.select_for_update().filter(pk=run.pk, state=RunState.PENDING).exists():
            return
        seen = preview(campaign, now=now)
        run.left_out, run.audience, run.triggered_at = seen.left_out, audience.to_json(), now
        if not audience.reachable().exists():
            run.state, run.finished_at = RunState.FINISHED, now
            run.reason = "Every lead that matches was left out." if seen.total else "No lead matches."
        elif not seen.devices:
            run.state, run.finished_at = RunState.FAILED, now
            run.reason = "No device is connected."
        else:
            run.state = RunState.TRIGGERED
            run.batch = messaging.open_batch(
                owner=campaign.owner,
                name=str(campaign),
                origin=f"run-{run.pk}",
                content={"type": "text", "text": campaign.text},
                now=now,
                delay_min_seconds=campaign.delay_min_seconds,
                delay_max_seconds=campaign.delay_max_seconds,
                failover=campaign.routing == Routing.POOLED,
                expires_after=timedelta(days=campaign.expires_after_days),
            )
        run.save()
        log.info("run.started", run_id=run.pk, state=run.state, reason=run.reason)


def _devices(campaign: Campaign, audience: Audience) -> list[int]:
    """Connected devices that would send this campaign."""
    able = Device.objects.filter(owner_id=campaign.owner_id).able()
    if campaign.routing == Routing.POOLED:
        return list(able.filter(pool_id=campaign.pool_id).order_by("pk").values_list("pk", flat=True))
    return list(
        able.filter(pk__in=audience.reachable().filter(device__isnull=False).values("device_id").distinct())
        .order_by("pk")
        .values_list("pk", flat=True)
    )


def tick(*, now: datetime) -> int:
    """Trigger what is pending, go on with what was interrupted, finish what is done; returns how many runs moved."""
    moved = 0
    live = Run.objects.filter(state__in=[RunState.PENDING, RunState.TRIGGERED]).order_by("pk")
    for run_id in live.filter(planned_at__lte=now, batch__filled_at__isnull=True).values_list("pk", flat=True)[:100]:
        trigger(run_id=run_id, now=now)
        moved += 1
    ended = live.filter(batch__state__in=[BatchState.FINISHED, BatchState.FAILED, BatchState.CANCELLED])
    for run in ended.select_related("batch")[:1000]:
        batch = run.batch
        assert batch is not None  # noqa: S101 - by the filter above
        failed = batch.state == BatchState.FAILED
        moved += Run.objects.filter(pk=run.pk, state=RunState.TRIGGERED).update(
            state=RunState.FAILED if failed else RunState.FINISHED,
            reason="Cancelled." if batch.state == BatchState.CANCELLED else batch.reason,
            finished_at=batch.finished_at or now,
        )
    return moved


def progress(run: Run) -> messaging.Counts:
    """How far a run is."""
    return messaging.counts_of([run.batch_id])[run.batch_id] if run.batch_id else messaging.Counts()


def pause(run: Run) -> bool:
    """Stop claims of this run's messages. Whether anything changed."""
    return run.batch_id is not None and messaging.pause_batch(batch_id=run.batch_id)


def resume(run: Run) -> bool:
    """Go on with what is left. Whether anything changed."""
    return run.batch_id is not None and messaging.resume_batch(batch_id=run.batch_id)


def cancel(run: Run, *, now: datetime) -> bool:
    """End the run and cancel what has not been sent. Whether anything changed."""
    if run.batch_id is not None:
        return messaging.end_batch(
            batch_id=run.batch_id, state=BatchState.CANCELLED, now=now, reason="The run was cancelled."
        )
    return bool(
        Run.objects.filter(pk=run.pk, state=RunState.PENDING).update(
            state=RunState.FINISHED, reason="Cancelled.", finished_at=now
        )
    )


def batch_of(run: Run) -> Batch | None:
    """The run's batch, once it was triggered."""
    return run.batch
