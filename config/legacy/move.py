"""What the steps of a move share: who answers for it, what is known to have come over, and how findings are told."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from zoneinfo import ZoneInfo

from django.contrib.auth.models import User
from django.core.exceptions import ValidationError
from django.db import models

from config.legacy.report import Finding, Kind, Report
from config.legacy.source import Source
from config.legacy.words import Row, Unreadable
from config.models import LegacyRow

Progress = Callable[[str, int], None]
"""Is told a table and how many of its rows have been gone through."""

WOULD = 0
"""Stands for the id of a row that a dry run does not make."""


@dataclass(slots=True)
class Move:
    """One move, or the dry run of one. ``name`` tells one system before from another.

    ``owner``: everything goes to this user; else to the users that it belonged to. ``basis``: the declared ground on
    which these people may be written to; empty: no consent is noted. ``addresses``: where a gateway is, by its kind.
    """

    source: Source
    report: Report
    name: str
    by: User
    zone: ZoneInfo
    region: str
    now: Callable[[], datetime]
    owner: User | None = None
    basis: str = ""
    addresses: Mapping[str, str] = field(default_factory=dict)
    dry_run: bool = False
    on_progress: Progress = lambda _table, _done: None
    _known: dict[str, dict[str, int]] = field(default_factory=dict)

    def known(self, table: str) -> dict[str, int]:
        """Old ids that have come over (or, in a dry run, would have) and what they became; for small tables."""
        if table not in self._known:
            rows = LegacyRow.objects.filter(name=self.name, table=table).values_list("old_id", "new_id")
            self._known[table] = dict(rows)
        return self._known[table]

    def came(self, table: str, old_ids: Iterable[str]) -> dict[str, str]:
        """Those of ``old_ids`` that have come over, and what they lack; for large tables."""
        rows = LegacyRow.objects.filter(name=self.name, table=table, old_id__in=list(old_ids))
        return dict(rows.values_list("old_id", "lacks"))

    def keep(self, table: str, old_id: str, made: models.Model | int) -> None:
        """Note what ``old_id`` became, in the transaction that makes it."""
        new_id = made if isinstance(made, int) else made.pk
        if not self.dry_run:
            LegacyRow.objects.create(name=self.name, table=table, old_id=old_id, new_id=new_id, taken_at=self.now())

    def taken(self, table: str, old_id: str, made: models.Model | int) -> None:
        """Count it, and know it from now on: after the commit of :meth:`keep`."""
        self.known(table)[old_id] = made if isinstance(made, int) else made.pk
        self.report.of(table).taken += 1

    def each(self, table: str, columns: Sequence[str], take: Callable[[Move, str, Row], None]) -> None:
        """``take(move, old_id, row)`` every row of a small table that has not come over; one that it refuses with
        Unreadable is told and does not cost the others."""
        for row in self.source.rows(table, columns):
            old_id = str(row["id"])
            if old_id in self.known(table):
                self.report.of(table).there += 1
                continue
            try:
                take(self, old_id, row)
            except Unreadable as problem:
                self.refused(table, old_id, problem)

    # -- What is told --------------------------------------------------------------------------------------------------

    def refused(self, table: str, old_id: str, problem: Unreadable) -> None:
        """This row does not come over."""
        self.report.add(Finding(Kind.REFUSED, table, old_id, problem.field, problem.code, problem.text))

    def changed(self, table: str, old_id: str, field_: str, code: str, text: str) -> None:
        """This row comes over otherwise than it stood there."""
        self.report.add(Finding(Kind.CHANGED, table, old_id, field_, code, text))

    def to_do(self, table: str, old_id: str, field_: str, code: str, text: str) -> None:
        """Something that a person has to do or decide."""
        self.report.add(Finding(Kind.TO_DO, table, old_id, field_, code, text))

    def absent(self, table: str, field_: str, text: str) -> None:
        """Something that this install does not have."""
        self.report.add(Finding(Kind.ABSENT, table, "", field_, "absent", text))


def first_problem(error: ValidationError) -> Unreadable:
    """A model's refusal as one line; the field as it is called here."""
    if not hasattr(error, "error_dict"):
        return Unreadable("", "invalid", " ".join(error.messages))
    field_, texts = next(iter(error.message_dict.items()))
    return Unreadable("" if field_ == "__all__" else field_, "invalid", " ".join(texts))
