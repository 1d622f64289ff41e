"""What is known of a person, for that person: everything of one lead in one archive.

The fields as they are, the history of consent, every change, every message with what was really said, every reply, and
what the house above knows (sequences, for one). It is what erasing takes away (:mod:`messaging.erasing`), found in the
same way: by the lead, and by the number for messages of a lead that was deleted and came back. Secrets, other people
and other owners' data are not in it.

The archive is a zip of two files: ``lead.json`` for programs, ``messages.csv`` for people with a spreadsheet.
"""

from __future__ import annotations

import csv
import io
import json
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import structlog
from django.contrib.admin.models import CHANGE, LogEntry
from django.contrib.auth.models import User
from django.contrib.contenttypes.models import ContentType
from django.db import connection
from django.db.models import Q

from leads import suppression
from leads.cells import guarded
from leads.models import ConsentEvent, Lead, LeadChange
from messaging import history
from messaging.models import Attempt, InboundMessage, Message

log = structlog.get_logger(__name__)

_LEAD_FIELDS = (
    *("phone", "name", "status", "niches", "triggers", "notes", "custom", "time_zone", "times_replied"),
    *("consent_at", "consent_source", "opted_out_at", "review_at", "created_at", "updated_at"),
)
_MESSAGE_FIELDS = ("id", "phone", "state", "round", "created_at", "sent_at", "delivered_at", "read_at", "error_text")
_TITLES = ("at", "direction", "state", "device", "text")
_TOLD_APART = frozenset({"message", "reply", "consent", "change"})

# By lead, and by number: index message_lead_sent, then unique message_batch_phone, batch by batch.
_OF_PERSON = """
SELECT id FROM messaging_message WHERE lead_id = %(lead)s
UNION
SELECT m.id FROM messaging_batch b
CROSS JOIN LATERAL (SELECT id FROM messaging_message WHERE batch_id = b.id AND phone = %(phone)s
                    AND (lead_id IS NULL OR lead_id = %(lead)s) OFFSET 0) m
WHERE b.owner_id = %(owner)s
"""


@dataclass(frozen=True, slots=True)
class Disclosure:
    """``known`` is ready for JSON but for its times; ``filename`` names nobody."""

    lead_id: int
    known: dict[str, Any]

    @property
    def filename(self) -> str:
        """What the archive is called."""
        return f"lead-{self.lead_id}.zip"

    def to_json(self) -> str:
        """All of it as one JSON document."""
        return json.dumps(self.known, default=_plain, ensure_ascii=False, indent=2) + "\n"

    def to_zip(self) -> bytes:
        """The archive. One person's rows fit in memory many times over."""
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("lead.json", self.to_json())
            archive.writestr("messages.csv", self._lines())
        return out.getvalue()

    def _lines(self) -> str:
        """The conversation as a spreadsheet, oldest first; no cell begins like a formula."""
        rows = [
            (message["sent_at"] or message["created_at"], "out", message["state"], message["device"], _said(message))
            for message in self.known["messages"]
        ]
        rows += [(each["received_at"], "in", "", each["device"], each["text"]) for each in self.known["replies"]]
        text = io.StringIO()
        writer = csv.writer(text)
        writer.writerow(_TITLES)
        for at, *cells in sorted(rows, key=lambda row: row[0]):
            writer.writerow([at.isoformat(), *(guarded(str(cell)) for cell in cells)])
        return "\ufeff" + text.getvalue()


def disclose(*, lead: Lead, by: User | None, now: datetime) -> Disclosure:
    """Everything of ``lead``; that it was handed out, and to whom, is noted in the lead's log.

    Who may see the lead may see this: callers scope the lead, and the entries from above are scoped by ``by``.
    """
    messages = list(_messages(lead))
    known = {
        "exported_at": now,
        "lead": {name: getattr(lead, name) for name in _LEAD_FIELDS} | {"device": lead.device and lead.device.name},
        "suppressed_since": suppression.suppressed(owner_id=lead.owner_id, phones=[lead.phone]).get(lead.phone),
        "consent": list(_consent(lead)),
        "changes": list(_changes(lead)),
        "messages": messages,
        "replies": list(_replies(lead)),
        "other": list(_from_above(lead, by)),
    }
    if by is not None:
        LogEntry.objects.create(
            user=by,
            content_type=ContentType.objects.get_for_model(Lead),
            object_id=str(lead.pk),
            object_repr=str(lead)[:200],
            action_flag=CHANGE,
            change_message="Exported everything that is known of them.",
        )
    log.info("lead.disclosed", lead_id=lead.pk, by=by.pk if by else None, messages=len(messages))
    return Disclosure(lead.pk, known)


def _messages(lead: Lead) -> Iterator[dict[str, Any]]:
    with connection.cursor() as cursor:
        cursor.execute(_OF_PERSON, {"lead": lead.pk, "phone": lead.phone, "owner": lead.owner_id})
        ids = [pk for (pk,) in cursor.fetchall()]
    tried: dict[int, list[dict[str, Any]]] = {}
    for attempt in Attempt.objects.filter(message__in=ids).order_by("message", "release_no"):
        tried.setdefault(attempt.message_id, []).append(
            {
                "started_at": attempt.started_at,
                "finished_at": attempt.finished_at,
                "outcome": attempt.outcome,
                "text": attempt.text,
                "gateway_id": attempt.external_id,
            }
        )
    rows = Message.objects.filter(pk__in=ids).select_related("batch", "device").defer("device__credentials")
    for row in rows.order_by("pk"):
        told: dict[str, Any] = {name: getattr(row, name) for name in _MESSAGE_FIELDS}
        yield {**told, "batch": row.batch.name, "device": row.device.name, "attempts": tried.get(row.pk, [])}


def _replies(lead: Lead) -> Iterator[dict[str, Any]]:
    theirs = Q(lead=lead) | Q(lead__isnull=True, phone=lead.phone, device__owner_id=lead.owner_id)
    rows = InboundMessage.objects.filter(theirs).select_related("device").defer("device__credentials")
    for row in rows.order_by("pk"):
        yield {
            "received_at": row.received_at,
            "written_at": row.written_at,
            "phone": row.phone,
            "text": row.text,
            "device": row.device.name if row.device else "",
        }


def _consent(lead: Lead) -> Iterator[dict[str, Any]]:
    for row in ConsentEvent.objects.filter(lead=lead).order_by("pk"):
        yield {"at": row.happened_at, "what": row.kind, "how": row.channel, "source": row.source}


def _changes(lead: Lead) -> Iterator[dict[str, Any]]:
    for row in LeadChange.objects.filter(lead=lead).order_by("pk"):
        yield {"at": row.changed_at, "what": row.kind, "how": row.channel, "values": row.values, "note": row.note}


def _from_above(lead: Lead, by: User | None) -> Iterator[dict[str, Any]]:
    """Entries of the kinds that were registered from above, oldest first."""
    for entry in history.entries(lead=lead, user=by or lead.owner, leave_out=_TOLD_APART):
        yield {"at": entry.place.at, "kind": entry.place.kind, "title": entry.title, "text": entry.text}


def _said(message: dict[str, Any]) -> str:
    """The text of the last attempt: what was sent, if anything was."""
    return str(message["attempts"][-1]["text"]) if message["attempts"] else ""


def _plain(value: Any) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)
