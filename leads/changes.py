"""Keeping what changed: whoever edits a lead does so inside :func:`noted`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from django.contrib.auth.models import User
from django.db import transaction

from leads.change_models import LeadChange
from leads.models import Lead

FIELDS = ("phone", "name", "status", "niches", "triggers", "notes", "custom", "device_id", "time_zone")
"""Fields whose changes are kept. Consent has a history of its own (:mod:`leads.consent`)."""
LONGEST = 1000
"""Characters of a text that are kept."""

Channel = LeadChange.Channel
Kind = LeadChange.Kind


@contextmanager
def noted(
    *, owner_id: int, phone: str, channel: Channel, now: datetime, by: User | None = None, note: str = ""
) -> Iterator[None]:
    """Make or change the owner's lead with this number inside: what changed is kept, and nothing if nothing did.

    The lead is not locked before, since the suppression's door comes first: of two changes at the very same time, the
    later one's line may tell both.
    """
    with transaction.atomic():
        before = _read(Lead.objects.filter(owner_id=owner_id, phone=phone))
        yield
        after = _read(Lead.objects.filter(owner_id=owner_id, phone=phone))
        _write(before, after, channel=channel, now=now, by=by, note=note)


@contextmanager
def noted_edit(*, lead: Lead, channel: Channel, now: datetime, by: User | None = None) -> Iterator[None]:
    """The same for a lead that is saved inside, new or changed, and whose number may change."""
    with transaction.atomic():
        before = _read(Lead.objects.filter(pk=lead.pk)) if lead.pk else None
        yield
        _write(before, _read(Lead.objects.filter(pk=lead.pk)), channel=channel, now=now, by=by)


def difference(before: dict[str, Any], after: dict[str, Any]) -> dict[str, list[Any]]:
    """``{field: [before, after]}`` of what differs; long texts are cut."""
    return {
        name.removesuffix("_id"): [_short(before[name]), _short(after[name])]
        for name in FIELDS
        if before[name] != after[name]
    }


def _read(found: Any) -> dict[str, Any] | None:
    row: dict[str, Any] | None = found.order_by().values("pk", *FIELDS).first()
    return row


def _write(
    before: dict[str, Any] | None,
    after: dict[str, Any] | None,
    *,
    channel: Channel,
    now: datetime,
    by: User | None,
    note: str = "",
) -> None:
    if after is None:
        return
    values = {} if before is None else difference(before, after)
    if before is not None and not values:
        return
    LeadChange.objects.create(
        lead_id=after["pk"],
        kind=Kind.CREATED if before is None else Kind.EDITED,
        channel=channel,
        values=values,
        note=note[:300],
        by=by,
        changed_at=now,
    )


def _short(value: Any) -> Any:
    return f"{value[: LONGEST - 1]}…" if isinstance(value, str) and len(value) > LONGEST else value
