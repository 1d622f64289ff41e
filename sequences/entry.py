"""Coming into a sequence: by a trigger tag, by hand, by API, or from another sequence. Once, however it is asked.

Tags are pulled: a sequence first goes through all leads there are, a bounded number each tick, and then only through
those that have changed since. That the unique (sequence, lead) makes it once allows both to look twice.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import structlog
from django.db import connection, transaction
from django.db.models import Exists, OuterRef, Q, QuerySet

from leads.audience import Audience
from leads.models import Lead
from sequences import routes
from sequences.models import LIVE, Enrolment, EntrySource, SequenceState
from sequences.models import Sequence as SequenceRow

log = structlog.get_logger(__name__)

AT_ONCE = 5_000
"""Leads per sequence and tick."""
OVERLAP = timedelta(minutes=2)
"""A lead's change may be committed so long after the time it carries."""
BELT = timedelta(days=1)
"""So often all leads are gone through again, should a change have come later than that."""


class EntryRefused(Exception):  # noqa: N818 - reads as a fact
    """Nobody can enter this sequence now; ``field`` names what to change."""

    def __init__(self, code: str, text: str, field: str = "") -> None:
        super().__init__(text)
        self.code = code
        self.text = text
        self.field = field


@dataclass(frozen=True, slots=True)
class Entered:
    """Enrolments that were made or begun anew, and how many leads were left out, by reason."""

    enrolments: tuple[int, ...]
    left_out: dict[str, int] = field(default_factory=dict)


# A lead that is there already stays where it is, unless it has left and may come again: then its row begins anew, with
# another turn, so that what it gets once more is not taken for what it had.
_ENTER = """
INSERT INTO sequences_enrolment
    (sequence_id, lead_id, state, code, reason, source, turn, path, next_key, base_at, look_at, reply_no, enrolled_at)
SELECT %(sequence)s, l.id, 'active', '', '', %(source)s, 1, '{}', %(first)s, %(now)s, %(now)s, l.times_replied, %(now)s
FROM leads_lead l WHERE l.id = ANY(%(leads)s)
ORDER BY l.id
ON CONFLICT (sequence_id, lead_id) DO UPDATE
SET state = 'active', code = '', reason = '', source = excluded.source, turn = sequences_enrolment.turn + 1,
    path = excluded.path, next_key = excluded.next_key, last_key = NULL, base_at = excluded.base_at, due_at = NULL,
    look_at = excluded.look_at, message_id = NULL, handed_at = NULL, reply_no = excluded.reply_no,
    enrolled_at = excluded.enrolled_at, finished_at = NULL
WHERE %(re_entry)s AND sequences_enrolment.state NOT IN ('active', 'paused')
RETURNING id, lead_id
"""

# From the end of one sequence into the next. The path keeps a ring of sequences from being walked twice.
_GO_ON = _ENTER.replace("'{}'", "f.path || f.sequence_id").replace(
    "FROM leads_lead l WHERE l.id = ANY(%(leads)s)",
    """FROM sequences_enrolment f JOIN leads_lead l ON l.id = f.lead_id
WHERE f.id = ANY(%(enrolments)s) AND %(sequence)s <> ALL (f.path || f.sequence_id)
  AND l.opted_out_at IS NULL""",
)


def enrol(*, sequence: SequenceRow, leads: QuerySet[Lead], source: EntrySource, now: datetime) -> Entered:
    """Let these leads of the sequence's owner in, at most :data:`AT_ONCE` times ten at once. Raises EntryRefused."""
    if sequence.state == SequenceState.DRAFT:
        raise EntryRefused("not_active", "This sequence is a draft: activate it first.", "state")
    mine = leads.filter(owner_id=sequence.owner_id).order_by("pk")
    asked = list(mine.values_list("pk", flat=True)[: 10 * AT_ONCE + 1])
    if len(asked) > 10 * AT_ONCE:
        raise EntryRefused(
            "too_many", f"At most {10 * AT_ONCE:,} leads at once: filter, or let them in by a trigger tag.", "leads"
        )
    audience = Audience(owner_id=sequence.owner_id)
    willing = list(audience.reachable().filter(pk__in=asked).order_by("pk").values_list("pk", flat=True))
    made = _enter(sequence, willing, source=source, now=now)
    return Entered(tuple(made), _left_out(asked, willing, made))


def pull(*, now: datetime) -> int:
    """The tick: let in whoever carries the trigger of an active sequence; how many."""
    number = 0
    active = SequenceRow.objects.filter(state=SequenceState.ACTIVE).exclude(trigger="").order_by("pk")
    for sequence_id in active.values_list("pk", flat=True):
        number += _pull(sequence_id, now)
    return number


def go_on(*, sequence_id: int, enrolment_ids: Sequence[int], now: datetime) -> int:
    """Let those who have come to the end of a sequence into the one that follows it, if any; how many."""
    following = SequenceRow.objects.filter(previous=sequence_id).exclude(state=SequenceState.DRAFT).first()
    if following is None:
        return 0
    made = _run(_GO_ON, following, {"enrolments": list(enrolment_ids)}, source=EntrySource.CHAIN, now=now)
    if made:
        log.info("sequence.chained", sequence_id=following.pk, came_from=sequence_id, enrolled=len(made))
    return len(made)


def _pull(sequence_id: int, now: datetime) -> int:
    with transaction.atomic():
        found = SequenceRow.objects.select_for_update(skip_locked=True, no_key=True).filter(pk=sequence_id)
        sequence = found.filter(state=SequenceState.ACTIVE).first()
        if sequence is None:
            return 0
        if sequence.swept_trigger != sequence.trigger or sequence.heard_at is None:
            sequence.swept_trigger, sequence.swept_to, sequence.heard_at = sequence.trigger, 0, now
        elif sequence.swept_to is None and now - sequence.heard_at > BELT:
            sequence.swept_to = 0
        number = _sweep(sequence, now) + _changed(sequence, now)
        sequence.save(update_fields=["swept_trigger", "swept_to", "heard_at"])
    if number:
        log.info("sequence.pulled", sequence_id=sequence_id, enrolled=number)
    return number


def _sweep(sequence: SequenceRow, now: datetime) -> int:
    """The next leads by id, if not all have been gone through."""
    if sequence.swept_to is None:
        return 0
    rows = _carrying(sequence).filter(pk__gt=sequence.swept_to).order_by("pk")
    ids = list(rows.values_list("pk", flat=True)[:AT_ONCE])
    made = _enter(sequence, ids, source=EntrySource.TAG, now=now)
    sequence.swept_to = ids[-1] if len(ids) == AT_ONCE else None
    return len(made)


def _changed(sequence: SequenceRow, now: datetime) -> int:
    """Those that were changed since the last look, and are not in it yet. Index lead_tagged_updated."""
    since = min(sequence.heard_at or now, now) - OVERLAP
    there = Enrolment.objects.filter(sequence=sequence, lead=OuterRef("pk"))
    if sequence.re_entry:
        there = there.filter(state__in=LIVE)
    rows = _carrying(sequence).exclude(triggers=[]).filter(~Q(Exists(there)), updated_at__gte=since)
    ids = list(rows.order_by("updated_at", "pk").values_list("pk", flat=True)[:AT_ONCE])
    made = _enter(sequence, ids, source=EntrySource.TAG, now=now)
    if len(ids) < AT_ONCE:
        sequence.heard_at = now
    return len(made)


def _carrying(sequence: SequenceRow) -> QuerySet[Lead]:
    found = Audience(owner_id=sequence.owner_id, triggers=(sequence.trigger,)).reachable()
    return found.exclude(triggers__contains=[sequence.goal]) if sequence.goal else found


def _enter(sequence: SequenceRow, leads: Sequence[int], *, source: EntrySource, now: datetime) -> dict[int, int]:
    """``{enrolment: lead}`` of those who came in."""
    if not leads:
        return {}
    with transaction.atomic():
        made = _run(_ENTER, sequence, {"leads": list(leads)}, source=source, now=now)
        if sequence.re_entry and sequence.trigger and made:
            _take_trigger_off(sequence, made.values(), now=now)
    return made


def _run(
    statement: str, sequence: SequenceRow, who: dict[str, Any], *, source: EntrySource, now: datetime
) -> dict[int, int]:
    first = routes.in_force(sequence).first()
    params = {
        **who,
        "sequence": sequence.pk,
        "source": source.value,
        "first": first.key if first else None,
        "re_entry": sequence.re_entry,
        "now": now,
    }
    with connection.cursor() as cursor:
        cursor.execute(statement, params)
        return dict(cursor.fetchall())


def _take_trigger_off(sequence: SequenceRow, leads: Collection[int], *, now: datetime) -> None:
    """So that putting it on again lets the lead in again, and leaving it there does not. Kept in the lead's history."""
    with connection.cursor() as cursor:
        cursor.execute(
            """WITH old AS MATERIALIZED (
                   SELECT id, triggers FROM leads_lead
                   WHERE id = ANY(%(leads)s) AND triggers @> ARRAY[%(tag)s]::varchar[] ORDER BY id FOR NO KEY UPDATE
               ), taken AS (
                   UPDATE leads_lead l SET triggers = array_remove(l.triggers, %(tag)s::varchar), updated_at = %(now)s
                   FROM old WHERE l.id = old.id RETURNING l.id, l.triggers
               )
               INSERT INTO leads_leadchange (lead_id, kind, channel, values, note, changed_at)
               SELECT old.id, 'edited', 'system', jsonb_build_object('triggers', jsonb_build_array(
                          to_jsonb(old.triggers), to_jsonb(taken.triggers))), %(note)s, %(now)s
               FROM old JOIN taken ON taken.id = old.id""",
            {"leads": list(leads), "tag": sequence.trigger, "note": f"Entered “{sequence}”"[:300], "now": now},
        )


def _left_out(asked: Sequence[int], willing: Sequence[int], made: dict[int, int]) -> dict[str, int]:
    entered = set(made.values())
    refused = Lead.objects.filter(pk__in=set(asked) - set(willing))
    opted_out = refused.filter(opted_out_at__isnull=False).count()
    in_review = refused.filter(opted_out_at__isnull=True, review_at__isnull=False).count()
    reasons = {
        "opted_out": opted_out,
        "in_review": in_review,
        "no_consent": len(asked) - len(willing) - opted_out - in_review,
        "there_already": len(willing) - len(entered),
    }
    return {reason: number for reason, number in reasons.items() if number}
