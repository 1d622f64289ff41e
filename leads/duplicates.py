"""One person several times in a file: what the rows say together. Pure: no Django.

The rules are those of :mod:`leads.storing`, whose statements may touch a lead only once each: rows united here and then
stored give what storing them one after the other would.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from leads.cells import clean_tags
from leads.imports import LeadRow


def united(rows: Iterable[LeadRow], *, policy: str) -> list[LeadRow]:
    """``rows`` with each phone once, at its first place; ``policy`` is merge, skip or overwrite."""
    join = {"merge": _merged, "skip": _first, "overwrite": _overwritten}[policy]
    people: dict[str, LeadRow] = {}
    for row in rows:
        first = people.get(row.phone)
        people[row.phone] = row if first is None else join(first, row)
    return list(people.values())


def _merged(first: LeadRow, row: LeadRow) -> LeadRow:
    """Filled where it is empty, tags added, a customer stays one."""
    consent = first if _consents(first) or first.opted_out_at else row
    return replace(
        first,
        name=first.name or row.name,
        status="customer" if "customer" in {first.status, row.status} else first.status or row.status,
        niches=clean_tags(first.niches + row.niches),
        triggers=clean_tags(first.triggers + row.triggers),
        notes=first.notes or row.notes,
        custom={**row.custom, **first.custom},
        consent_at=consent.consent_at,
        consent_source=consent.consent_source,
        opted_out_at=first.opted_out_at or row.opted_out_at,
    )


def _first(first: LeadRow, row: LeadRow) -> LeadRow:
    """As the first row has it; a refusal is never passed over."""
    return first if first.opted_out_at or not row.opted_out_at else replace(first, opted_out_at=row.opted_out_at)


def _overwritten(first: LeadRow, row: LeadRow) -> LeadRow:
    """What the later row says wins."""
    consent = row if _consents(row) and not first.opted_out_at else first
    return replace(
        first,
        name=row.name or first.name,
        status=row.status or first.status,
        niches=row.niches or first.niches,
        triggers=row.triggers or first.triggers,
        notes=row.notes or first.notes,
        custom={**first.custom, **row.custom},
        consent_at=consent.consent_at,
        consent_source=consent.consent_source,
        opted_out_at=first.opted_out_at or row.opted_out_at,
    )


def _consents(row: LeadRow) -> bool:
    """Whether the row itself brings a consent."""
    return row.consent_at is not None or bool(row.consent_source)
