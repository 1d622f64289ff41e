"""What sequences say in a lead's history (:mod:`messaging.history`): when it entered one, and how that ended."""

from __future__ import annotations

from typing import Any

from django.db.models import QuerySet

from devices.access import AnyUser
from leads.models import Lead
from messaging.history import Entry, Place, Source, register
from sequences.models import Enrolment


def register_sources() -> None:
    """Called once, when the app is ready."""
    register(Source("enrolled", _enrolments, "enrolled_at", _entered))
    register(Source("left", _ended, "finished_at", _left))


def _enrolments(lead: Lead, user: AnyUser) -> QuerySet[Any]:
    return Enrolment.objects.visible_to(user).filter(lead=lead).select_related("sequence")


def _ended(lead: Lead, user: AnyUser) -> QuerySet[Any]:
    return _enrolments(lead, user).filter(finished_at__isnull=False)


def _entered(row: Enrolment) -> Entry:
    return Entry(Place(row.enrolled_at, "enrolled", row.pk), "Entered a sequence", row.sequence.name, "", _details(row))


def _left(row: Any) -> Entry:
    text = f"{row.sequence.name}: {row.reason}" if row.reason else row.sequence.name
    return Entry(
        Place(row.finished_at, "left", row.pk), f"Sequence: {row.get_state_display()}", text, "", _details(row)
    )


def _details(row: Enrolment) -> dict[str, Any]:
    return {"enrolment": row.pk, "sequence": row.sequence_id, "state": row.state}
