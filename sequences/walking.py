"""The tick: looks at the enrolments whose time has come, moves each once, and hands due steps to messaging.

One round is one transaction: an enrolment and its message change together, so that a crash in between leaves neither.
Rounds may run anywhere at once; what another holds is left to it.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from time import monotonic
from typing import Any

import structlog
from django.db import connection, transaction

from messaging import adding
from messaging.models import Batch
from sequences import entry, routes
from sequences.models import Sequence as SequenceRow
from sequences.models import SequenceState, StepBatch
from sequences.moves import WITHDRAWALS, Facts, Move, Sent, decide
from sequences.route import Stop

log = structlog.get_logger(__name__)

AT_ONCE = 2_000
"""Enrolments per transaction."""
SECONDS = 5.0
"""How long one tick goes on."""

# Whoever pauses a sequence or applies an edit waits until no round works by the old state or steps any more.
_ACTIVE = "SELECT id FROM sequences_sequence WHERE state = 'active' ORDER BY id FOR SHARE SKIP LOCKED"

# Index enrolment_look, sequence by sequence, so that what waits in a paused one stands in nobody's way.
DUE = """
SELECT e.id FROM unnest(%(sequences)s::bigint[]) AS s (id)
CROSS JOIN LATERAL (
    SELECT id FROM sequences_enrolment
    WHERE sequence_id = s.id AND look_at IS NOT NULL AND look_at <= %(now)s
    ORDER BY look_at LIMIT %(limit)s FOR NO KEY UPDATE SKIP LOCKED
) e
LIMIT %(limit)s
"""

# A statement of its own, whose snapshot is later than the locks. Primary keys only.
_FACTS = """
SELECT e.id, e.sequence_id, e.lead_id, l.device_id,
       e.state, e.code, e.next_key, e.last_key, e.base_at, e.due_at, e.reply_no, e.turn,
       l.phone, l.time_zone, l.triggers, l.times_replied, l.opted_out_at IS NOT NULL, l.review_at IS NOT NULL,
       d.id IS NOT NULL, coalesce(d.state = 'active', false),
       e.message_id, e.handed_at, m.state, m.sent_at, m.presumed_at, m.queued_at, m.error_code, m.error_text
FROM sequences_enrolment e
JOIN leads_lead l ON l.id = e.lead_id
LEFT JOIN devices_device d ON d.id = l.device_id
LEFT JOIN messaging_message m ON m.id = e.message_id
WHERE e.id = ANY(%(ids)s)
"""

_WRITE = """
UPDATE sequences_enrolment e
SET state = w.state, code = w.code, reason = w.reason, next_key = w.next_key, last_key = w.last_key,
    base_at = w.base_at, due_at = w.due_at, look_at = w.look_at, reply_no = w.reply_no, turn = w.turn,
    message_id = CASE WHEN w.message_id IS NOT NULL THEN w.message_id WHEN w.keeps THEN e.message_id END,
    handed_at = CASE WHEN w.message_id IS NOT NULL THEN %(now)s WHEN w.keeps THEN e.handed_at END,
    finished_at = CASE WHEN w.state IN ('completed', 'exited', 'failed') THEN coalesce(e.finished_at, %(now)s) END
FROM jsonb_to_recordset(%(rows)s) AS w (
    id bigint, state text, code text, reason text, next_key bigint, last_key bigint, base_at timestamptz,
    due_at timestamptz, look_at timestamptz, reply_no int, turn int, message_id bigint, keeps boolean)
WHERE e.id = w.id
"""


@dataclass(frozen=True, slots=True)
class Looked:
    """One enrolment in a round: what is known, and whom and what it is about."""

    facts: Facts
    sequence_id: int
    lead_id: int
    device_id: int | None
    message_id: int | None


@dataclass(frozen=True, slots=True)
class Walked:
    """What one round came to."""

    looked: int = 0
    handed: int = 0
    ended: int = 0


def walk(*, now: datetime, seconds: float = SECONDS, at_once: int = AT_ONCE) -> Walked:
    """Rounds until nothing is due, or for about ``seconds``."""
    ends_at = monotonic() + seconds
    looked = handed = ended = 0
    while True:
        done = walk_round(now=now, at_once=at_once)
        looked, handed, ended = looked + done.looked, handed + done.handed, ended + done.ended
        if not done.looked or monotonic() > ends_at:
            return Walked(looked, handed, ended)


def walk_round(*, now: datetime, at_once: int = AT_ONCE) -> Walked:
    """Move each enrolment that is due once, up to ``at_once`` of them."""
    with transaction.atomic():
        ids = due(now=now, limit=at_once)
        if not ids:
            return Walked()
        rows = facts_of(ids)
        rules = routes.rules_of({row.sequence_id for row in rows})
        moves = [(row, decide(row.facts, rules[row.sequence_id], now=now)) for row in rows]
        _withdraw(moves)
        messages = _hand_over(moves, now=now)
        _write(moves, messages, now=now)
        _chain(moves, now=now)
    ended = sum(not move.live for _, move in moves)
    if messages or ended:
        log.info("sequences.walked", looked=len(rows), handed_over=len(messages), ended=ended)
    return Walked(len(rows), len(messages), ended)


def due(*, now: datetime, limit: int) -> list[int]:
    """Lock the enrolments whose time has come; their ids."""
    with connection.cursor() as cursor:
        cursor.execute(_ACTIVE)
        sequences = [pk for (pk,) in cursor.fetchall()]
        cursor.execute(DUE, {"sequences": sequences, "now": now, "limit": limit})
        return [pk for (pk,) in cursor.fetchall()]


def facts_of(ids: Sequence[int]) -> list[Looked]:
    """What is known about these enrolments now."""
    with connection.cursor() as cursor:
        cursor.execute(_FACTS, {"ids": list(ids)})
        return [_looked(row) for row in cursor.fetchall()]


def _looked(row: tuple[Any, ...]) -> Looked:
    pk, sequence_id, lead_id, device_id, *known = row
    message_id, handed_at, state, *news = known[16:]
    message = None
    if handed_at is not None:
        sent_at, presumed_at, queued_at, code, text = news
        message = Sent(state or "", handed_at, sent_at, presumed_at, queued_at, code or "", text or "")
    (e_state, e_code, next_key, last_key, base_at, due_at, reply_no, turn) = known[:8]
    phone, zone, triggers, replied, opted_out, in_review, has_device, able = known[8:16]
    facts = Facts(
        enrolment_id=pk, state=e_state, code=e_code, next_key=next_key, last_key=last_key, base_at=base_at,
        due_at=due_at, reply_no=reply_no, turn=turn, phone=phone, stated_zone=zone, triggers=tuple(triggers),
        times_replied=replied, opted_out=opted_out, in_review=in_review, has_device=has_device, device_able=able,
        message=message,
    )  # fmt: skip
    return Looked(facts, sequence_id, lead_id, device_id, message_id)


def _withdraw(moves: Iterable[tuple[Looked, Move]]) -> None:
    """Take back messages of those who leave, go another way or are too late. Messages before streams, as everywhere."""
    by_reason: dict[str, list[int]] = defaultdict(list)
    for row, move in moves:
        if move.withdraw and row.message_id is not None:
            by_reason[move.withdraw].append(row.message_id)
    for code, ids in sorted(by_reason.items()):
        adding.withdraw(message_ids=ids, code=code, text=WITHDRAWALS[code])


def _hand_over(moves: Iterable[tuple[Looked, Move]], *, now: datetime) -> dict[int, int]:
    """Make messages of the steps that are due; ``{enrolment: message}``."""
    groups: dict[tuple[int, int, int], list[tuple[Looked, Move, Stop]]] = defaultdict(list)
    for row, move in moves:
        if move.hand_over is not None and row.device_id is not None:
            groups[row.sequence_id, move.hand_over.key, move.turn].append((row, move, move.hand_over))
    made: dict[int, int] = {}
    for (sequence_id, _key, turn), group in sorted(groups.items(), key=lambda item: item[0]):
        batch = batch_of(sequence_id=sequence_id, stop=group[0][2], turn=turn, now=now)
        additions = [
            adding.Addition(row.lead_id, row.device_id or 0, row.facts.phone, move.reply_no if move.bound else None)
            for row, move, _ in group
        ]
        found = adding.add(batch=batch, additions=additions, now=now)
        made.update((row.facts.enrolment_id, found[row.lead_id]) for row, _, _ in group if row.lead_id in found)
    return made


def batch_of(*, sequence_id: int, stop: Stop, turn: int, now: datetime) -> Batch:
    """The batch of this content of a step, made when it is first needed."""
    place = {"sequence_id": sequence_id, "key": stop.key, "revision": stop.revision, "turn": turn}
    found = StepBatch.objects.filter(**place).select_related("batch").first()
    if found is not None:
        return found.batch
    sequence = SequenceRow.objects.select_related("owner").get(pk=sequence_id)
    batch = adding.open_growing(
        owner=sequence.owner,
        name=f"{sequence}, step {stop.position}"[:200],
        origin=f"sequence-{sequence_id}-{stop.key}-{stop.revision}-{turn}",
        content=stop.content,
        delay_min_seconds=sequence.delay_min_seconds,
        delay_max_seconds=sequence.delay_max_seconds,
        running=sequence.state != SequenceState.PAUSED,
        now=now,
    )
    return StepBatch.objects.get_or_create(**place, defaults={"batch": batch})[0].batch


def _write(moves: Iterable[tuple[Looked, Move]], messages: Mapping[int, int], *, now: datetime) -> None:
    rows = []
    for row, move in moves:
        pk = row.facts.enrolment_id
        rows.append(
            {
                "id": pk,
                "state": move.state,
                "code": move.code,
                "reason": move.reason,
                "next_key": move.next_key,
                "last_key": move.last_key,
                "base_at": _iso(move.base_at),
                "due_at": _iso(move.due_at),
                "look_at": _iso(move.look_at),
                "reply_no": move.reply_no,
                "turn": move.turn,
                "message_id": messages.get(pk),
                "keeps": move.keeps_message,
            }
        )
    with connection.cursor() as cursor:
        cursor.execute(_WRITE, {"rows": json.dumps(rows), "now": now})


def _chain(moves: Iterable[tuple[Looked, Move]], *, now: datetime) -> None:
    """Whoever has come to the end goes on with the next sequence."""
    completed: dict[int, list[int]] = defaultdict(list)
    for row, move in moves:
        if move.state == "completed":
            completed[row.sequence_id].append(row.facts.enrolment_id)
    for sequence_id, enrolments in sorted(completed.items()):
        entry.go_on(sequence_id=sequence_id, enrolment_ids=enrolments, now=now)


def _iso(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat()
