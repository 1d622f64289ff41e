"""From the records of a table to leads: which column means what, and what is wrong with a row. Pure: no Django.

:func:`open_leads` refuses files that hold no leads; :meth:`LeadFile.rows` then yields each row either as a
:class:`LeadRow` or as a :class:`RowProblem`, one at a time.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import BinaryIO

from leads.phones import PhoneProblem, known_region, parse_phone
from leads.tables import LeadFileProblem, Record, Table, open_table

__all__ = ["ImportRefused", "LeadFile", "LeadFileProblem", "LeadRow", "RowProblem", "clean_tags", "open_leads"]

NAME_LENGTH = 200
TAG_LENGTH = 60
MESSAGE_LENGTH = 300
_CELL_KEPT = 10_000
_COLUMNS_MOST = 200

_ALIASES: Mapping[str, tuple[str, ...]] = {
    # in the order of preference, where a file has several
    "phone": (
        "phone", "phone number", "whatsapp", "whatsapp number", "mobile", "mobile number", "mobile phone", "phone no",
        "mobile no", "whatsapp no", "handphone", "cell", "cell phone", "msisdn", "tel", "telephone", "contact number",
        "recipient phone", "no telefon", "nombor telefon", "no hp", "number",
    ),
    "name": ("name", "full name", "fullname", "contact name", "customer name", "lead name", "recipient name", "nama"),
    "first_name": ("first name", "firstname", "given name"),
    "last_name": ("last name", "lastname", "surname", "family name"),
    "niche": ("niche", "niches"),
    "status": ("target status", "target sta", "status", "lead status"),
    "trigger": ("trigger", "triggers"),
    "notes": ("notes", "note", "remarks", "remark", "comments", "comment", "journey", "catatan"),
}  # fmt: skip
_STATUSES = {
    "": "",
    "prospect": "prospect", "prospects": "prospect", "lead": "prospect",
    "customer": "customer", "customers": "customer", "client": "customer",
}  # fmt: skip
_PROBLEM_COLUMNS = ["row", "problem", "field"]
"""What the download of an import's problems puts before the file's own columns."""


class ImportRefused(ValueError):  # noqa: N818 - reads as a fact
    """An import that cannot be set up; ``field`` names what to change."""

    def __init__(self, code: str, text: str, field: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = text
        self.field = field


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
    custom: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RowProblem:
    """One row that cannot be taken: ``message`` says why and what to do, ``values`` hold the row as it came."""

    row_number: int
    field: str
    code: str
    message: str
    values: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class _Columns:
    """Positions of the columns that mean something, and (position, key) of the others."""

    phone: tuple[int, ...]
    name: tuple[int, ...]
    niche: int | None
    status: int | None
    trigger: int | None
    notes: int | None
    custom: tuple[tuple[int, str], ...]


class _Wrong(Exception):  # noqa: N818 - reads as a fact
    """What is wrong with the row at hand."""

    def __init__(self, field: str, code: str, message: str) -> None:
        super().__init__(message)
        self.field = field
        self.code = code
        self.message = message


def open_leads(file: BinaryIO) -> LeadFile:
    """The leads in ``file``, which must be seekable and stay open. Raises :class:`LeadFileProblem`."""
    table = open_table(file)
    return LeadFile(table, _columns(table.header))


class LeadFile:
    """A table whose columns have been understood."""

    def __init__(self, table: Table, columns: _Columns) -> None:
        self._table = table
        self._columns = columns
        self._header = table.header

    def count(self) -> int:
        """How many rows :meth:`rows` yields. Raises :class:`LeadFileProblem` if there are none."""
        number = sum(1 for _ in self._table.records())
        if not number:
            raise LeadFileProblem("no_rows", "The file names its columns but has no rows below them.")
        return number

    def rows(self, *, region: str, skip: int = 0) -> Iterator[LeadRow | RowProblem]:
        """Every row that holds anything, after the first ``skip`` of them."""
        for position, record in enumerate(self._table.records()):
            if position >= skip:
                yield self._row(record, region)

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
            "" if columns.notes is None else cells[columns.notes].strip(),
            {key: cells[position].strip() for position, key in columns.custom if cells[position].strip()},
        )

    def _phone(self, cells: list[str], region: str) -> str:
        raw = cells[self._columns.phone[0]]
        if not raw.strip():
            raw = next((cells[position] for position in self._columns.phone if cells[position].strip()), "")
        try:
            return parse_phone(raw, region=region)
        except PhoneProblem as problem:
            raise _Wrong("phone", problem.code, problem.text) from None

    def _name(self, cells: list[str]) -> str:
        name = " ".join(" ".join(cells[position] for position in self._columns.name).split())
        if len(name) > NAME_LENGTH:
            raise _Wrong("name", "name_too_long", f"The name has {len(name)} characters: {NAME_LENGTH} are allowed.")
        return name

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


# -- Columns -----------------------------------------------------------------------------------------------------------


def _columns(header: list[str]) -> _Columns:
    """What each column means. Raises LeadFileProblem if none holds phone numbers."""
    if len(header) > _COLUMNS_MOST:
        raise LeadFileProblem("too_many_columns", f"The file has {len(header)} columns: {_COLUMNS_MOST} are allowed.")
    titles = [re.sub(r"[\s_\-./:*]+", " ", title.strip("'\"").casefold()).strip() for title in header]
    places = {
        meaning: [titles.index(alias) for alias in aliases if alias in titles] for meaning, aliases in _ALIASES.items()
    }
    if not places["phone"]:
        raise _no_phone_column(header)
    name = places["name"][:1] or places["first_name"][:1] + places["last_name"][:1]
    single = {
        meaning: places[meaning][0] if places[meaning] else None for meaning in ("niche", "status", "trigger", "notes")
    }
    used = {places["phone"][0], *name, *(place for place in single.values() if place is not None)}
    if titles[: len(_PROBLEM_COLUMNS)] == _PROBLEM_COLUMNS:
        used.update(range(len(_PROBLEM_COLUMNS)))
    return _Columns(
        phone=tuple(places["phone"]),
        name=tuple(name),
        custom=tuple(_custom_keys(titles, used)),
        **single,
    )


def _custom_keys(titles: list[str], used: set[int]) -> Iterator[tuple[int, str]]:
    """Keys for the remaining columns, as templates can name them: “Order date” becomes ``order_date``."""
    taken: set[str] = set()
    for position, title in enumerate(titles):
        if position in used:
            continue
        key = re.sub(r"\W+", "_", title).strip("_")[:TAG_LENGTH] or f"column_{position + 1}"
        key = (
            key
            if key.isidentifier()
            else f"column_{key}"
            if f"column_{key}".isidentifier()
            else f"column_{position + 1}"
        )
        if key in taken:
            key = f"{key}_{position + 1}"
        taken.add(key)
        yield position, key


def _no_phone_column(header: list[str]) -> LeadFileProblem:
    for cell in header:
        # Any country: a number written nationally counts too.
        if sum(character.isdigit() for character in cell) >= 7:
            return LeadFileProblem(
                "no_header",
                "The first row already holds a number: put a row above it that names the columns, as"
                " name,phone,niche,target_status,trigger.",
            )
    found = ", ".join(f"“{title[:30]}”" for title in header[:8] if title)
    return LeadFileProblem(
        "no_phone_column", f"No column is called “phone” (found: {found}): give the column with the numbers that name."
    )


# -- Cells -------------------------------------------------------------------------------------------------------------


def _status(cell: str) -> str:
    word = cell.strip()
    status = _STATUSES.get(word.casefold())
    if status is None:
        raise _Wrong(
            "status", "status_unknown", f"“{word[:30]}” is no status: write prospect or customer, or leave it empty."
        )
    return status


@lru_cache(maxsize=4096)  # files repeat a few tags over and over
def _tags(cell: str, column: str) -> tuple[str, ...]:
    if not cell:
        return ()
    tags = clean_tags(re.split(r"[,;|\n]", cell))
    if any(len(tag) > TAG_LENGTH for tag in tags):
        raise _Wrong(
            column, f"{column}_too_long", f"A {column} may have {TAG_LENGTH} characters: separate several with commas."
        )
    return tags


def clean_tags(tags: list[str] | tuple[str, ...]) -> tuple[str, ...]:
    """``tags`` trimmed, without empty ones, each once, in their order."""
    return tuple(dict.fromkeys(tag for tag in (" ".join(tag.split()) for tag in tags) if tag))


def check_region(region: str) -> str:
    """``region`` in capitals. Raises :class:`ImportRefused` if it is no country."""
    code = region.strip().upper()
    if not known_region(code):
        raise ImportRefused(
            "region_unknown", f"“{region[:10]}” is no country code: write two letters, as MY.", "region"
        )
    return code
