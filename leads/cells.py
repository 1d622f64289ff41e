"""Single cells of lead tables, written so that a spreadsheet leaves them alone and read back to what they were. Pure.

Each pair below is exact: what :func:`guarded` or :func:`tags_cell` wrote, :func:`unguarded` or :func:`tags_of` reads.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime

_FORMULA = re.compile(r"'* *[=+\-@\t\r\n＝＋－＠]")
"""What spreadsheets take for the beginning of a formula (OWASP, "CSV Injection"), full-width forms included, behind
any apostrophes: so that a text that has one of its own gets a second, and loses only that one again."""
_TAG = re.compile(r'\s*(?:"((?:[^"]|"")*)"\s*(?=[,;|\n]|$)|([^,;|\n]*))(?:[,;|\n]|$)')
_NEEDS_MARKS = re.compile(r'[,;|\n]|^"')


def guarded(text: str) -> str:
    """``text`` so that no spreadsheet takes it for a formula: with an apostrophe in front where that is needed."""
    return f"'{text}" if _FORMULA.match(text) else text


def unguarded(cell: str) -> str:
    """What :func:`guarded` was given."""
    return cell[1:] if cell[:1] == "'" and _FORMULA.match(cell, 1) else cell


def tags_cell(tags: list[str] | tuple[str, ...]) -> str:
    """Tags in one cell, separated by commas; a tag that holds a separator stands in quotation marks."""
    return ", ".join('"' + tag.replace('"', '""') + '"' if _NEEDS_MARKS.search(tag) else tag for tag in tags)


def tags_of(cell: str) -> tuple[str, ...]:
    """The tags of a cell: separated by comma, semicolon, bar or line break, in quotation marks where they hold one."""
    if '"' not in cell:
        return clean_tags(re.split(r"[,;|\n]", cell))
    found = _TAG.finditer(cell)
    return clean_tags([match[2] if match[1] is None else match[1].replace('""', '"') for match in found])


def clean_tags(tags: list[str] | tuple[str, ...]) -> tuple[str, ...]:
    """``tags`` trimmed, without empty ones, each once, in their order."""
    return tuple(dict.fromkeys(tag for tag in (" ".join(tag.split()) for tag in tags) if tag))


def moment_of(cell: str) -> datetime:
    """A time as ISO 8601 writes it, in UTC unless it says otherwise. Raises ValueError."""
    moment = datetime.fromisoformat(cell.strip())
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        raise ValueError(f"{cell!r} is beyond the calendar") from None
