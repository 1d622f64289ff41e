"""What stands in the way of a launch, and what a person should know before it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from django.core.exceptions import ValidationError

from campaigns.models import Campaign, Routing, Schedule
from campaigns.states import CampaignState


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


def check(*, campaign: Campaign, now: datetime) -> list[Problem]:
    """Everything that stands in the way of a launch at ``now``."""
    problems: list[Problem] = []
    try:
        campaign.full_clean(exclude=["owner", "lead_device", "segment"])
    except ValidationError as error:
        problems = [Problem(name, "invalid", text) for name, texts in error.message_dict.items() for text in texts]
    problems += _variants(campaign) if campaign.pk else []
    if campaign.schedule == Schedule.AT and campaign.scheduled_at is not None and campaign.scheduled_at <= now:
        problems.append(Problem("scheduled_at", "past", "That time has passed: choose one that is still to come."))
    if campaign.routing == Routing.POOLED and campaign.pool is not None and not campaign.pool.devices.exists():
        problems.append(Problem("pool", "empty", f"{campaign.pool} has no device: put one into it first."))
    match campaign.state:
        case CampaignState.CANCELLED:
            problems.append(Problem("state", "cancelled", "This campaign was cancelled: clone it to run it again."))
        case CampaignState.PAUSED:
            problems.append(Problem("state", "paused", "This campaign is paused: resume it."))
    return problems


def _variants(campaign: Campaign) -> list[Problem]:
    """All shares make a hundred, and each variant is a text of its own."""
    variants = list(campaign.variants.all())
    problems: list[Problem] = []
    if not variants:
        return problems
    for variant in variants:
        try:
            variant.clean()
        except ValidationError as error:
            problems.append(Problem("variants", "invalid", f"{variant}: {'; '.join(error.messages)}"))
    total = sum(variant.share for variant in variants)
    if len(variants) == 1:
        problems.append(Problem("variants", "alone", "One variant is no comparison: add another, or remove it."))
    elif total != 100:
        problems.append(Problem("variants", "shares", f"The shares of the variants make {total} percent, not 100."))
    if len({variant.text.strip() or campaign.text.strip() for variant in variants}) < len(variants):
        problems.append(Problem("variants", "same_text", "Two variants say the same: change one, or remove it."))
    if campaign.limit_per_device is not None and campaign.limit_per_device < len(variants):
        text = f"With {len(variants)} variants each device takes at least {len(variants)} leads."
        problems.append(Problem("limit_per_device", "too_small", text))
    return problems
