"""How campaigns, runs and their questions are worded in the admin."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db.models import Exists, OuterRef, Q
from django.db.models.expressions import Combinable
from django.utils import timezone

from campaigns import loads, planning, services
from campaigns.models import Campaign, CampaignState, Routing, Run, RunState, Schedule, Variant
from devices.admin_pages import Question, change_url
from messaging.models import BatchState

CAMPAIGN_COLOURS = {
    CampaignState.DRAFT: "default",
    CampaignState.SCHEDULED: "success",
    CampaignState.PAUSED: "warning",
    CampaignState.CANCELLED: "danger",
}
RUN_COLOURS = {
    RunState.PENDING: "info",
    RunState.TRIGGERED: "info",
    RunState.FINISHED: "success",
    RunState.FAILED: "danger",
    RunState.MISSED: "warning",
}
LAUNCHED = "Launched"
LEFT_OUT_WORDS = {
    "opted_out": "opted out",
    "in_review": "held for review",
    "no_consent": "without recorded consent",
    "no_device": "without a device of their own",
}


def campaign_words(campaign: Campaign, *, run: Run | None, now: datetime) -> tuple[str, str]:
    """A campaign's state for people, and its colour; ``run`` is its last one.

    What is stored as scheduled stays so for good. Of a one-off whose time has come there is nothing left to watch, and
    people want to hear that it is gone.
    """
    state = CampaignState(campaign.state)
    if state == CampaignState.SCHEDULED and campaign.schedule != Schedule.CRON and run is not None:
        if run.state == RunState.MISSED:
            return str(run.get_state_display()), RUN_COLOURS[RunState.MISSED]
        if run.state != RunState.PENDING or run.planned_at <= now:
            return LAUNCHED, "info"
    return str(state.label), CAMPAIGN_COLOURS[state]


def launched(*, now: datetime) -> Combinable | Q:
    """Campaigns that :func:`campaign_words` calls launched (or missed)."""
    begun = Run.objects.filter(campaign=OuterRef("pk")).exclude(state=RunState.PENDING, planned_at__gt=now)
    return Q(state=CampaignState.SCHEDULED) & ~Q(schedule=Schedule.CRON) & Exists(begun)


def state_words(run: Run) -> str:
    """A run's state for people: a paused batch is what they see of a triggered run."""
    if run.state == RunState.TRIGGERED and run.batch is not None and run.batch.state == BatchState.PAUSED:
        return "Paused"
    names = {RunState.PENDING: "Starting", RunState.TRIGGERED: "Sending"}
    return names.get(RunState(run.state), str(run.get_state_display()))


def left_out_words(left_out: Mapping[str, int]) -> str:
    """Left-out leads by reason, in words."""
    return ", ".join(f"{number:,} {LEFT_OUT_WORDS.get(reason, reason)}" for reason, number in left_out.items())


def problems_of(error: services.CampaignNotReady) -> list[str]:
    """What stands in the way, sentence by sentence, with the field's name where there is one."""
    return [
        f"{problem.field.replace('_', ' ').capitalize()}: {problem.text}"
        if problem.field and problem.field != "__all__"
        else problem.text
        for problem in error.problems
    ]


def launch_question(campaign: Campaign) -> Question:
    """What a launch will do: whom it reaches, through how many devices, how fast."""
    back = change_url(campaign)
    problems = services.check(campaign=campaign)
    if problems:
        return Question(
            title=f"“{campaign}” cannot be launched yet",
            text="This has to be mended first.",
            button="",
            back=back,
            warnings=tuple(problems_of(services.CampaignNotReady(problems))),
        )
    run = campaign.runs.order_by("-id").first()
    if run is not None:
        return Question(
            title=f"“{campaign}” was launched already",
            text="It runs once. Clone it to send it again.",
            button="Open its run",
            back=back,
        )
    seen = services.preview(campaign)
    found = outlook(campaign, variants=list(campaign.variants.all()), seen=seen, now=timezone.now())
    return Question(
        title=f"Launch “{campaign}”?",
        text=_launch_text(campaign),
        button=f"Launch to {seen.eligible:,} {'lead' if seen.eligible == 1 else 'leads'}",
        back=back,
        facts=(*found.facts, ("Text", campaign.text)),
        warnings=found.warnings,
    )


@dataclass(frozen=True, slots=True)
class Outlook:
    """What a launch would come to: labelled facts, and sentences to think about first."""

    facts: tuple[tuple[str, str], ...]
    warnings: tuple[str, ...]


def outlook(campaign: Campaign, *, variants: Sequence[Variant], seen: services.Preview, now: datetime) -> Outlook:
    """Whom a launch of ``campaign``, stored or not, reaches, through how many devices, how fast and until when."""
    end = loads.before(campaign, now=now).finish_at if seen.eligible and seen.devices else None
    routing = f"turn by turn over {campaign.pool}" if campaign.routing == Routing.POOLED else "each lead's own device"
    shares = ", ".join(f"{variant} {variant.share} %" for variant in variants)
    facts = (
        ("Will be written to", f"{seen.eligible:,} of {seen.total:,} leads that match"),
        ("Left out", left_out_words(seen.left_out) or "Nobody"),
        ("Sent by", f"{routing}, {seen.devices:,} connected"),
        ("Pause between two messages of a device", rhythm_words(campaign)),
        ("When", planning.words(campaign, now=now)),
        ("Estimated to end, if launched now", f"{timezone.localtime(end):%Y-%m-%d %H:%M}" if end else "–"),
        ("Not sent after", f"{campaign.expires_after_days} days"),
        *((("Variants", shares),) if shares else ()),
    )
    return Outlook(facts, tuple(_warnings(campaign, seen=seen, end=end, now=now)))


def _warnings(campaign: Campaign, *, seen: services.Preview, end: datetime | None, now: datetime) -> Iterator[str]:
    if not seen.eligible:
        yield "Nobody would be written to: the run will finish at once."
    elif not seen.devices:
        yield "No device that would send this is connected: the run will fail at once."
    if seen.without_consent and seen.waiver:
        yield (
            f"{seen.without_consent:,} of them have no recorded consent and are written to because"
            f" {seen.waiver.made_by} waived it: {seen.waiver.reason}"
        )
    if seen.excluded:
        yield f"{seen.excluded:,} connected devices of the pool have been failing and sit it out."
    if seen.unassigned:
        yield f"{seen.unassigned:,} leads are beyond the limit per device and stay unassigned."
    if end is not None and end > now + timedelta(days=campaign.expires_after_days):
        yield f"It is estimated to end {end:%Y-%m-%d %H:%M} UTC, after its messages expire."


def _launch_text(campaign: Campaign) -> str:
    match campaign.schedule:
        case Schedule.CRON:
            return "From now on it runs by its schedule, each occurrence once."
        case Schedule.AT:
            return "It waits for its time, and runs once."
        case _:
            made = "Messages are made at once and sent in the rhythm of the devices."
            return f"{made} However often you click, it runs once."


def launch_many_question(campaigns: Sequence[Campaign], *, back: str) -> Question:
    """The same for several at once: one line each."""
    facts = []
    for campaign in campaigns:
        problems = services.check(campaign=campaign)
        if problems:
            facts.append((str(campaign), " ".join(problems_of(services.CampaignNotReady(problems)))))
        elif campaign.runs.exists():
            facts.append((str(campaign), "Launched already; nothing happens."))
        else:
            seen = services.preview(campaign)
            left_out = f"; left out: {left_out_words(seen.left_out)}" if seen.left_out else ""
            words = f"{seen.eligible:,} leads through {seen.devices:,} connected devices{left_out}"
            facts.append((str(campaign), words))
    return Question(
        title=f"Launch {len(campaigns):,} campaigns?",
        text="Each runs once. Those that cannot be launched are left alone, and the reason is shown.",
        button="Launch",
        back=back,
        facts=tuple(facts),
        hidden=(("action", "launch_campaigns"), *(("_selected_action", str(campaign.pk)) for campaign in campaigns)),
    )


def rhythm_words(campaign: Campaign) -> str:
    """The campaign's own rhythm; a device's may be slower."""
    low, high = campaign.delay_min_seconds, campaign.delay_max_seconds
    return f"{low:g} s" if low == high else f"{low:g} to {high:g} s"
