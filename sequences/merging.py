"""Two leads become one: what their enrolments make of it."""

from __future__ import annotations

from django.db.models import Case, F, When

from leads.models import Lead
from messaging import adding
from sequences.models import LIVE, Enrolment
from sequences.moves import ENDINGS


def repoint(*, survivor: Lead, other: Lead) -> int:
    """Give the survivor the other's enrolments; how many there were.

    Where both were in one sequence, whoever has ended speaks for both, so that nobody walks through it twice; what the
    one that goes had on its way is taken back. Both leads are as they were locked: they have written together as often
    as each of them, and whoever has not been outrun by a reply is not by the merger.
    """
    rows = Enrolment.objects.select_for_update().filter(lead__in=[survivor, other]).order_by("pk")
    mine = {row.sequence_id: row for row in rows if row.lead_id == survivor.pk}
    theirs = [row for row in rows if row.lead_id == other.pk]
    losers = []
    for row in theirs:
        own = mine.get(row.sequence_id)
        if own is not None:
            losers.append(own if own.state in LIVE and row.state not in LIVE else row)
    waiting = [row.message_id for row in losers if row.message_id is not None and row.state in LIVE]
    adding.withdraw(message_ids=waiting, code="removed", text=ENDINGS["removed"])
    Enrolment.objects.filter(pk__in=[row.pk for row in losers]).delete()
    together = survivor.times_replied + other.times_replied
    for lead in (survivor, other):
        Enrolment.objects.filter(lead=lead).update(
            reply_no=Case(When(reply_no=lead.times_replied, then=together), default=F("reply_no"))
        )
    Enrolment.objects.filter(lead=other).update(lead=survivor)
    return len(theirs)
