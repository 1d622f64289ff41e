"""What a file of leads is to everybody above the readers: a header, and records one at a time. Pure: no Django."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Protocol

Record = tuple[int, list[str] | str]
"""(row number, cells); a string instead of cells is the raw line of a row whose quotation mark never closes.

Row numbers are those that a spreadsheet shows: the header is row 1, blank rows count, and a row whose cells hold line
breaks counts once.
"""

CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
"""Characters that say nothing in a cell and that PostgreSQL or a terminal would trip over."""


class LeadFileProblem(ValueError):  # noqa: N818 - reads as a fact
    """A file that cannot be read at all: ``code`` is stable, ``text`` is one line that says what to do."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = text


class Table(Protocol):
    """What a reader offers; both members may be asked for any number of times, one after the other."""

    @property
    def header(self) -> list[str]:
        """Names of the columns as they stand in the file."""

    @property
    def damaged(self) -> bool:
        """Whether some characters could not be read and stand as U+FFFD."""

    def count(self) -> int | None:
        """How many records there are, or seem to be: for a progress bar."""

    def records(self) -> Iterator[Record]:
        """The rows below the header that hold anything, in order."""
