"""Erasing a person: what we know of them goes, that they must not be written to stays.

Gone are the lead with its consent history, and from messages the number, the rendered text, the gateway's id and words
about them. Rows and counters stay, so that reports still add up. From imports go the rejected rows that speak of them,
and every file that the owner has uploaded (:mod:`leads.forgetting`).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import structlog
from django.contrib.admin.models import CHANGE, LogEntry
from django.contrib.auth.models import User
from django.contrib.contenttypes.models import ContentType
from django.db import connection, transaction

from leads import forgetting, optout, uploads
from leads.models import Lead, Suppression
from messaging.services import wake

log = structlog.get_logger(__name__)

ERASED = "Erased person"


@dataclass(frozen=True, slots=True)
class Erased:
    """How many messages were stripped, and how many of them were cancelled because they had not left; rejected rows
    that were emptied; uploaded files that were removed, and those that go when their import has ended."""

    messages: int
    cancelled: int
    rows: int = 0
    files: int = 0
    files_later: int = 0


# By lead, and by number for those whose lead was deleted before: unique message_batch_phone, batch by batch.
_OF_PERSON = """
SELECT id, device_id, state FROM messaging_message WHERE lead_id = %(lead)s
UNION
SELECT m.id, m.device_id, m.state FROM messaging_batch b
CROSS JOIN LATERAL (SELECT id, device_id, state FROM messaging_message
                    WHERE batch_id = b.id AND phone = %(phone)s OFFSET 0) m
WHERE b.owner_id = %(owner)s
"""

_CANCEL = """
WITH ended AS (
    UPDATE messaging_message SET state = 'cancelled', error_code = 'erased'
    WHERE id = ANY(%(ids)s) AND state IN ('pending', 'queued')
    RETURNING stream_id
), counts AS (SELECT stream_id, count(*) AS n FROM ended GROUP BY stream_id),
counted AS (
    UPDATE messaging_stream s
    SET waiting = s.waiting - n, cancelled = s.cancelled + n, is_open = s.waiting - n > 0
    FROM counts WHERE s.id = counts.stream_id
)
SELECT coalesce(sum(n), 0) FROM counts
"""

# The number becomes one that is unique and none: once per person and batch still holds.
_STRIP = (
    """UPDATE messaging_message SET phone = 'erased-' || id, external_id = '', error_text = '', lead_id = NULL
       WHERE id = ANY(%(ids)s)""",
    "UPDATE messaging_attempt SET text = '', external_id = '', error_text = '' WHERE message_id = ANY(%(ids)s)",
    """UPDATE messaging_batch b SET name = %(erased)s, content = '{"type": "text", "text": ""}'
       WHERE b.priority = 0 AND b.id IN (SELECT batch_id FROM messaging_message WHERE id = ANY(%(ids)s))
         AND NOT EXISTS (SELECT FROM messaging_message o WHERE o.batch_id = b.id AND o.id <> ALL (%(ids)s))""",
    """UPDATE messaging_inboundmessage SET phone = '', text = '', external_id = '', lead_id = NULL
       WHERE lead_id = %(lead)s
          OR (phone = %(phone)s AND device_id IN (SELECT id FROM devices_device WHERE owner_id = %(owner)s))""",
)


def erase(*, lead: Lead, by: User, now: datetime) -> Erased:
    """Erase the person behind ``lead``, for its owner. Suppressed first, so that nothing leaves for them any more.

    Two transactions, since devices are locked before leads: interrupted between them, call it again. What a worker is
    sending at this very moment may leave the gateway's id behind; a second call takes that as well.
    """
    lead_id, owner_id, phone, name = lead.pk, lead.owner_id, lead.phone, lead.name
    with transaction.atomic():
        optout.refuse_for_good(owner_id=owner_id, phone=phone, reason=Suppression.Reason.ERASED, now=now)
    with transaction.atomic(), connection.cursor() as cursor:
        who: dict[str, Any] = {"lead": lead_id, "owner": owner_id, "phone": phone}
        cursor.execute(_OF_PERSON, who)
        found: list[tuple[int, int, str]] = cursor.fetchall()
        ids = [pk for pk, _, _ in found]
        wake({device for _, device, state in found if state in {"pending", "queued"}})  # device → lead → message
        Lead.objects.select_for_update().filter(pk=lead_id).first()
        cursor.execute(_CANCEL, {"ids": ids})
        cancelled = int(cursor.fetchone()[0])
        for statement in _STRIP:
            cursor.execute(statement, {**who, "ids": ids, "erased": ERASED})
        Lead.objects.filter(pk=lead_id).delete()
        rows = forgetting.forget_in_imports(owner_id=owner_id, phone=phone, name=name, now=now)
        _write_down(lead_id, by)
    files, later = uploads.remove_unwanted(owner_id=owner_id, now=now)  # what this misses the hourly tick finds
    log.info("lead.erased", lead_id=lead_id, by=by.pk, messages=len(ids), cancelled=cancelled, rows=rows, files=files)
    return Erased(len(ids), cancelled, rows, files, later)


def _write_down(lead_id: int, by: User) -> None:
    """Who did it stays; the name and the number, which earlier entries carry, go."""
    leads: Any = ContentType.objects.get_for_model(Lead)
    LogEntry.objects.filter(content_type=leads, object_id=str(lead_id)).update(object_repr=ERASED)
    LogEntry.objects.create(
        user=by,
        content_type=leads,
        object_id=str(lead_id),
        object_repr=ERASED,
        action_flag=CHANGE,
        change_message="Erased.",
    )
