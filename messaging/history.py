"""A lead's history in one line of time: what was sent and received, and what changed.

Read from the rows themselves, a page at a time: one small query per kind, merged. Nothing is copied together anywhere,
so nothing can disagree.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db.models import OuterRef, Q, QuerySet, Subquery
from django.db.models.functions import Coalesce

from devices.access import AnyUser
from leads.models import ConsentEvent, Lead, LeadChange
from messaging.models import Attempt, InboundMessage, Message

PAGE = 50


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """Where an entry stands: by time, then kind, then id."""

    at: datetime
    kind: str
    id: int


@dataclass(frozen=True, slots=True)
class Entry:
    """One line. ``title`` is for a person, ``details`` depend on the kind: message, reply, consent or change."""

    place: Place
    title: str
    text: str
    by: str
    details: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Page:
    """Entries, newest first, and the cursor of the page with older ones (empty: there are none)."""

    entries: list[Entry]
    older: str


class BadCursor(ValueError):  # noqa: N818 - reads as a fact
    """A cursor that none of our pages gave."""


def timeline(*, lead: Lead, user: AnyUser, cursor: str = "", size: int = PAGE) -> Page:
    """A page of what ``user`` may see of the lead's history. Raises BadCursor."""
    before = _read_cursor(cursor) if cursor else None
    found: list[Entry] = []
    for kind, source in _SOURCES.items():
        rows, moment = source(lead, user)
        found += _entries(kind, _older(rows, moment, kind, before).order_by(f"-{moment}", "-pk")[: size + 1])
    found += _unrecorded_consent(lead, before)
    found.sort(key=lambda entry: entry.place, reverse=True)
    older = _write_cursor(found[size - 1].place) if len(found) > size else ""
    return Page(found[:size], older)


def _older(rows: QuerySet[Any], moment: str, kind: str, before: Place | None) -> QuerySet[Any]:
    """Rows that stand behind ``before`` in the order of :class:`Place`."""
    if before is None:
        return rows
    if kind < before.kind:
        return rows.filter(**{f"{moment}__lte": before.at})
    earlier = Q(**{f"{moment}__lt": before.at})
    return rows.filter(earlier | Q(**{moment: before.at}, pk__lt=before.id) if kind == before.kind else earlier)


# -- What the kinds are read from --------------------------------------------------------------------------------------


def _messages(lead: Lead, user: AnyUser) -> tuple[QuerySet[Any], str]:
    last = Attempt.objects.filter(message=OuterRef("pk")).order_by("-release_no").values("text")[:1]
    rows = Message.objects.visible_to(user).filter(lead=lead).select_related("batch", "device")
    rows = rows.defer("device__credentials").annotate(at=Coalesce("sent_at", "created_at"), said=Subquery(last))
    return rows, "at"


def _replies(lead: Lead, user: AnyUser) -> tuple[QuerySet[Any], str]:
    rows = InboundMessage.objects.visible_to(user).filter(lead=lead).select_related("device")
    return rows.defer("device__credentials"), "received_at"


def _consents(lead: Lead, user: AnyUser) -> tuple[QuerySet[Any], str]:  # noqa: ARG001 - who sees the lead sees these
    return ConsentEvent.objects.filter(lead=lead).select_related("by"), "happened_at"


def _changes(lead: Lead, user: AnyUser) -> tuple[QuerySet[Any], str]:  # noqa: ARG001 - the same
    return LeadChange.objects.filter(lead=lead).select_related("by"), "changed_at"


_SOURCES: dict[str, Callable[[Lead, AnyUser], tuple[QuerySet[Any], str]]] = {
    "message": _messages,
    "reply": _replies,
    "consent": _consents,
    "change": _changes,
}


def _entries(kind: str, rows: QuerySet[Any]) -> Iterator[Entry]:
    write = {"message": _of_message, "reply": _of_reply, "consent": _of_consent, "change": _of_change}[kind]
    for row in rows:
        yield write(row)


def _of_message(row: Any) -> Entry:
    details = {
        "message": row.pk,
        "state": row.state,
        "batch": row.batch.name,
        "device": row.device.name,
        "delivered_at": row.delivered_at,
        "read_at": row.read_at,
        "error": row.error_text,
    }
    return Entry(Place(row.at, "message", row.pk), f"Message: {row.get_state_display()}", row.said or "", "", details)


def _of_reply(row: InboundMessage) -> Entry:
    details = {"reply": row.pk, "device": row.device.name if row.device else ""}
    return Entry(Place(row.received_at, "reply", row.pk), "They wrote", row.text, "", details)


def _of_consent(row: ConsentEvent) -> Entry:
    details = {"event": row.kind, "channel": row.channel}
    place = Place(row.happened_at, "consent", row.pk)
    return Entry(place, row.get_kind_display(), row.source, row.by.get_username() if row.by else "", details)


def _of_change(row: LeadChange) -> Entry:
    words = [f"{name}: {_shown(before)} → {_shown(after)}" for name, (before, after) in row.values.items()]
    details = {"event": row.kind, "channel": row.channel, "values": row.values, "note": row.note}
    place = Place(row.changed_at, "change", row.pk)
    text = "; ".join([*words, *([row.note] if row.note else [])])
    return Entry(place, row.get_kind_display(), text, row.by.get_username() if row.by else "", details)


def _unrecorded_consent(lead: Lead, before: Place | None) -> list[Entry]:
    """The consent that stands on the lead alone, as imports leave it."""
    if lead.consent_at is None:
        return []
    told = ConsentEvent.objects.filter(lead=lead, kind__in=["given", "opted_in"], happened_at=lead.consent_at)
    place = Place(lead.consent_at, "consent", 0)
    if told.filter(source=lead.consent_source).exists() or (before is not None and place >= before):
        return []
    given = ConsentEvent.Kind.GIVEN
    return [Entry(place, given.label, lead.consent_source, "", {"event": given.value, "channel": "record"})]


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "–"
    return "–" if value in (None, "") else str(value)


# -- Cursors -----------------------------------------------------------------------------------------------------------


def _write_cursor(place: Place) -> str:
    return base64.urlsafe_b64encode(json.dumps([place.at.isoformat(), place.kind, place.id]).encode()).decode()


def _read_cursor(cursor: str) -> Place:
    try:
        at, kind, row_id = json.loads(base64.urlsafe_b64decode(cursor.encode()))
        place = Place(datetime.fromisoformat(at), str(kind), row_id)
    except (ValueError, TypeError, binascii.Error, RecursionError):
        raise BadCursor(cursor) from None
    if place.kind not in _SOURCES or type(row_id) is not int or not 0 <= row_id < 2**63 or place.at.tzinfo is None:
        raise BadCursor(cursor)
    return place
