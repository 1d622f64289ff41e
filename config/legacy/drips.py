"""Sequences with their steps, and how far people had come in them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence as Rows
from datetime import time
from itertools import islice
from typing import Final

from django.core.exceptions import ValidationError
from django.db import transaction
from psycopg2 import sql

from config.legacy.move import WOULD, Move, first_problem
from config.legacy.people import owner_of
from config.legacy.words import (
    Row,
    Unreadable,
    clock_of,
    delay_minutes_of,
    delays_of,
    tags_of,
    text_of,
    wording_of,
)
from leads.models import Lead
from leads.phones import PhoneProblem, parse_phone
from sequences import arriving
from sequences.models import EnrolmentState, Sequence, Step

SEQUENCES: Final = "sequences"
STEPS: Final = "sequence_steps"
CONTACTS: Final = "sequence_contacts"
_UNTIL: Final = time(23, 59)
_AT_ONCE: Final = 2_000


def take_sequences(move: Move) -> None:
    """Each as a draft; then who leads on to whom."""
    columns = (
        "user_id", "name", "niche", "target_status", "status", "trigger", "time_schedule", "min_delay_seconds",
        "max_delay_seconds", "auto_enroll",
    )  # fmt: skip
    steps = _steps(move)
    fresh: dict[str, Row] = {}

    def take(move: Move, old_id: str, row: Row) -> None:
        _take_sequence(move, old_id, row, steps.get(old_id, []))
        fresh[old_id] = row

    move.each(SEQUENCES, columns, take)
    _chain(move, fresh, steps)


def _steps(move: Move) -> dict[str, list[Row]]:
    """Their steps by sequence: the entry point first, then by day."""
    columns = (
        "sequence_id", "day_number", "trigger", "next_trigger", "trigger_delay_hours", "is_entry_point",
        "message_type", "content", "media_url", "caption", "time_schedule", "delay_days",
    )  # fmt: skip
    found: defaultdict[str, list[Row]] = defaultdict(list)
    for row in move.source.rows(STEPS, columns, order=("day_number", "id")):
        found[text_of(row, "sequence_id")].append(row)
    for rows in found.values():
        rows.sort(key=lambda row: not row.get("is_entry_point"))  # stable: days stay in order
    return found


def entry_trigger(row: Row, steps: Rows[Row]) -> str:
    """The tag by which leads came into a sequence there."""
    first = steps[0] if steps else {}
    tags = tags_of(row, "trigger") or tags_of(first, "trigger")
    return tags[0] if tags else ""


def _take_sequence(move: Move, old_id: str, row: Row, theirs: Rows[Row]) -> None:
    owner_id = owner_of(move, row)
    low, high = delays_of(row, least=10, most=30)
    sequence = Sequence(
        owner_id=owner_id or move.by.pk,
        name=" ".join(text_of(row, "name").split())[:150] or f"Sequence {old_id}"[:150],
        trigger=entry_trigger(row, theirs),
        delay_min_seconds=low,
        delay_max_seconds=high,
        time_zone=move.zone.key,
    )
    try:
        sequence.full_clean(exclude=["owner"])
    except ValidationError as error:
        raise first_problem(error) from None
    steps = _drafted(move, row, theirs)
    if not move.dry_run:
        with transaction.atomic():
            sequence.save()
            for step in steps:
                step.sequence = sequence
                step.save()
            move.keep(SEQUENCES, old_id, sequence)
    move.taken(SEQUENCES, old_id, sequence.pk or WOULD)
    move.report.of(STEPS).taken += len(steps)
    _tell(move, old_id, row)


def _tell(move: Move, old_id: str, row: Row) -> None:
    if text_of(row, "status").lower() == "active":
        text = "It was active there: look at the draft and activate it."
        move.to_do(SEQUENCES, old_id, "status", "to_activate", text)
    if text_of(row, "niche") or text_of(row, "target_status").lower() in {"prospect", "customer"}:
        text = "Here everybody with its trigger tag comes in, whatever their niche or status: look whether that is so."
        move.changed(SEQUENCES, old_id, "niche", "wider", text)
    if row.get("auto_enroll") is False:
        text = "It let nobody in by itself there; here, once active, its trigger tag does: empty that to prevent it."
        move.changed(SEQUENCES, old_id, "auto_enroll", "enrols", text)


def _drafted(move: Move, row: Row, theirs: Rows[Row]) -> list[Step]:
    """Its steps as they are here; those that cannot be are told one by one."""
    steps: list[Step] = []
    before: Row | None = None
    for each in theirs:
        old_id = str(each["id"])
        try:
            step = _step(move, old_id, row, each, position=len(steps) + 1, before=before)
            step.full_clean(exclude=["sequence"], validate_unique=False, validate_constraints=False)
        except Unreadable as problem:
            move.refused(STEPS, old_id, problem)
            continue
        except ValidationError as error:
            move.refused(STEPS, old_id, first_problem(error))
            continue
        steps.append(step)
        before = each
    return steps


def _step(move: Move, old_id: str, row: Row, each: Row, *, position: int, before: Row | None) -> Step:
    text, changed = wording_of(text_of(each, "content") or text_of(each, "caption"))
    if changed:
        move.changed(STEPS, old_id, "content", "places", "Places like {name} are written as {{ name }} here.")
    if not text:
        raise Unreadable("content", "no_text", "It has no text, and steps here are texts: write one on the sequence.")
    if text_of(each, "media_url"):
        text_ = "Its attachment was left out, since steps here are texts: put a link into the text if it is needed."
        move.changed(STEPS, old_id, "media_url", "no_media", text_)
    start = clock_of(each) or clock_of(row)
    minutes = delay_minutes_of(each, first=position == 1, before=before)
    step = Step(position=position, text=text, delay_minutes=minutes)
    if start is not None:
        step.window_start, step.window_end = start, _UNTIL
    return step


def _chain(move: Move, fresh: dict[str, Row], steps: dict[str, list[Row]]) -> None:
    """A sequence whose last step hands on the tag by which another one is entered leads there."""
    by_trigger: dict[tuple[str, str], str] = {}
    for row in move.source.rows(SEQUENCES, ("user_id", "trigger")):
        old_id = str(row["id"])
        try:
            tag = entry_trigger(row, steps.get(old_id, []))
        except Unreadable:  # told when it was not taken
            continue
        if tag and old_id in move.known(SEQUENCES):
            by_trigger.setdefault((text_of(row, "user_id"), tag), old_id)
    for old_id, row in fresh.items():
        handed_on = [text_of(step, "next_trigger") for step in steps.get(old_id, []) if text_of(step, "next_trigger")]
        target = by_trigger.get((text_of(row, "user_id"), handed_on[-1])) if handed_on else None
        if target is None or target == old_id or move.dry_run:
            continue
        sequence = Sequence.objects.get(pk=move.known(SEQUENCES)[old_id])
        sequence.next_sequence = Sequence.objects.filter(pk=move.known(SEQUENCES)[target]).first()
        try:
            sequence.clean()
        except ValidationError as error:
            text = f"It leads on to another sequence no more. {first_problem(error).text}"
            move.changed(SEQUENCES, old_id, "next_trigger", "ring", text)
            continue
        sequence.save(update_fields=["next_sequence"])


# -- How far people had come -------------------------------------------------------------------------------------------

_CONTACTS = """
SELECT sequence_id, contact_phone, array_agg(DISTINCT lower(coalesce(status, ''))) AS states, {step} AS step
FROM {contacts} WHERE sequence_id IS NOT NULL GROUP BY sequence_id, contact_phone ORDER BY sequence_id, contact_phone
"""
_OVER: Final = frozenset({"completed", "sent"})


def take_contacts(move: Move) -> None:
    """Whoever had been let in there does not begin again here. Those in the middle are listed: they stop where they
    were, until a person decides."""
    if not move.source.has(CONTACTS, "sequence_id", "contact_phone", "status"):
        return
    step = sql.SQL("max(current_step)" if move.source.has(CONTACTS, "current_step") else "NULL::int")
    statement = sql.SQL(_CONTACTS).format(step=step, contacts=move.source.table(CONTACTS))
    rows, done = move.source.ask(statement, name="flotilla_contacts"), 0
    while stretch := list(islice(rows, _AT_ONCE)):
        by_sequence: defaultdict[str, list[Row]] = defaultdict(list)
        for row in stretch:
            by_sequence[text_of(row, "sequence_id")].append(row)
        for old_id, contacts in by_sequence.items():
            _note_contacts(move, old_id, contacts)
        done += len(stretch)
        move.on_progress(CONTACTS, done)


def _note_contacts(move: Move, old_id: str, contacts: Rows[Row]) -> None:
    tally = move.report.of(CONTACTS)
    sequence = Sequence.objects.filter(pk=move.known(SEQUENCES).get(old_id, WOULD)).first()
    if sequence is None:
        if old_id not in move.known(SEQUENCES):
            text = f"{len(contacts):,} people were in a sequence that has not come over."
            move.refused(CONTACTS, old_id, Unreadable("sequence_id", "no_sequence", text))
        return  # a dry run made none; one that was deleted here stays so
    phones: dict[str, Row] = {}
    for row in contacts:
        try:
            phones[parse_phone(text_of(row, "contact_phone"), region=move.region)] = row
        except PhoneProblem as problem:
            move.refused(CONTACTS, old_id, Unreadable("contact_phone", problem.code, problem.text))
    leads = dict(Lead.objects.filter(owner_id=sequence.owner_id, phone__in=list(phones)).values_list("phone", "pk"))
    ends = {pk: _end(phones[phone]) for phone, pk in leads.items()}
    for _ in range(len(phones) - len(leads)):
        text = "Somebody in it is no lead here: they come in when they are one and get its tag."
        move.refused(CONTACTS, old_id, Unreadable("contact_phone", "no_lead", text))
    made = 0 if move.dry_run else arriving.note_earlier(sequence=sequence, leads=ends, now=move.now())
    tally.taken += made
    tally.there += len(ends) - made
    for lead_id, (state, _) in sorted(ends.items()):
        if state == EnrolmentState.EXITED:
            text = f"Lead {lead_id} was in the middle there and has stopped: send the rest by hand if it should go on."
            move.to_do(CONTACTS, old_id, "status", "in_the_middle", text)


def _end(row: Row) -> tuple[EnrolmentState, str]:
    """How their way ended: of several rows for one person the one that goes on counts most."""
    states = set(row["states"])
    step = f" (step {row['step']})" if row.get("step") else ""
    if states <= _OVER:
        return EnrolmentState.COMPLETED, "Went through it in the system before."
    if states <= _OVER | {"failed"}:
        return EnrolmentState.FAILED, f"Failed in the system before{step}."
    return EnrolmentState.EXITED, f"Was in it in the system before{step}."
