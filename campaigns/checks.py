"""What stands in the way of a launch, and what a person should know before it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from django.core.exceptions import ValidationError
from django.db.models import Exists, OuterRef

from campaigns.models import Campaign, Routing, Schedule, Variant
from campaigns.states import CampaignState
from devices.models import Device
from leads.models import Lead
from messaging.content.check import check_content
from messaging.content.shape import parse

OF_CONTENT = frozenset({"content_type", "text", "media", "template", "greeting", "on_missing", "variants"})
"""Fields that say what is sent. While one of them is wrong by itself, no gateway is asked whether it can carry it."""


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


def check(*, campaign: Campaign, now: datetime, variants: Sequence[Variant] | None = None) -> list[Problem]:
    """Everything that stands in the way of a launch at ``now``; with other ``variants`` than those that are stored."""
    problems: list[Problem] = []
    if variants is None:
        variants = list(campaign.variants.all()) if campaign.pk else []
    try:
        campaign.full_clean(exclude=["owner", "lead_device", "segment"])
    except ValidationError as error:
        problems = [Problem(name, "invalid", text) for name, texts in error.message_dict.items() for text in texts]
    problems += _variants(campaign, variants)
    problems += [] if any(problem.field in OF_CONTENT for problem in problems) else _cannot_carry(campaign, variants)
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


def _cannot_carry(campaign: Campaign, variants: Sequence[Variant]) -> list[Problem]:
    """What the gateways of the devices that would send cannot carry, of any of the texts; each problem once."""
    texts = {None, *(variant.text for variant in variants)} - {""}
    found = {
        Problem({"type": "content_type"}.get(each.field, each.field.partition(".")[0]), each.code, each.text): None
        for text in sorted(texts, key=lambda text: text or "")
        for each in check_content(
            parse(campaign.content(text=text)), owner_id=campaign.owner_id, gateways=_gateways(campaign)
        )
    }
    return list(found)


def _gateways(campaign: Campaign) -> set[str]:
    devices = Device.objects.filter(owner_id=campaign.owner_id)
    if campaign.routing == Routing.POOLED:
        devices = devices.filter(pool_id=campaign.pool_id)
    elif campaign.lead_device_id is not None:
        devices = devices.filter(pk=campaign.lead_device_id)
    else:
        devices = devices.filter(Exists(Lead.objects.filter(device=OuterRef("pk"))))
    return set(devices.order_by().values_list("gateway", flat=True).distinct())


def _variants(campaign: Campaign, variants: Sequence[Variant]) -> list[Problem]:
    """All shares make a hundred, and each variant is a text of its own."""
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
