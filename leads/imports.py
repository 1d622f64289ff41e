"""From the records of a table to leads: what its cells say, and what is wrong with a row. Pure: no Django.

:func:`open_leads` refuses files that hold no leads; :meth:`LeadFile.rows` then yields each row either as a
:class:`LeadRow` or as a :class:`RowProblem`, one at a time. What a column means is decided in :mod:`leads.columns`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from itertools import islice
from typing import Any, BinaryIO

from leads.cells import moment_of, tags_of, unguarded
from leads.columns import STATUSES, Columns, ImportRefused, checked, guess, understood
from leads.phones import PhoneProblem, known_region, parse_phone
from leads.tables import LeadFileProblem, Record, Table, open_table

__all__ = [
    "ColumnSeen", "ImportRefused", "LeadFile", "LeadFileProblem", "LeadRow", "RowProblem", "check_region", "look_at",
    "open_leads",
]  # fmt: skip

NAME_LENGTH = 200
TAG_LENGTH = 60
SOURCE_LENGTH = 200
MESSAGE_LENGTH = 300
_CELL_KEPT = 10_000
_SAMPLES = 50
"""Rows that are looked at to guess what a column means."""
_SHOWN = 3
_ONE_OF_SEVERAL = ":::"
"""What Google Contacts puts between several numbers in one cell."""


@dataclass(frozen=True, slots=True)
class LeadRow:
    """One person as the file has it. Empty values say nothing; ``phone`` is E.164."""

    row_number: int
    phone: str
    name: str = ""
    status: str = ""
    niches: tuple[str, ...] = ()
    triggers: tuple[str, ...] = ()
    notes: str = ""
    custom: Mapping[str, Any] = field(default_factory=dict)
    consent_at: datetime | None = None
    consent_source: str = ""
    opted_out_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class RowProblem:
    """One row that cannot be taken: ``message`` says why and what to do, ``values`` hold the row as it came."""

    row_number: int
    field: str
    code: str
    message: str
    values: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class ColumnSeen:
    """One column of a file: its title, what it is taken for (an entry of a mapping), and its first cells that say
    anything."""

    position: int
    title: str
    field: str
    samples: tuple[str, ...]


_NUL = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")


class _Wrong(Exception):  # noqa: N818 - reads as a fact
    """What is wrong with the row at hand."""

    def __init__(self, field: str, code: str, message: str) -> None:
        super().__init__(message)
        self.field = field
        self.code = code
        self.message = message


def open_leads(file: BinaryIO, *, mapping: Sequence[str] = ()) -> LeadFile:
    """The leads in ``file``, which must be seekable and stay open; columns are guessed where no mapping is given.

    Raises :class:`LeadFileProblem`, and :class:`ImportRefused` for a mapping that does not fit.
    """
    table = open_table(file)
    entries = checked(mapping, table.header) if mapping else guess(table.header, _samples(table))
    return LeadFile(table, understood(entries, table.header))


def look_at(file: BinaryIO, *, mapping: Sequence[str] = ()) -> tuple[list[ColumnSeen], LeadFile | LeadFileProblem]:
    """The columns of ``file`` as they would be taken, and its leads; or why it has none as long as that stands.

    Raises what :func:`open_leads` raises, except for a missing column of phone numbers: that is there to be chosen.
    """
    table = open_table(file)
    samples = _samples(table)
    entries = checked(mapping, table.header) if mapping else guess(table.header, samples)
    columns = [
        ColumnSeen(position, title, entry, tuple(islice((row[position] for row in samples if row[position]), _SHOWN)))
        for position, (title, entry) in enumerate(zip(table.header, entries, strict=True))
    ]
    try:
        return columns, LeadFile(table, understood(entries, table.header))
    except LeadFileProblem as problem:
        return columns, problem


def _samples(table: Table) -> list[list[str]]:
    """The first rows, each as wide as the header."""
    width = len(table.header)
    rows = [cells for _, cells in islice(table.records(), _SAMPLES) if not isinstance(cells, str)]
    return [[cell.strip() for cell in [*row, *[""] * width][:width]] for row in rows]


class LeadFile:
    """A table whose columns have been understood."""

    def __init__(self, table: Table, columns: Columns) -> None:
        self._table = table
        self._columns = columns
        self._header = table.header

    def count(self) -> int | None:
        """How many rows :meth:`rows` will yield; of a workbook, about. Raises :class:`LeadFileProblem` if none."""
        if next(self._table.records(), None) is None:
            raise LeadFileProblem("no_rows", "The file names its columns but has no rows below them.")
        return self._table.count()

    def rows(self, *, region: str, skip: int = 0) -> Iterator[LeadRow | RowProblem]:
        """Every row that holds anything, after the first ``skip`` of them."""
        for position, record in enumerate(self._table.records()):
            if position >= skip:
                yield self._row(record, region)

    def first(self, number: int, *, region: str) -> list[tuple[LeadRow | RowProblem, Mapping[str, str]]]:
        """The first ``number`` rows, each with its cells by column as they came."""
        return [
            (self._row(record, region), self._values(record[1])) for record in islice(self._table.records(), number)
        ]

    def _row(self, record: Record, region: str) -> LeadRow | RowProblem:
        number, cells = record
        try:
            return self._lead(number, cells, region)
        except _Wrong as wrong:
            message = (
                wrong.message if len(wrong.message) <= MESSAGE_LENGTH else wrong.message[: MESSAGE_LENGTH - 1] + "…"
            )
            return RowProblem(number, wrong.field, wrong.code, message, self._values(cells))

    def _lead(self, number: int, cells: list[str] | str, region: str) -> LeadRow:
        if isinstance(cells, str):
            raise _Wrong("", "quote_open", "A quotation mark opens a cell here and is not closed: close or remove it.")
        columns, width = self._columns, len(self._header)
        if len(cells) > width:
            if any(cell.strip() for cell in cells[width:]):
                raise _Wrong(
                    "", "too_many_cells",
                    f"The row has {len(cells)} cells, the header {width}: put quotation marks around cells that hold a"
                    " separator.",
                )  # fmt: skip
        elif len(cells) < width:
            cells = [*cells, *[""] * (width - len(cells))]
        if self._table.damaged and any("\ufffd" in cell for cell in cells):
            raise _Wrong("", "bad_characters", "Some characters cannot be read: save the file as “CSV UTF-8” again.")
        return LeadRow(
            number,
            self._phone(cells, region),
            self._name(cells),
            "" if columns.status is None else _status(cells[columns.status]),
            () if columns.niche is None else _tags(cells[columns.niche], "niche"),
            () if columns.trigger is None else _tags(cells[columns.trigger], "trigger"),
            "" if columns.notes is None else unguarded(cells[columns.notes]).strip(),
            self._custom(cells),
            *self._consent(cells),
        )

    def _phone(self, cells: list[str], region: str) -> str:
        raw = cells[self._columns.phone[0]]
        if not raw.strip():
            raw = next((cells[position] for position in self._columns.phone if cells[position].strip()), "")
        if _ONE_OF_SEVERAL in raw:
            raw = next((part for part in raw.split(_ONE_OF_SEVERAL) if part.strip()), "")
        try:
            return parse_phone(raw, region=region)
        except PhoneProblem as problem:
            raise _Wrong("phone", problem.code, problem.text) from None

    def _name(self, cells: list[str]) -> str:
        name = " ".join(" ".join(unguarded(cells[position]) for position in self._columns.name).split())
        if len(name) > NAME_LENGTH:
            raise _Wrong("name", "name_too_long", f"The name has {len(name)} characters: {NAME_LENGTH} are allowed.")
        return name

    def _custom(self, cells: list[str]) -> Mapping[str, Any]:
        own = self._columns.custom
        values: dict[str, Any] = {key: unguarded(cells[place]).strip() for place, key in own if cells[place].strip()}
        packed = self._columns.custom_json
        if packed is not None and cells[packed].strip():
            values.update(_unpacked(unguarded(cells[packed])))
        return values

    def _consent(self, cells: list[str]) -> tuple[datetime | None, str, datetime | None]:
        columns = self._columns
        source = "" if columns.consent_source is None else unguarded(cells[columns.consent_source]).strip()
        if len(source) > SOURCE_LENGTH:
            raise _Wrong(
                "consent_source", "consent_source_too_long",
                f"The consent's source has {len(source)} characters: {SOURCE_LENGTH} are allowed.",
            )  # fmt: skip
        return (
            None if columns.consent_at is None else _moment(cells[columns.consent_at], "consent_at"),
            source,
            None if columns.opted_out_at is None else _moment(cells[columns.opted_out_at], "opted_out_at"),
        )

    def _values(self, cells: list[str] | str) -> dict[str, str]:
        """The row by column, as it came, so that it can be mended and handed in again."""
        if isinstance(cells, str):
            return {self._header[0] or "row": cells.strip()[:_CELL_KEPT]}
        values: dict[str, str] = {}
        for position, cell in enumerate(cells):
            title = self._header[position] if position < len(self._header) else ""
            if title in values or not title:
                title = f"column {position + 1}"
            values[title] = cell[:_CELL_KEPT]
        return values


# -- Cells -------------------------------------------------------------------------------------------------------------


def _status(cell: str) -> str:
    word = cell.strip()
    status = STATUSES.get(word.casefold())
    if status is None:
        raise _Wrong(
            "status", "status_unknown", f"“{word[:30]}” is no status: write prospect or customer, or leave it empty."
        )
    return status


@lru_cache(maxsize=4096)  # files repeat a few tags over and over
def _tags(cell: str, column: str) -> tuple[str, ...]:
    if not cell:
        return ()
    tags = tags_of(unguarded(cell))
    if any(len(tag) > TAG_LENGTH for tag in tags):
        raise _Wrong(
            column, f"{column}_too_long", f"A {column} may have {TAG_LENGTH} characters: separate several with commas."
        )
    return tags


def _moment(cell: str, column: str) -> datetime | None:
    if not cell.strip():
        return None
    try:
        return moment_of(cell)
    except ValueError:
        raise _Wrong(
            column, f"{column}_invalid", f"“{cell.strip()[:40]}” is no time: write it as 2026-01-31T12:00:00+00:00."
        ) from None


def _unpacked(cell: str) -> dict[str, Any]:
    """The object in a cell of JSON, as PostgreSQL can keep it."""
    try:
        values = json.loads(cell, parse_constant=_no_constant)
        # A number beyond the finite ones reads as infinite, half a surrogate pair has no UTF-8.
        text = json.dumps(values, allow_nan=False, ensure_ascii=False)
        text.encode()
        if isinstance(values, dict) and not _NUL.search(text):
            return values
    except (ValueError, RecursionError):
        pass
    raise _Wrong("custom_json", "custom_json_invalid", 'This is no JSON object: write it as {"city": "Ipoh"}.')


def _no_constant(name: str) -> None:
    raise ValueError(name)


def check_region(region: str) -> str:
    """``region`` in capitals. Raises :class:`ImportRefused` if it is no country."""
    code = region.strip().upper()
    if not known_region(code):
        raise ImportRefused(
            "region_unknown", f"“{region[:10]}” is no country code: write two letters, as MY.", "region"
        )
    return code
