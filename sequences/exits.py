"""Leaving, pausing and going on: what people do to enrolments, and what the tick hears about leads from elsewhere.

Nothing here is needed for a step not to go out after a reply or a refusal: the claim sees to that. This is what makes
it visible at once, instead of when the next step is due.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime, timedelta
from typing import Any

import structlog
from django.db import connection, transaction

from leads.models import ConsentEvent
from messaging import adding, retrying
from messaging.retrying import Retried
from messaging.states import State
from sequences.models import LIVE, Enrolment, EnrolmentState, Feed, Sequence, SequenceState
from sequences.moves import DEVICE, ENDINGS, PERSON, WITHDRAWALS

log = structlog.get_logger(__name__)

AT_ONCE = 20_000
"""Rows of news per tick and source."""
SETTLED = timedelta(minutes=1)
"""News is read again until it is so old: what was written before may be committed after."""
OVERLAP = timedelta(minutes=2)


def hear(*, now: datetime) -> int:
    """The tick: have those looked at whose lead wrote back, refused or reached the goal; how many."""
    return _replies(now) + _refusals(now) + _goals(now)


def remove(*, enrolment_ids: Collection[int], now: datetime) -> int:
    """Take leads out: what has not left yet never will. How many were in."""
    return _stop(
        enrolment_ids, code="removed", state=EnrolmentState.EXITED, reason=ENDINGS["removed"],
        finished_at=now, due_at=None, message=None, handed_at=None,
    )  # fmt: skip


def pause(*, enrolment_ids: Collection[int], reason: str = "") -> int:
    """Nothing more goes out to them until they are resumed. How many were active."""
    return _stop(
        enrolment_ids, code="paused", state=EnrolmentState.PAUSED, code_after=PERSON,
        reason=(reason or "Paused by hand.")[:200],
    )  # fmt: skip


def resume(*, enrolment_ids: Collection[int], now: datetime) -> int:
    """Go on: of what is overdue at most one step goes out, and the next counts from then. How many were paused."""
    paused = Enrolment.objects.filter(pk__in=enrolment_ids, state=EnrolmentState.PAUSED)
    return paused.update(state=EnrolmentState.ACTIVE, code="", reason="", look_at=now)


def retry_failed(*, sequence: Sequence, key: int | None, now: datetime, device_id: int | None = None) -> Retried:
    """Send failed steps again (of one step or device, or all), at most 10,000; whoever failed goes on from there."""
    found = Enrolment.objects.filter(sequence=sequence, state=EnrolmentState.FAILED, message__state=State.FAILED)
    if key is not None:
        found = found.filter(next_key=key)
    if device_id is not None:
        found = found.filter(message__device_id=device_id)
    with transaction.atomic():
        rows = list(
            found.select_for_update(of=["self"], no_key=True)
            .order_by("pk")
            .values_list("pk", "message_id")[: retrying.LIMIT]
        )
        messages = [message for _, message in rows if message is not None]
        retried = retrying.retry_failed(message_ids=messages, now=now)
        again = Enrolment.objects.filter(pk__in=[pk for pk, _ in rows], message__state=State.PENDING)
        again.update(
            state=EnrolmentState.ACTIVE, code="", reason="", finished_at=None, look_at=now, due_at=now, handed_at=now
        )
    return retried


def _stop(
    enrolment_ids: Collection[int],
    *,
    code: str,
    state: EnrolmentState,
    code_after: str = "",
    **columns: object,
) -> int:
    """Move live enrolments and take back what they have on its way, in one transaction."""
    with transaction.atomic():
        live = Enrolment.objects.filter(pk__in=enrolment_ids, state__in=LIVE).order_by("pk")
        if state == EnrolmentState.PAUSED:
            live = live.exclude(state=EnrolmentState.PAUSED, code=PERSON)
        rows = list(live.select_for_update(no_key=True).values_list("pk", "message_id"))
        adding.withdraw(message_ids=[m for _, m in rows if m is not None], code=code, text=WITHDRAWALS[code])
        Enrolment.objects.filter(pk__in=[pk for pk, _ in rows]).update(
            state=state, code=code_after or code, look_at=None, **columns
        )
    log.info("enrolments.stopped", code=code, number=len(rows))
    return len(rows)


def _replies(now: datetime) -> int:
    news = "SELECT id, lead_id, received_at AS at FROM messaging_inboundmessage WHERE true"
    return _news("replies", now, news=news, condition="l.times_replied <> e.reply_no")


def _refusals(now: datetime) -> int:
    kinds = f"'{ConsentEvent.Kind.OPTED_OUT.value}', '{ConsentEvent.Kind.SUPPRESSED.value}'"
    news = f"SELECT id, lead_id, recorded_at AS at FROM leads_consentevent WHERE kind IN ({kinds})"  # noqa: S608 - ours
    return _news("refusals", now, news=news, condition="l.opted_out_at IS NOT NULL")


# Primary key of the news, then the enrolments' index of leads.
_NEWS = """
WITH news AS MATERIALIZED ({news} AND id > %(cursor)s ORDER BY id LIMIT %(limit)s
), touched AS (
    UPDATE sequences_enrolment e SET look_at = %(now)s
    FROM leads_lead l
    WHERE e.id IN (SELECT i.id FROM sequences_enrolment i
                   WHERE i.state IN ('active', 'paused') AND i.lead_id IN (SELECT lead_id FROM news)
                   ORDER BY i.id FOR NO KEY UPDATE SKIP LOCKED)
      AND l.id = e.lead_id AND {condition} AND (e.look_at IS NULL OR e.look_at > %(now)s)
    RETURNING e.id
)
SELECT (SELECT count(*) FROM touched),
       coalesce((SELECT min(id) - 1 FROM news WHERE at > %(settled)s), (SELECT max(id) FROM news))
"""


def _news(name: str, now: datetime, *, news: str, condition: str) -> int:
    """Have the enrolments looked at whose lead has a new row in ``news``, if ``condition`` says that it matters."""
    with transaction.atomic(), connection.cursor() as cursor:
        Feed.objects.get_or_create(name=name)
        feed = Feed.objects.select_for_update(skip_locked=True).filter(name=name).first()
        if feed is None:
            return 0
        params: dict[str, Any] = {"cursor": feed.cursor, "limit": AT_ONCE, "now": now, "settled": now - SETTLED}
        cursor.execute(_NEWS.format(news=news, condition=condition), params)
        number, read_to = cursor.fetchone()
        if read_to is not None and read_to > feed.cursor:
            Feed.objects.filter(pk=feed.pk).update(cursor=read_to)
    return int(number)


def _goals(now: datetime) -> int:
    """Leads that were changed lately and carry the goal of a sequence they are in. Index lead_tagged_updated."""
    sequences = Sequence.objects.exclude(state=SequenceState.DRAFT).exclude(goal="")
    if not sequences.exists():
        return 0
    with connection.cursor() as cursor:
        cursor.execute(
            """UPDATE sequences_enrolment e SET look_at = %(now)s
               FROM (SELECT i.id FROM leads_lead l
                     JOIN sequences_enrolment i ON i.lead_id = l.id AND i.state IN ('active', 'paused')
                     JOIN sequences_sequence s ON s.id = i.sequence_id AND s.goal <> ''
                     WHERE NOT (l.triggers = '{}') AND l.updated_at >= %(since)s
                       AND l.triggers @> ARRAY[s.goal]::varchar[]
                     ORDER BY i.id LIMIT %(limit)s FOR NO KEY UPDATE OF i SKIP LOCKED) reached
               WHERE e.id = reached.id AND (e.look_at IS NULL OR e.look_at > %(now)s)""",
            {"now": now, "since": now - OVERLAP, "limit": AT_ONCE},
        )
        return int(cursor.rowcount)


def wake_paused(*, sequence: Sequence, now: datetime) -> int:
    """Look at once at those that wait for a device, instead of when their turn comes."""
    waiting = Enrolment.objects.filter(sequence=sequence, state=EnrolmentState.PAUSED, code=DEVICE)
    return waiting.update(look_at=now)
