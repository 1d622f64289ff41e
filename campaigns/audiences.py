"""Whom a campaign reaches, and through how many devices: for people before the launch, and for the run itself."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from campaigns import routing
from campaigns.models import Campaign, Routing
from leads.audience import Audience
from leads.consent import waiver_for
from leads.models import ConsentWaiver
from leads.rules import Rules
from leads.segments import rules_of


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
    unassigned: int = 0
    """How many of the eligible no device would take, because of the limit per device."""
    excluded: int = 0
    """Connected devices of the pool that are left out because they have been failing."""


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


def preview(campaign: Campaign, *, now: datetime) -> Preview:
    """Whom a launch would reach at ``now``, and who would be left out and why."""
    audience = audience_of(campaign, now=now)
    left_out = audience.left_out()
    reachable = audience.reachable()
    eligible = reachable.count()
    if campaign.routing == Routing.OWN:
        homeless = reachable.filter(device__isnull=True).count()
        if homeless:
            left_out["no_device"] = homeless
            eligible -= homeless
    waiver = waiver_for(campaign.owner_id)
    senders = routing.senders(campaign=campaign, audience=audience, now=now)
    room = len(senders.devices) * campaign.limit_per_device if campaign.limit_per_device else eligible
    pooled = campaign.routing == Routing.POOLED
    return Preview(
        total=audience.leads().count(),
        eligible=eligible,
        devices=len(senders.devices),
        left_out=left_out,
        without_consent=audience.without_consent() if waiver else 0,
        waiver=waiver,
        unassigned=max(eligible - room, 0) if pooled and senders.devices else 0,
        excluded=len(senders.failing),
    )
