"""One person who stands here twice: what the two rows say together, and the leads' part of making them one.

Fields are united as an import would (:mod:`leads.storing`), with the survivor as the one that is there. The stricter
consent wins: if either opted out, both numbers are refused from then on.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from django.contrib.auth.models import User

from leads import consent, optout, suppression
from leads.cells import clean_tags
from leads.changes import FIELDS, Channel, Kind, difference
from leads.models import ConsentEvent, Lead, LeadChange, LeadStatus

OTHER_PHONES = "other_phones"
"""Own field that keeps the numbers of those who were merged into a lead."""


class MergeRefused(Exception):  # noqa: N818 - reads as a fact
    """These two cannot be made one; ``field`` names what to change."""

    def __init__(self, code: str, text: str, field: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = text
        self.field = field


def check(*, survivor: Lead, other: Lead) -> None:
    """Raises :class:`MergeRefused`."""
    if survivor.pk == other.pk:
        raise MergeRefused("same_lead", "This is the lead itself: name another one.", "other")
    if survivor.owner_id != other.owner_id:
        raise MergeRefused("other_owner", "The two leads belong to different people.", "other")


def result(*, survivor: Lead, other: Lead) -> dict[str, Any]:
    """The survivor's columns as they would be."""
    customer = LeadStatus.CUSTOMER in {survivor.status, other.status}
    refused = [at for at in (survivor.opted_out_at, other.opted_out_at) if at]
    held = [at for at in (survivor.review_at, other.review_at) if at]
    takes_consent = survivor.consent_at is None and not refused
    agreed = other if takes_consent else survivor
    phones = [*_phones(survivor), *_phones(other), other.phone]
    return {
        "phone": survivor.phone,
        "name": survivor.name or other.name,
        "status": LeadStatus.CUSTOMER.value if customer else LeadStatus.PROSPECT.value,
        "niches": list(clean_tags([*survivor.niches, *other.niches])),
        "triggers": list(clean_tags([*survivor.triggers, *other.triggers])),
        "notes": survivor.notes or other.notes,
        "custom": {**other.custom, **survivor.custom, OTHER_PHONES: list(dict.fromkeys(phones))},
        "device_id": survivor.device_id or other.device_id,
        "time_zone": survivor.time_zone or other.time_zone,
        "consent_at": agreed.consent_at,
        "consent_source": agreed.consent_source,
        "opted_out_at": min(refused) if refused else None,
        "review_at": min(held) if held and not refused else None,
    }


def begin(*, survivor: Lead, other: Lead, by: User, channel: Channel, now: datetime) -> None:
    """First step, before anything else is locked but devices: refuse for both numbers what one has refused."""
    suppression.close_door()
    if survivor.opted_out_at is None and other.opted_out_at is None:
        return
    said = ConsentEvent.Channel.ADMIN if channel == Channel.ADMIN else ConsentEvent.Channel.API
    for lead in (survivor, other):
        optout.opt_out(lead=lead, channel=said, now=now, by=by, source="Merged with a lead that had opted out")


def finish(*, survivor: Lead, other: Lead, by: User, channel: Channel, now: datetime) -> None:
    """Last step, in the same transaction with both rows locked: unite, keep both histories, let the other one go."""
    before = {name: getattr(survivor, name) for name in FIELDS}
    columns = result(survivor=survivor, other=other)
    consent.preserve(lead_ids=[survivor.pk, other.pk], now=now)
    ConsentEvent.objects.filter(lead=other).update(lead=survivor)
    LeadChange.objects.filter(lead=other).update(lead=survivor)
    other_phone, other_id = other.phone, other.pk
    optout.delete_lead(lead=other, now=now)
    Lead.objects.filter(pk=survivor.pk).update(**columns, updated_at=now)
    LeadChange.objects.create(
        lead=survivor,
        kind=Kind.MERGED,
        channel=channel,
        values=difference(before, columns),
        note=f"With lead {other_id}, {other_phone}",
        by=by,
        changed_at=now,
    )


def _phones(lead: Lead) -> list[str]:
    kept = lead.custom.get(OTHER_PHONES, [])
    return [phone for phone in kept if isinstance(phone, str)] if isinstance(kept, list) else []
