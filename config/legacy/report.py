"""What a move came to: a line for everything a person has to know, and counts."""

from __future__ import annotations

import csv
import os
from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from leads.cells import guarded


class Kind(StrEnum):
    """How a finding is to be read."""

    REFUSED = "not taken"
    CHANGED = "taken with a change"
    TO_DO = "to do"
    ABSENT = "not in this install"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line: where, what, and what to do. Never a person's name or number, nor a secret."""

    kind: Kind
    table: str
    old_id: str
    field: str
    code: str
    text: str


@dataclass(slots=True)
class Tally:
    """Rows of one table."""

    taken: int = 0
    there: int = 0
    merged: int = 0
    refused: int = 0

    @property
    def seen(self) -> int:
        """Rows looked at."""
        return self.taken + self.there + self.merged + self.refused


@dataclass(slots=True)
class Report:
    """Writes findings as they come into a file that only its owner may read, and counts. Use as a context manager."""

    path: Path
    tallies: dict[str, Tally] = field(default_factory=dict)
    reasons: Counter[tuple[Kind, str, str]] = field(default_factory=Counter)
    examples: dict[tuple[Kind, str, str], Finding] = field(default_factory=dict)
    _file: IO[str] | None = field(default=None, repr=False)

    def __enter__(self) -> Self:
        descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        self._file = os.fdopen(descriptor, "w", encoding="utf-8", newline="")
        csv.writer(self._file).writerow(("kind", "table", "id", "field", "code", "what and what to do"))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._file is not None:
            self._file.close()

    def of(self, table: str) -> Tally:
        """The counts of ``table``."""
        return self.tallies.setdefault(table, Tally())

    def add(self, found: Finding) -> None:
        """Write it down. A row that is not taken counts as refused."""
        key = (found.kind, found.table, found.code)
        self.reasons[key] += 1
        self.examples.setdefault(key, found)
        if found.kind == Kind.REFUSED:
            self.of(found.table).refused += 1
        if self._file is not None:
            cells = (found.kind, found.table, found.old_id, found.field, found.code, found.text)
            csv.writer(self._file).writerow(map(guarded, cells))
