"""Two leads become one: what their enrolments make of it."""

from __future__ import annotations

from leads.models import Lead
from sequences.models import Enrolment, EnrolmentState

_LIVE = frozenset({EnrolmentState.ACTIVE, EnrolmentState.PAUSED})


def repoint(*, survivor: Lead, other: Lead) -> int:
    """Give the survivor the other's enrolments; how many there were.

    Where both were in one sequence, whoever has ended speaks for both, so that nobody walks through it twice.
    """
    rows = Enrolment.objects.select_for_update().filter(lead__in=[survivor, other]).order_by("pk")
    mine = {row.sequence_id: row for row in rows if row.lead_id == survivor.pk}
    theirs = [row for row in rows if row.lead_id == other.pk]
    for row in theirs:
        own = mine.get(row.sequence_id)
        if own is None:
            continue
        loser = own if own.state in _LIVE and row.state not in _LIVE else row
        loser.delete()
    Enrolment.objects.filter(lead=other).update(lead=survivor)
    return len(theirs)
