"""A lead's history in one line of time: what was sent and received, and what changed.

Read from the rows themselves, a page at a time: one small query per kind, merged. Nothing is copied together anywhere,
so nothing can disagree. What is known above this app registers a :class:`Source` when the app is ready.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db.models import OuterRef, Q, QuerySet, Subquery
from django.db.models.functions import Coalesce

from devices.access import AnyUser
from leads.models import ConsentEvent, Lead, LeadChange, LeadImport
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
    """One line. ``title`` is for a person, ``details`` depend on the kind: message, reply, consent, change, or what
    somebody registered."""

    place: Place
    title: str
    text: str
    by: str
    details: dict[str, Any]
    where: str = ""
    """Which device or which door, in words."""


@dataclass(frozen=True, slots=True)
class Source:
    """One kind of entries: the rows that ``user`` may see of a lead's, the field with their time, and what a row says.

    An index has to give a lead's rows; how many there are of one lead is nobody's to bound but the lead's life.
    """

    kind: str
    rows: Callable[[Lead, AnyUser], QuerySet[Any]]
    moment: str
    write: Callable[[Any], Entry]


@dataclass(frozen=True, slots=True)
class Page:
    """Entries, newest first, and the cursor of the page with older ones (empty: there are none)."""

    entries: list[Entry]
    older: str


class BadCursor(ValueError):  # noqa: N818 - reads as a fact
    """A cursor that none of our pages gave."""


def register(source: Source) -> None:
    """Let ``source`` speak for its kind. Raises ValueError for a kind that another one speaks for."""
    if _SOURCES.setdefault(source.kind, source) != source:
        raise ValueError(f"there are entries of the kind “{source.kind}” already")


def timeline(*, lead: Lead, user: AnyUser, cursor: str = "", size: int = PAGE) -> Page:
    """A page of what ``user`` may see of the lead's history. Raises BadCursor."""
    before = _read_cursor(cursor) if cursor else None
    found: list[Entry] = []
    for source in _SOURCES.values():
        rows = _older(source.rows(lead, user), source.moment, source.kind, before)
        found += [source.write(row) for row in rows.order_by(f"-{source.moment}", "-pk")[: size + 1]]
    on_the_lead = [*_unrecorded_consent(lead), *_first_import(lead)]
    found += [entry for entry in on_the_lead if before is None or entry.place < before]
    found.sort(key=lambda entry: entry.place, reverse=True)
    older = _write_cursor(found[size - 1].place) if len(found) > size else ""
    return Page(found[:size], older)


def entries(*, lead: Lead, user: AnyUser, leave_out: Collection[str] = ()) -> list[Entry]:
    """Everything that ``user`` may see of the lead's history, oldest first, without the kinds in ``leave_out``."""
    found = [
        source.write(row)
        for source in _SOURCES.values()
        if source.kind not in leave_out
        for row in source.rows(lead, user)
    ]
    return sorted(found, key=lambda entry: entry.place)


def _older(rows: QuerySet[Any], moment: str, kind: str, before: Place | None) -> QuerySet[Any]:
    """Rows that stand behind ``before`` in the order of :class:`Place`."""
    if before is None:
        return rows
    if kind < before.kind:
        return rows.filter(**{f"{moment}__lte": before.at})
    earlier = Q(**{f"{moment}__lt": before.at})
    return rows.filter(earlier | Q(**{moment: before.at}, pk__lt=before.id) if kind == before.kind else earlier)


# -- What the kinds are read from --------------------------------------------------------------------------------------


def _messages(lead: Lead, user: AnyUser) -> QuerySet[Any]:
    last = Attempt.objects.filter(message=OuterRef("pk")).order_by("-release_no").values("text")[:1]
    rows = Message.objects.visible_to(user).filter(lead=lead).select_related("batch", "device")
    return rows.defer("device__credentials").annotate(at=Coalesce("sent_at", "created_at"), said=Subquery(last))


def _replies(lead: Lead, user: AnyUser) -> QuerySet[Any]:
    rows = InboundMessage.objects.visible_to(user).filter(lead=lead).select_related("device")
    return rows.defer("device__credentials")


def _consents(lead: Lead, user: AnyUser) -> QuerySet[Any]:  # noqa: ARG001 - who sees the lead sees these
    return ConsentEvent.objects.filter(lead=lead).select_related("by")


def _changes(lead: Lead, user: AnyUser) -> QuerySet[Any]:  # noqa: ARG001 - the same
    return LeadChange.objects.filter(lead=lead).select_related("by")


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
    return Entry(
        Place(row.at, "message", row.pk),
        f"Message: {row.get_state_display()}",
        row.said or "",
        "",
        details,
        row.device.name,
    )


def _of_reply(row: InboundMessage) -> Entry:
    device = row.device.name if row.device else ""
    details = {"reply": row.pk, "device": device}
    return Entry(Place(row.received_at, "reply", row.pk), "They wrote", row.text, "", details, device)


def _of_consent(row: ConsentEvent) -> Entry:
    details = {"event": row.kind, "channel": row.channel}
    place = Place(row.happened_at, "consent", row.pk)
    by = row.by.get_username() if row.by else ""
    return Entry(place, row.get_kind_display(), row.source, by, details, row.get_channel_display())


def _of_change(row: LeadChange) -> Entry:
    words = [f"{name}: {_shown(before)} → {_shown(after)}" for name, (before, after) in row.values.items()]
    details = {"event": row.kind, "channel": row.channel, "values": row.values, "note": row.note}
    place = Place(row.changed_at, "change", row.pk)
    text = "; ".join([*words, *([row.note] if row.note else [])])
    by = row.by.get_username() if row.by else ""
    return Entry(place, row.get_kind_display(), text, by, details, row.get_channel_display())


_SOURCES: dict[str, Source] = {
    source.kind: source
    for source in (
        Source("message", _messages, "at", _of_message),
        Source("reply", _replies, "received_at", _of_reply),
        Source("consent", _consents, "happened_at", _of_consent),
        Source("change", _changes, "changed_at", _of_change),
    )
}


def _unrecorded_consent(lead: Lead) -> list[Entry]:
    """The consent that stands on the lead alone, as imports leave it."""
    if lead.consent_at is None:
        return []
    told = ConsentEvent.objects.filter(lead=lead, kind__in=["given", "opted_in"], happened_at=lead.consent_at)
    place = Place(lead.consent_at, "consent", 0)
    if told.filter(source=lead.consent_source).exists():
        return []
    given, record = ConsentEvent.Kind.GIVEN, ConsentEvent.Channel.RECORD
    details = {"event": given.value, "channel": record.value}
    return [Entry(place, given.label, lead.consent_source, "", details, record.label)]


def _first_import(lead: Lead) -> list[Entry]:
    """The import that brought the lead, which stands on the lead alone; a row each would double a file's writing."""
    if lead.first_import_id is None:
        return []
    made, file = LeadChange.Kind.CREATED, LeadImport.objects.filter(pk=lead.first_import_id).first()
    details = {"event": made.value, "channel": LeadChange.Channel.IMPORT.value, "import": lead.first_import_id}
    place = Place(lead.created_at, "change", 0)
    return [Entry(place, made.label, file.filename if file else "", "", details, LeadChange.Channel.IMPORT.label)]


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
