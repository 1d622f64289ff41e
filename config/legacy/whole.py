"""A whole move, step by step, and the dry run of one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict

from django.db import connection

from config.acting import acting
from config.legacy import broadcasts, drips, leads, people
from config.legacy.move import Move
from config.legacy.source import TABLES
from config.models import LegacyMove, LegacyRow

ACTION = "manage.py import_legacy"
_LOCK = "flotilla.import_legacy"


class CannotMove(Exception):  # noqa: N818 - reads as a fact
    """The move is not begun: why, and what to do."""


def move_over(move: Move, *, sessions: bool = True) -> None:
    """Everything that ``move`` names. A dry run writes nothing at all. Interrupted, call it again.

    Raises CannotMove, :class:`~config.legacy.people.StillRunning` and
    :class:`~config.legacy.source.SourceProblem`.
    """
    with _alone():
        _refuse_another(move)
        if sessions and not move.dry_run and move.source.has("whatsmeow_device"):
            people.refuse_while_running(move)
        _tell_what_is_not_there(move)
        if move.dry_run:
            _steps(move, sessions=sessions)
            return
        with acting(user=move.by, action=ACTION):
            row = LegacyMove.objects.create(name=move.name, by=move.by, consent_basis=move.basis, started_at=move.now())
            _steps(move, sessions=sessions)
            row.counts = {table: asdict(tally) for table, tally in move.report.tallies.items()}
            row.finished_at = move.now()
            row.save(update_fields=["counts", "finished_at"])


def _steps(move: Move, *, sessions: bool) -> None:
    people.take_users(move)
    people.take_devices(move)
    people.adopt_sessions(move, wanted=sessions)
    leads.take_leads(move)
    broadcasts.take_campaigns(move)
    drips.take_sequences(move)
    drips.take_contacts(move)
    broadcasts.list_unsent(move)


@contextmanager
def _alone() -> Iterator[None]:
    """One move at a time in the whole fleet; the lock goes with the database session."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_try_advisory_lock(hashtext(%s))", [_LOCK])
        if not cursor.fetchone()[0]:
            raise CannotMove("Another import_legacy runs at this moment: wait for its end.")
        try:
            yield
        finally:
            cursor.execute("SELECT pg_advisory_unlock(hashtext(%s))", [_LOCK])


def _refuse_another(move: Move) -> None:
    """Two systems under one name would hide each other's rows where they have the same ids."""
    came = LegacyRow.objects.filter(name=move.name, table=people.DEVICES)
    if not came.exists() or not move.source.has(people.DEVICES, "id"):
        return
    known = set(came.values_list("old_id", flat=True))
    if not any(str(row["id"]) in known for row in move.source.rows(people.DEVICES, ())):
        raise CannotMove(
            f"No device that came over as “{move.name}” is in this database: it is another system. Give it a --name."
        )


def _tell_what_is_not_there(move: Move) -> None:
    for table in TABLES:
        if table not in move.source.columns:
            text = "This install has no such table here: newer ones keep it in MySQL. Copy it into this database first."
            move.absent(table, "", text)
    for table, number in move.source.unread():
        move.absent(table, "", f"A table that is not read: its {number:,} rows stay there.")
