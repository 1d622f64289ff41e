"""Leads: a stretch of them at a time, each stretch with its notes in one transaction."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, islice
from typing import Final

from django.db import DataError, IntegrityError, transaction

from config.legacy.move import Move
from config.legacy.people import DEVICES, owner_of
from config.legacy.words import Row, Unreadable, status_of, tags_of, text_of
from config.models import LegacyRow
from devices.models import Device
from leads import arriving, storing
from leads.duplicates import united
from leads.imports import NAME_LENGTH, LeadRow
from leads.models import LeadImport
from leads.phones import PhoneProblem, parse_phone

LEADS: Final = "leads"
AT_ONCE: Final = 2_000
"""Leads per transaction: few enough that a refusal, which waits for the door meanwhile, waits no second."""
NO_DEVICE: Final = "device"
"""What a lead lacks whose device had not come over: when that has, the lead is looked at again."""


@dataclass(frozen=True, slots=True)
class _Person:
    """One row of theirs, read."""

    old_id: str
    owner_id: int
    device_id: int | None
    row: LeadRow
    lacks: str = ""


def take_leads(move: Move) -> None:
    """All leads. Those of one device follow one another, so that a stretch is few statements."""
    columns = ("user_id", "device_id", "name", "phone", "niche", "journey", "target_status", "trigger")
    rows = move.source.rows(LEADS, columns, order=("user_id", "device_id", "id"))
    done, counted_for = 0, None
    while stretch := list(islice(rows, AT_ONCE)):
        for (owner_id, device_id), people in _by_device(move, stretch):
            if not move.dry_run:
                _store(move, owner_id, device_id, people)
                continue
            if owner_id != counted_for:
                storing.begin_counting()
                counted_for = owner_id
            _count(move, owner_id, people)
        done += len(stretch)
        move.on_progress(LEADS, done)


def _by_device(move: Move, stretch: Sequence[Row]) -> Iterator[tuple[tuple[int, int | None], list[_Person]]]:
    came = move.came(LEADS, [str(row["id"]) for row in stretch])
    people = []
    for row in stretch:
        old_id = str(row["id"])
        device_known = text_of(row, "device_id") in move.known(DEVICES)
        if old_id in came and not (came[old_id] == NO_DEVICE and device_known):
            move.report.of(LEADS).there += 1
            continue
        try:
            people.append(_person(move, old_id, row))
        except Unreadable as problem:
            move.refused(LEADS, old_id, problem)
    for (owner_id, device_id), found in groupby(people, key=lambda person: (person.owner_id, person.device_id)):
        yield (owner_id, _own(move, owner_id, device_id, together := list(found))), together


def _own(move: Move, owner_id: int, device_id: int | None, people: Sequence[_Person]) -> int | None:
    """The device, unless it belongs to somebody else here."""
    if device_id is None or Device.objects.filter(pk=device_id, owner_id=owner_id).exists():
        return device_id
    text = "Its device belongs to another user: it came without. Give it one of its own user's."
    for person in people:
        move.changed(LEADS, person.old_id, "device_id", "device_of_another", text)
    return None


def _person(move: Move, old_id: str, row: Row) -> _Person:
    owner_id = owner_of(move, row)
    try:
        phone = parse_phone(text_of(row, "phone"), region=move.region)
    except PhoneProblem as problem:
        raise Unreadable("phone", problem.code, problem.text) from None
    name = " ".join(text_of(row, "name").split())
    device = text_of(row, "device_id")
    lacks = NO_DEVICE if device and device not in move.known(DEVICES) else ""
    lead = LeadRow(
        row_number=0,
        phone=phone,
        name=name[:NAME_LENGTH],
        status=status_of(row),
        niches=tags_of(row, "niche"),
        triggers=tags_of(row, "trigger"),
        notes=text_of(row, "journey"),
    )
    if len(name) > NAME_LENGTH:
        move.changed(LEADS, old_id, "name", "cut", f"The name was cut to {NAME_LENGTH} characters.")
    if lacks:
        move.changed(
            LEADS, old_id, "device_id", "no_device",
            "It came without its device, which has not come over: mend that one there and move over again, or give"
            " the lead another.",
        )  # fmt: skip
    return _Person(old_id, owner_id, move.known(DEVICES).get(device) or None, lead, lacks)


def _count(move: Move, owner_id: int, people: Sequence[_Person]) -> None:
    with transaction.atomic():
        rows = united((person.row for person in people), policy=LeadImport.Duplicates.MERGE)
        fresh = storing.count_rows(owner_id=owner_id, rows=rows)
    tally = move.report.of(LEADS)
    tally.taken += fresh
    tally.merged += len(people) - fresh


def _store(move: Move, owner_id: int, device_id: int | None, people: Sequence[_Person]) -> None:
    """These leads and the notes of where they came from. One that PostgreSQL refuses does not cost the others."""
    try:
        with transaction.atomic():
            arrived = arriving.take_in(
                owner_id=owner_id,
                rows=[person.row for person in people],
                device_id=device_id,
                consent_source=move.basis,
                note=f"Moved over from {move.name}",
                by_id=move.by.pk,
                now=move.now(),
            )
            notes = [
                LegacyRow(
                    name=move.name,
                    table=LEADS,
                    old_id=person.old_id,
                    new_id=arrived.leads[person.row.phone],
                    lacks=person.lacks,
                    taken_at=move.now(),
                )
                for person in people
            ]
            LegacyRow.objects.bulk_create(
                notes, update_conflicts=True, unique_fields=["name", "table", "old_id"], update_fields=["lacks"]
            )
    except (DataError, IntegrityError):
        if len(people) == 1:
            text = "The database does not take this row: look for unusual characters in it."
            move.refused(LEADS, people[0].old_id, Unreadable("", "not_storable", text))
            return
        half = len(people) // 2
        _store(move, owner_id, device_id, people[:half])
        _store(move, owner_id, device_id, people[half:])
        return
    tally = move.report.of(LEADS)
    tally.taken += arrived.fresh
    tally.merged += len(people) - arrived.fresh
    for person in people:
        if person.row.phone in arrived.elsewhere:
            move.changed(
                LEADS, person.old_id, "device_id", "one_device",
                "The same person stands there under several devices and has one here: give them another if it is the"
                " wrong one.",
            )  # fmt: skip
