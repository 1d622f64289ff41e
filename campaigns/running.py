"""A run's life: triggered, filled, finished or failed, paused and resumed. :mod:`campaigns.states` has the diagram.

Lock order: campaign → run → batch. What a run sends may be several batches, one per variant; whatever is done to the
run is done to all of them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields
from datetime import datetime, timedelta

import structlog
from django.conf import settings
from django.db import transaction
from django.db.models import Q, QuerySet

from campaigns import routing, variants
from campaigns.audiences import Preview, audience_of, preview
from campaigns.models import Campaign, CatchUp, Routing, Run, RunVariant, Schedule
from campaigns.states import LIVE, RUN_MOVES, CampaignState, RunState, sources
from leads.audience import Audience
from leads.models import Lead
from messaging import fanout, retrying
from messaging import services as messaging
from messaging.models import Batch, BatchState

log = structlog.get_logger(__name__)

ENDED = (BatchState.FINISHED, BatchState.FAILED, BatchState.CANCELLED)
GOING = (BatchState.RUNNING, BatchState.PAUSED)
RETRY_ROUNDS = 20


def trigger(*, run_id: int, now: datetime) -> Run:
    """pending → triggered → filled. Safe to call any number of times at once, and again after a crash."""
    run = Run.objects.select_related("campaign__owner", "campaign__segment", "campaign__pool").get(pk=run_id)
    if run.state == RunState.PENDING:
        _start(run, now)
        run.refresh_from_db()
    if run.state == RunState.TRIGGERED and run.assigned_at is None:
        _fill(run, now)
        run.refresh_from_db()
    return run


def is_late(run: Run, *, now: datetime) -> bool:
    """Whether nobody was there in time. What a person launched by hand waits for however long it takes."""
    late = now - run.planned_at > timedelta(seconds=settings.FLOTILLA_MISSED_AFTER_SECONDS)
    return late and run.campaign.schedule != Schedule.NOW and run.campaign.catch_up == CatchUp.NONE


def _start(run: Run, now: datetime) -> None:
    """Decide, on the state pending and in one transaction, what becomes of the run.

    The audience is counted before the locks are taken, so that nobody who wants to pause the campaign waits for it.
    """
    campaign = run.campaign
    audience = audience_of(campaign, now=now)
    senders = routing.senders(campaign=campaign, audience=audience, now=now)
    seen, anybody = preview(campaign, now=now), audience.reachable().exists()
    with transaction.atomic():
        watched = Campaign.objects.select_for_update(no_key=True).filter(pk=campaign.pk, state=CampaignState.SCHEDULED)
        pending = Run.objects.select_for_update().filter(pk=run.pk, state__in=sources(RUN_MOVES, "trigger"))
        if not watched.exists() or not pending.exists():
            return
        run.left_out, run.audience, run.triggered_at = seen.left_out, audience.to_json(), now
        if is_late(run, now=now):
            _end(run, RunState.MISSED, _missed_words(run, now), now)
        elif not anybody:
            reason = "Every lead that matches was left out." if seen.total else "No lead matches."
            _end(run, RunState.FINISHED, reason, now)
        elif not senders.devices:
            _end(run, RunState.FAILED, "No device is connected.", now)
        else:
            run.state, run.device_ids = RunState.TRIGGERED, list(senders.devices)
            _open_batches(run, now, seen)
        run.save()
        log.info("run.started", run_id=run.pk, state=run.state, reason=run.reason)


def _end(run: Run, state: RunState, reason: str, now: datetime) -> None:
    run.state, run.reason, run.finished_at = state, reason, now


def _missed_words(run: Run, now: datetime) -> str:
    minutes = int((now - run.planned_at).total_seconds() // 60)
    return f"Nobody was there in time: it was looked at {minutes:,} minutes late."


def _open_batches(run: Run, now: datetime, seen: Preview) -> None:
    """One batch, or one per variant. A second call finds the first one's by their origin."""
    campaign = run.campaign
    tried = list(campaign.variants.all())
    if not tried:
        run.batch = _open(campaign, text=campaign.text, origin=f"run-{run.pk}", name=str(campaign), now=now)
        return
    for variant, (lower, upper) in zip(tried, variants.ranges([v.share for v in tried]), strict=True):
        batch = _open(
            campaign,
            text=variant.text if variant.text.strip() else campaign.text,
            origin=f"run-{run.pk}-{variant.pk}",
            name=f"{campaign}: {variant}",
            now=now,
        )
        RunVariant.objects.get_or_create(
            run=run, name=variant.name, defaults={"lower": lower, "upper": upper, "batch": batch}
        )
        run.batch = run.batch or batch
    log.info("run.split", run_id=run.pk, variants=len(tried), eligible=seen.eligible)


def _open(campaign: Campaign, *, text: str, origin: str, name: str, now: datetime) -> Batch:
    return messaging.open_batch(
        owner=campaign.owner,
        name=name[:200],
        origin=origin,
        content=campaign.content(text=text),
        now=now,
        delay_min_seconds=campaign.delay_min_seconds,
        delay_max_seconds=campaign.delay_max_seconds,
        failover=campaign.routing == Routing.POOLED,
        expires_after=timedelta(days=campaign.expires_after_days),
    )


# -- Filling -----------------------------------------------------------------------------------------------------------


def _fill(run: Run, now: datetime) -> None:
    """Make the messages and set aside whom no device takes; whoever is interrupted leaves the rest to the tick."""
    for batch, leads, limit in _parts(run):
        if batch.filled_at is None:
            devices = routing.still_there(run.device_ids) if run.campaign.routing == Routing.POOLED else []
            if run.campaign.routing == Routing.POOLED and not devices:  # without any, each lead would get its own
                fail(run, reason="Every device of the pool was deleted before its messages were made.", now=now)
                return
            try:
                made = fanout.fill(batch_id=batch.pk, leads=leads, devices=devices, limit=limit)
            except fanout.FanOutBusy:
                return
            log.info("run.filled", run_id=run.pk, batch_id=batch.pk, messages=made)
        ended = Batch.objects.filter(pk=batch.pk, state__in=[BatchState.CANCELLED, BatchState.FAILED]).exists()
        if not ended and (run.campaign.routing == Routing.OWN or limit is not None):
            routing.set_aside(run=run, batch=batch, leads=leads)
    Run.objects.filter(pk=run.pk, state=RunState.TRIGGERED, assigned_at__isnull=True).update(assigned_at=now)


def _parts(run: Run) -> list[tuple[Batch, QuerySet[Lead], int | None]]:
    """Each batch with its leads and how many of them a device takes."""
    reachable = Audience.from_json(run.audience).reachable()
    limit = run.campaign.limit_per_device if run.campaign.routing == Routing.POOLED else None
    split = list(run.variants.select_related("batch").order_by("lower"))
    if not split:
        return [(run.batch, reachable, limit)] if run.batch is not None else []
    shares = [(part.upper - part.lower) // (variants.BUCKETS // 100) for part in split]
    limits: list[int | None] = [*variants.split_limit(limit, shares=shares)] if limit else [None] * len(split)
    campaign_id = run.campaign_id
    return [
        (
            part.batch,
            variants.within(reachable, campaign_id=campaign_id, lower=part.lower, upper=part.upper),
            most,
        )
        for part, most in zip(split, limits, strict=True)
    ]


# -- The batches of runs -----------------------------------------------------------------------------------------------


def batches_of(runs: Iterable[Run]) -> dict[int, list[int]]:
    """Ids of the batches of each run, by the run's id; one query."""
    found = {run.pk: [run.batch_id] if run.batch_id is not None else [] for run in runs}
    parts = RunVariant.objects.filter(run__in=list(found)).order_by("lower")
    for run_id, batch_id in parts.values_list("run_id", "batch_id"):
        if batch_id not in found[run_id]:
            found[run_id].append(batch_id)
    return found


def progress_of(runs: Iterable[Run]) -> dict[int, messaging.Counts]:
    """Counts of each run, all its batches together, by the run's id; three queries whatever their number."""
    batches = batches_of(runs)
    counts = messaging.counts_of({batch_id for ids in batches.values() for batch_id in ids})
    return {run_id: total_of([counts[batch_id] for batch_id in ids]) for run_id, ids in batches.items()}


def progress(run: Run) -> messaging.Counts:
    """How far a run is."""
    return progress_of([run])[run.pk]


def total_of(counts: Iterable[messaging.Counts]) -> messaging.Counts:
    """The sum of several batches' counts."""
    found = list(counts)
    names = [each.name for each in fields(messaging.Counts)]
    return messaging.Counts(**{name: sum(getattr(count, name) for count in found) for name in names})


# -- Pause, resume, end ------------------------------------------------------------------------------------------------


def pause(run: Run, *, reason: str = "") -> bool:
    """Stop claims of this run's messages, all its batches. Whether anything changed."""
    with transaction.atomic():
        moved = [messaging.pause_batch(batch_id=pk, reason=reason) for pk in batches_of([run])[run.pk]]
    return any(moved)


def resume(run: Run, *, now: datetime | None = None) -> bool:
    """Go on with exactly what is left; what failed before no longer counts. Whether anything changed."""
    with transaction.atomic():
        if now is not None:
            Run.objects.filter(pk=run.pk).update(resumed_at=now)
        moved = [messaging.resume_batch(batch_id=pk) for pk in batches_of([run])[run.pk]]
    return any(moved)


def cancel(run: Run, *, now: datetime) -> bool:
    """End the run and cancel what has not been sent. Whether anything changed."""
    if run.batch_id is None:
        pending = Run.objects.filter(pk=run.pk, state__in=sources(RUN_MOVES, "cancel"))
        if pending.update(state=RunState.FINISHED, reason="Cancelled.", finished_at=now):
            return True
        run.refresh_from_db()  # it was triggered in between
    return _end_batches(run, BatchState.CANCELLED, "The run was cancelled.", now)


def fail(run: Run, *, reason: str, now: datetime) -> bool:
    """End the run as failed: every unsent message fails with the reason. Whether anything changed."""
    live = Run.objects.filter(pk=run.pk, state__in=sources(RUN_MOVES, "fail"))
    moved = bool(live.update(state=RunState.FAILED, reason=reason[:300], finished_at=now))
    if moved:
        log.error("run.failed", run_id=run.pk, reason=reason)
        run.refresh_from_db()
    return _end_batches(run, BatchState.FAILED, reason, now) or moved


def _end_batches(run: Run, state: BatchState, reason: str, now: datetime) -> bool:
    ids = batches_of([run])[run.pk]
    ended = [messaging.end_batch(batch_id=pk, state=state, now=now, reason=reason[:300]) for pk in ids]
    return any(ended)


def retry_failed(run: Run, *, now: datetime, device_id: int | None = None) -> retrying.Retried:
    """A new round for what failed, of one device if given, and may be tried again; the run goes on with it."""
    retried, left_alone = 0, dict[str, int]()
    for batch_id in batches_of([run])[run.pk]:
        ids = retrying.failed_of_batch(batch_id, device_id=device_id)
        done = retrying.retry_failed(message_ids=ids, now=now)
        retried += done.retried
        for reason, number in done.left_alone.items():
            left_alone[reason] = left_alone.get(reason, 0) + number
    if retried:
        reopen(now=now, run_ids=[run.pk])
    return retrying.Retried(retried, left_alone)


# -- The tick's steps --------------------------------------------------------------------------------------------------


def finish_ended(*, now: datetime) -> int:
    """Finish, or fail, the runs whose batches have ended; returns how many."""
    filled = Q(assigned_at__isnull=False) | ~Q(batch__state=BatchState.FINISHED)
    ended = Run.objects.filter(state=RunState.TRIGGERED, batch__state__in=ENDED).filter(filled)
    failed = Run.objects.filter(state=RunState.TRIGGERED, variants__batch__state=BatchState.FAILED)
    moved = 0
    for run in [*ended.select_related("batch").order_by("pk")[:1000], *failed.select_related("batch").distinct()[:100]]:
        moved += _finish(run, now)
    return moved


def _finish(run: Run, now: datetime) -> int:
    batches = list(Batch.objects.filter(pk__in=batches_of([run])[run.pk]).defer("content").order_by("pk"))
    failed = [batch for batch in batches if batch.state == BatchState.FAILED]
    if failed:
        return int(fail(run, reason=failed[0].reason, now=now))
    if any(batch.state in GOING for batch in batches):
        return 0
    cancelled = all(batch.state == BatchState.CANCELLED for batch in batches)
    reason = "Cancelled." if cancelled else next((batch.reason for batch in batches if batch.reason), "")
    finished_at = max((batch.finished_at for batch in batches if batch.finished_at), default=now)
    triggered = Run.objects.filter(pk=run.pk, state__in=sources(RUN_MOVES, "finish"))
    return triggered.update(state=RunState.FINISHED, reason=reason, finished_at=finished_at)


def reopen(*, now: datetime, run_ids: list[int] | None = None) -> int:
    """Finished runs of which something is sent again: triggered again. Returns how many."""
    going = Batch.objects.filter(state__in=GOING)
    ids = set(going.filter(run__state=RunState.FINISHED).values_list("run", flat=True))
    ids |= set(going.filter(run_variant__run__state=RunState.FINISHED).values_list("run_variant__run", flat=True))
    if run_ids is not None:
        ids &= set(run_ids)
    finished = Run.objects.filter(pk__in=ids, state__in=sources(RUN_MOVES, "reopen"))
    return finished.update(state=RunState.TRIGGERED, finished_at=None, reason="", watched_at=now)


def due(*, now: datetime) -> list[int]:
    """Ids of runs to trigger, or to go on with where somebody was interrupted."""
    waiting = Q(state=RunState.PENDING, campaign__state=CampaignState.SCHEDULED)
    interrupted = Q(state=RunState.TRIGGERED, assigned_at__isnull=True)
    found = Run.objects.filter(waiting | interrupted, state__in=LIVE, planned_at__lte=now)
    return list(found.order_by("pk").values_list("pk", flat=True)[:100])
