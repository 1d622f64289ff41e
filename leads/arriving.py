"""Leads that come over from another system, many at a time, merged into those that are there like rows of a file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from leads import consent, storing, suppression
from leads.duplicates import united
from leads.imports import LeadRow
from leads.models import ConsentEvent, Lead, LeadImport


@dataclass(frozen=True, slots=True)
class Arrived:
    """``leads`` is the id behind each phone; ``fresh`` how many are new; ``elsewhere`` the phones that had another
    device before, and keep it."""

    leads: dict[str, int]
    fresh: int
    elsewhere: frozenset[str]


def take_in(
    *,
    owner_id: int,
    rows: Sequence[LeadRow],
    device_id: int | None,
    consent_source: str,
    note: str,
    by_id: int,
    now: datetime,
) -> Arrived:
    """Merge ``rows`` into the owner's leads (:mod:`leads.storing`), in the caller's transaction, which holds no lead.

    With a ``consent_source``, that is noted as of ``now`` on those who have no consent and have not refused. ``note``
    is what the history of those who were there says of it. Numbers that are suppressed come out opted out.
    """
    people = united(rows, policy=LeadImport.Duplicates.MERGE)
    phones = [row.phone for row in people]
    with suppression.admitting(owner_id=owner_id, phones=phones, now=now):
        consent.note_again(
            owner_id=owner_id,
            agreements=consent.agreements_in(people, source=consent_source, now=now),
            channel=ConsentEvent.Channel.IMPORT,
            now=now,
        )
        there = Lead.objects.filter(owner_id=owner_id, phone__in=phones, device__isnull=False)
        elsewhere = there.exclude(device_id=device_id).values_list("phone", flat=True) if device_id else []
        kept = frozenset(elsewhere)
        fresh = storing.merge_rows(
            owner_id=owner_id,
            rows=people,
            device_id=storing.hold_device(device_id),
            consent_at=now if consent_source else None,
            consent_source=consent_source,
            now=now,
            source=storing.Source(import_id=None, note=note[:300], by_id=by_id),
        )
    ids = dict(Lead.objects.filter(owner_id=owner_id, phone__in=phones).values_list("phone", "pk"))
    return Arrived(ids, fresh, kept)
