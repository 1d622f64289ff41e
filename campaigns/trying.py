"""Looking before one leaps: what a lead would read, and one message of the campaign to a number of one's own."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from campaigns.audiences import audience_of
from campaigns.models import Campaign, Variant
from devices.models import Device
from leads.models import Lead
from messaging import services as messaging
from messaging.content.prepare import prepare, variables_of
from messaging.content.problems import ContentRefused, TemplateProblem, ValueMissing
from messaging.content.shape import parse
from messaging.dispatch import courtesy
from messaging.models import Message

SAMPLE = Lead(name="Aisyah Rahman", phone="+60123456789", status="prospect", niches=["travel"], custom={})
"""Who is shown where a campaign has no lead yet. Never stored."""


@dataclass(frozen=True, slots=True)
class Shown:
    """What one lead would get from one variant: its text, or why there is none. ``media`` is the attachment's id."""

    variant: str
    type: str
    text: str
    media: int | None = None
    problem: str = ""


def show(*, campaign: Campaign, lead: Lead | None, now: datetime) -> list[Shown]:
    """The campaign as ``lead`` (or its first reachable one, or a sample) would read it, once for each variant."""
    reader = lead or some_lead(campaign, now=now) or SAMPLE
    variants = list(campaign.variants.all()) if campaign.pk else []
    if not variants:
        return [_shown("", campaign, None, reader, now)]
    return [_shown(variant.name, campaign, variant, reader, now) for variant in variants]


def some_lead(campaign: Campaign, *, now: datetime) -> Lead | None:
    """The first whom the campaign would reach."""
    return audience_of(campaign, now=now).reachable().order_by("pk").first()


def _shown(name: str, campaign: Campaign, variant: Variant | None, lead: Lead, now: datetime) -> Shown:
    raw = campaign.content(text=_text_of(campaign, variant))
    addressee = courtesy.Addressee(phone=lead.phone, zone=lead.time_zone or "", bulk=True)
    try:
        parse(raw)
        said = prepare(
            raw,
            variables=variables_of(
                name=lead.name,
                phone=lead.phone,
                status=lead.status,
                niches=lead.niches,
                triggers=lead.triggers,
                custom=lead.custom,
            ),
            seed=lead.pk or 1,
            local_time=lambda: courtesy.local_time(addressee, now=now),
        )
    except (ContentRefused, TemplateProblem, ValueMissing) as problem:
        return Shown(name, campaign.content_type, "", campaign.media_id, str(problem))
    return Shown(name, said.type, said.text, said.media)


def _text_of(campaign: Campaign, variant: Variant | None) -> str:
    return variant.text if variant is not None and variant.text.strip() else campaign.text


def send_test(
    *, campaign: Campaign, phone: str, variant: Variant | None = None, device: Device | None = None, now: datetime
) -> Message:
    """One message with the campaign's content to a number, ahead of bulk. Raises messaging's SendRefused.

    It goes the way of every single message: the number becomes a lead of the campaign's owner if it is none, whoever
    opted out is left alone, and nothing of the campaign's counters moves.
    """
    text = _text_of(campaign, variant)
    raw = campaign.content(text=text)
    try:
        content = parse(raw)
    except ContentRefused as refused:
        raise messaging.SendRefused("bad_text", str(refused), "text") from None
    return messaging.send_single(
        owner=campaign.owner,
        text=text,
        now=now,
        phone=phone,
        device=device or _tester(campaign),
        content=content,
    )


def _tester(campaign: Campaign) -> Device | None:
    """A connected device that the campaign would use; None lets the lead's own or any other do it."""
    if campaign.pool_id is None:
        return None
    return Device.objects.filter(pool_id=campaign.pool_id).able().order_by("next_send_at", "pk").first()
