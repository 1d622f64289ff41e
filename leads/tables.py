"""Files that hold a table, read as a stream of records: encodings, delimiters, quotation marks. Pure: no Django.

Memory stays flat however long the file is. :func:`open_table` looks at the first bytes and picks the reader: text is
read here, workbooks in :mod:`leads.sheets`.
"""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from leads.sheets import open_sheet
from leads.tabular import CONTROL, LeadFileProblem, Record, Table

__all__ = ["CsvTable", "LeadFileProblem", "Record", "Table", "open_table"]

_BLOCK = 1 << 18
_SAMPLE = 4096
_LONGEST_LINE = 1_000_000
_LINES_PER_RECORD = 1000
_DELIMITERS = ",;\t|"
_ESCAPED = re.compile("[\udc80-\udcff]")
_EXCEL_HINT = re.compile(r"\"?sep=(.)\"?\s*", re.IGNORECASE)
_BOMS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16, whose mark it begins with
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_ZIP = b"PK\x03\x04"
_OTHER_FORMATS = (
    (
        b"\xd0\xcf\x11\xe0",
        "a workbook of an old format or with a password: save it as .xlsx without one, and import that",
    ),
    (b"%PDF", "a PDF: import the table it was made from, as CSV"),
    (b"\x1f\x8b", "compressed: unpack it and import the CSV inside"),
    (b"<", "a web page, whatever its name says: open it in a spreadsheet and save it as “CSV UTF-8”"),
)


def open_table(file: BinaryIO) -> Table:
    """The table in ``file``, which must be seekable and stay open. Raises :class:`LeadFileProblem`."""
    file.seek(0)
    start = file.read(_SAMPLE)
    if start.startswith(_ZIP):
        return open_sheet(file)
    if not start.strip():
        raise LeadFileProblem("empty", "The file is empty.")
    for signature, what in _OTHER_FORMATS:
        if start.removeprefix(codecs.BOM_UTF8).lstrip().startswith(signature):
            raise LeadFileProblem("not_csv", f"The file is {what}.")
    return CsvTable(file, _text_of(file, start))


# -- Bytes to lines ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Text:
    """How the file's bytes become characters."""

    encoding: str
    damaged: bool = False


def _text_of(file: BinaryIO, start: bytes) -> _Text:
    """The encoding that the whole file is in; one pass over it. Raises LeadFileProblem."""
    marked = next((name for mark, name in _BOMS if start.startswith(mark)), None)
    even, odd = start[0::2].count(0), start[1::2].count(0)
    if marked is None and (even + odd) * 20 > len(start):
        # UTF-16 without a mark: the zero halves of Latin letters, commas and digits stand on one side.
        if min(even, odd) * 10 > max(even, odd):
            raise LeadFileProblem("not_text", "The file is not text: save the table as “CSV UTF-8” and import that.")
        marked = "utf-16-be" if even > odd else "utf-16-le"
    if marked in {None, "utf-8-sig"}:
        encoding = marked or "utf-8"
        undecodable, genuine = _survey_utf8(file, encoding)
        if not undecodable:
            return _Text(encoding)
        # A few bad bytes among many good sequences are damage; reading the lot as Latin would garble every name.
        if genuine >= undecodable:
            return _Text(encoding, damaged=True)
    if _decodes(file, marked or "cp1252"):
        return _Text(marked or "cp1252")
    raise LeadFileProblem("not_text", "The file's characters cannot be read: save it as “CSV UTF-8” and import that.")


def _survey_utf8(file: BinaryIO, encoding: str) -> tuple[int, int]:
    """(bytes that are no UTF-8, characters beyond ASCII that are)."""
    decoder = codecs.getincrementaldecoder(encoding)("surrogateescape")
    undecodable = genuine = 0
    for text in _decoded(file, decoder):
        if not text.isascii():
            escaped = len(_ESCAPED.findall(text))
            undecodable += escaped
            genuine += len(text) - len(text.encode("ascii", "ignore")) - escaped
    return undecodable, genuine


def _decodes(file: BinaryIO, encoding: str) -> bool:
    try:
        return all(True for _ in _decoded(file, codecs.getincrementaldecoder(encoding)("strict")))
    except UnicodeDecodeError:
        return False


def _decoded(file: BinaryIO, decoder: codecs.IncrementalDecoder | io.IncrementalNewlineDecoder) -> Iterator[str]:
    """The whole file through ``decoder``, block by block."""
    file.seek(0)
    while block := file.read(_BLOCK):
        yield decoder.decode(block)
    yield decoder.decode(b"", final=True)


def _lines(file: BinaryIO, text: _Text) -> Iterator[str]:
    """The file's lines, ends of any kind as a line feed, without control characters (PostgreSQL stores no NUL)."""
    decoder = io.IncrementalNewlineDecoder(
        codecs.getincrementaldecoder(text.encoding)("replace" if text.damaged else "strict"), translate=True
    )
    rest = ""
    for block in _decoded(file, decoder):
        decoded = CONTROL.sub("", block) if CONTROL.search(block) else block
        lines = (rest + decoded).split("\n")
        rest = lines.pop()
        if len(rest) > _LONGEST_LINE:
            raise LeadFileProblem("not_csv", "The file has a line of more than a million characters: it is no table.")
        for line in lines:
            yield line + "\n"
    if rest:
        yield rest


# -- Lines to records --------------------------------------------------------------------------------------------------


class _Unclosed(Exception):  # noqa: N818 - reads as a fact
    """A quotation mark has been open for too many lines."""


class _Feed:
    """Lines for ``csv.reader`` that can be taken back when a quotation mark turns out never to close."""

    def __init__(self, lines: Iterator[str]) -> None:
        self._lines = lines
        self._returned: deque[str] = deque()
        self.taken: list[str] = []
        self.ran_out = False

    def __iter__(self) -> _Feed:
        return self

    def __next__(self) -> str:
        if len(self.taken) >= _LINES_PER_RECORD:
            raise _Unclosed
        line = self._returned.popleft() if self._returned else next(self._lines, None)
        if line is None:
            self.ran_out = True
            raise StopIteration
        self.taken.append(line)
        return line

    def take_back(self) -> str:
        """Hand out all lines of the last record again except its first, which is returned."""
        first, *others = self.taken
        self._returned.extendleft(reversed(others))
        self.ran_out = False
        return first


def _width(line: str, delimiter: str) -> int:
    """How many cells ``delimiter`` makes of ``line``."""
    try:
        return len(next(csv.reader([line], delimiter=delimiter)))
    except csv.Error:
        return 0


class CsvTable:
    """Comma-, semicolon-, tab- or bar-separated text."""

    damaged: bool

    def __init__(self, file: BinaryIO, text: _Text) -> None:
        self._file = file
        self._text = text
        self.damaged = text.damaged
        self._delimiter, self._skip = self._layout()
        self._header_row, self.header = self._find_header()

    def records(self) -> Iterator[Record]:
        """See :class:`Table`."""
        for number, cells in self._all(width=len(self.header)):
            if number > self._header_row:
                yield number, cells

    def count(self) -> int:
        """See :class:`Table`."""
        return sum(1 for _ in self.records())

    def _layout(self) -> tuple[str, int]:
        """(delimiter, lines before the table): from a ``sep=`` line, or the one that makes most columns."""
        for line in _lines(self._file, self._text):
            if not line.strip():
                continue
            hint = _EXCEL_HINT.fullmatch(line)
            if hint and hint.group(1) in _DELIMITERS:
                return hint.group(1), 1
            return max(_DELIMITERS, key=lambda delimiter: _width(line, delimiter)), 0
        raise LeadFileProblem("empty", "The file is empty.")

    def _find_header(self) -> tuple[int, list[str]]:
        for number, cells in self._all(width=0):
            if isinstance(cells, str):
                break
            return number, [" ".join(cell.split()) for cell in cells]
        raise LeadFileProblem("no_header", "The first row, which names the columns, cannot be read.")

    def _all(self, *, width: int) -> Iterator[Record]:
        """Every record that holds anything; ``width`` is the header's number of cells, 0 while that is unknown."""
        lines = _lines(self._file, self._text)
        for _ in range(self._skip):
            next(lines)
        feed = _Feed(lines)
        reader = csv.reader(feed, delimiter=self._delimiter)
        number = 0
        while True:
            feed.taken.clear()
            number += 1
            try:
                cells = next(reader)
            except StopIteration:
                return
            except (_Unclosed, csv.Error):
                cells = None
            # A mark that closes somewhere further down leaves a record of the wrong width; one that never closes
            # makes the reader ask for a line beyond the last.
            astray = len(feed.taken) > 1 and width and cells is not None and len(cells) != width
            if cells is None or astray or feed.ran_out:
                yield number, feed.take_back()
                reader = csv.reader(feed, delimiter=self._delimiter)
            elif any(cells) and "".join(cells).strip():
                yield number, cells
