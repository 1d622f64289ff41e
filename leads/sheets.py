"""Workbooks (.xlsx), read as a stream of records. Pure: no Django.

openpyxl reads; what it is given to read is measured on the way (:class:`_Measured`), because a few kilobytes of ZIP
can hold gigabytes of XML and openpyxl builds whatever stands there. Rows stream; the workbook's own table of texts has
to be in memory, which is why it is bounded.
"""

from __future__ import annotations

import io
import re
import warnings
import zipfile
from collections.abc import Iterator
from datetime import date, datetime, time
from typing import Any, BinaryIO
from xml.etree.ElementTree import iterparse
from xml.parsers import expat  # the parser below ElementTree: it only counts here

from openpyxl.reader.excel import ExcelReader
from openpyxl.worksheet._read_only import ReadOnlyWorksheet
from openpyxl.xml.constants import SHARED_STRINGS, SHEET_MAIN_NS

from leads.tabular import CONTROL, LeadFileProblem, Record

_MB = 1 << 20
_PARTS_MOST = 10_000
_BYTES_MOST = {"worksheet": 1024 * _MB, "sst": 96 * _MB}
_BYTES_OTHER = 16 * _MB
_ELEMENTS_OTHER = 300_000
_ROWS_MOST = 1_048_576  # what a sheet holds (ECMA-376; Excel's own limit)
_TEXTS_MOST = 1_000_000
_ELEMENTS_IN_ONE = {"row": 100_000, "si": 5_000}
_DEPTH_MOST = 60
_BETWEEN_ELEMENTS = 4 * _MB
_HEADER_WIDTH = 250
_BESIDE = 10
_EXACT = 10**15
"""Whole numbers from here on have lost digits to the spreadsheet, which keeps fifteen."""

warnings.filterwarnings("ignore", module=r"openpyxl\.")  # remarks about styles and the like: nothing that a lead needs


_ROW = re.compile(rb"<row[ >/]")
_SI, _R, _T = (f"{{{SHEET_MAIN_NS}}}{name}" for name in ("si", "r", "t"))


class _Beyond(Exception):  # noqa: N818 - reads as a fact
    """The workbook is larger than may be read. No ValueError, because openpyxl wraps those."""


def open_sheet(file: BinaryIO) -> SheetTable:
    """The first sheet of a workbook that holds anything. Raises :class:`LeadFileProblem`."""
    try:
        archive = _Archive(file)
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        raise LeadFileProblem("not_csv", "The file is a damaged archive: save the workbook again.") from None
    if "[Content_Types].xml" not in archive.namelist():
        raise LeadFileProblem(
            "not_csv",
            "The file is an archive but no .xlsx workbook: unpack it, or save the table as .xlsx or CSV UTF-8.",
        )
    with _Reading():
        reader = _Reader(file, read_only=True, data_only=True, keep_links=False)
        reader.archive = archive
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            reader.read()
        sheets = [sheet for sheet in reader.wb.worksheets if sheet.sheet_state == "visible"]
    for sheet in sheets:
        table = SheetTable(sheet)
        if table.header:
            return table
    raise LeadFileProblem("empty", "The workbook's visible sheets are empty.")


class _Reader(ExcelReader):
    """openpyxl's own, with a table of texts that is read many times faster: without fonts and readings."""

    def read_strings(self) -> None:
        """Part of its protocol."""
        part = self.package.find(SHARED_STRINGS)
        self.shared_strings = []
        if part is None:
            return
        with self.archive.open(part.PartName[1:]) as source:
            for _, element in iterparse(source):  # noqa: S314 - bounded and without entities: see _Measured
                if element.tag == _SI:
                    texts = [*element.findall(_T), *element.findall(f"{_R}/{_T}")]
                    self.shared_strings.append("".join(text.text or "" for text in texts))
                    element.clear()

    def read_worksheets(self) -> None:
        """Part of its protocol; only what holds cells, and none of it read yet."""
        for sheet, part in self.parser.find_sheets():
            if part.target in self.valid_files and "chartsheet" not in part.Type:
                found = _Sheet(self.wb, sheet.name, part.target, self.shared_strings)
                found.sheet_state = sheet.state
                self.wb._sheets.append(found)  # noqa: SLF001 - the protocol's


class _Sheet(ReadOnlyWorksheet):
    """A sheet that does not read itself to its end to learn its size, which may be wrong anyway."""

    def _get_size(self) -> None:
        pass


class SheetTable:
    """One sheet of a workbook."""

    damaged = False

    def __init__(self, sheet: Any) -> None:
        self._sheet = sheet
        self._header_row, self.header = self._find_header()

    def records(self) -> Iterator[Record]:
        """See :class:`leads.tabular.Table`."""
        width = len(self.header)
        for number, cells in self._rows(width + _BESIDE):
            if number > self._header_row:
                while len(cells) > width and not cells[-1]:
                    cells.pop()
                yield number, cells

    def count(self) -> int | None:
        """How many rows there seem to be below the header: formatted but empty ones are among them."""
        found, rest = 0, b""
        # Not measured: nothing is built of these bytes.
        with _Reading(), zipfile.ZipFile.open(self._sheet.parent._archive, self._sheet._worksheet_path) as part:  # noqa: SLF001
            while block := part.read(_MB):
                found += len(_ROW.findall(rest + block))
                rest = block[-4:]
        return max(found - self._header_row, 0) or None

    def _find_header(self) -> tuple[int, list[str]]:
        for number, cells in self._rows(_HEADER_WIDTH):
            while not cells[-1].strip():
                cells.pop()
            return number, [" ".join(cell.split()) for cell in cells]
        return 0, []

    def _rows(self, width: int) -> Iterator[tuple[int, list[str]]]:
        rows = iter(())
        with _Reading():
            rows = self._sheet.iter_rows(max_col=width, values_only=True)
        number = 0
        while True:
            with _Reading():
                row = next(rows, None)
                if row is None:
                    return
                cells = [_text(value) for value in row]
            number += 1
            if "".join(cells).strip():
                yield number, cells


def _text(value: Any) -> str:
    """A cell's value as somebody would have typed it."""
    if value is None:
        return ""
    if isinstance(value, str):
        text = value.replace("\r\n", "\n").replace("\r", "\n")
        return CONTROL.sub("", text) if CONTROL.search(text) else text
    if isinstance(value, bool):
        return "TRUE" if value else "FALSE"
    if isinstance(value, float) and value.is_integer():
        return str(int(value)) if abs(value) < _EXACT else f"{value:.5E}"
    if isinstance(value, datetime):
        return value.date().isoformat() if value.time() == time() else value.isoformat()
    if isinstance(value, date | time):
        return value.isoformat()
    return str(value)


class _Reading:
    """While inside, whatever goes wrong is said in words."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, problem: BaseException | None, trace: Any) -> None:
        if isinstance(problem, _Beyond):
            raise LeadFileProblem("too_large", str(problem)) from None
        # The library raises whatever a broken part makes it trip over.
        if isinstance(problem, Exception) and not isinstance(problem, LeadFileProblem):
            raise LeadFileProblem(
                "workbook_damaged",
                "The workbook cannot be read: open it in your spreadsheet, save it as “CSV UTF-8”, and import that.",
            ) from None


# -- Measuring ---------------------------------------------------------------------------------------------------------


class _Archive(zipfile.ZipFile):
    """The workbook's parts, each measured while it is read. A part never yields more than the archive says it holds."""

    def __init__(self, file: BinaryIO) -> None:
        super().__init__(file)
        if len(self.infolist()) > _PARTS_MOST:
            raise zipfile.BadZipFile(f"more than {_PARTS_MOST} parts")

    def open(self, name: Any, mode: Any = "r", pwd: Any = None, *, force_zip64: bool = False) -> Any:
        """A part's bytes."""
        return io.BufferedReader(_Measured(super().open(name, mode, pwd, force_zip64=force_zip64)), 1 << 16)


class _Measured(io.RawIOBase):
    """A part's bytes, followed by a second parser that only counts, always ahead of whoever builds something of them.

    Raises :class:`_Beyond`.
    """

    def __init__(self, part: Any) -> None:
        self._part = part
        self._kind = ""
        self._bytes = self._elements = self._rows = self._in_one = self._depth = self._last_at = 0
        self._parser = expat.ParserCreate(namespace_separator=" ")
        self._parser.StartElementHandler = self._start
        self._parser.EndElementHandler = self._end
        self._parser.StartDoctypeDeclHandler = self._doctype
        self._is_xml = True

    def readable(self) -> bool:
        """Part of the protocol."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Part of the protocol."""
        data = self._part.read(len(buffer))
        self._bytes += len(data)
        if self._bytes > _BYTES_MOST.get(self._kind, _BYTES_OTHER):
            raise _Beyond("The workbook is too large to be read: save the sheet as “CSV UTF-8” and import that.")
        if self._is_xml and data:
            try:
                self._parser.Parse(data, False)
            except expat.ExpatError:
                self._is_xml = False  # whoever reads it will say so
        if self._is_xml and self._bytes - self._last_at > _BETWEEN_ELEMENTS:
            raise _Beyond("The workbook has a cell of more than four million characters: it is no table of leads.")
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        """Part of the protocol."""
        self._part.close()
        super().close()

    def _doctype(self, *_: Any) -> None:
        raise _Beyond("The workbook defines entities of its own, which no spreadsheet does: save it again.")

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        name = name.rpartition(" ")[2]
        self._last_at = self._parser.CurrentByteIndex
        self._depth += 1
        if self._depth == 1:
            self._kind = name
        self._in_one += 1
        if name in _ELEMENTS_IN_ONE:
            self._in_one = 0
            self._count_one(name, attributes)
        elif self._in_one > _ELEMENTS_IN_ONE.get(
            {"worksheet": "row", "sst": "si"}.get(self._kind, ""), _ELEMENTS_OTHER
        ):
            raise _Beyond("The workbook holds more than a table of leads would: save the sheet as “CSV UTF-8”.")
        if self._depth > _DEPTH_MOST:
            raise _Beyond("The workbook is nested too deeply: save the sheet as “CSV UTF-8” and import that.")

    def _count_one(self, name: str, attributes: dict[str, str]) -> None:
        self._rows += 1
        most = _ROWS_MOST if name == "row" else _TEXTS_MOST
        place = attributes.get("r", "") if name == "row" else ""
        if self._rows > most or (place.isdecimal() and (len(place) > 9 or int(place) > most)):
            what = "rows" if name == "row" else "different texts"
            raise _Beyond(f"The workbook has more than {most:,} {what}: save the sheet as “CSV UTF-8” and import that.")

    def _end(self, _: str) -> None:
        self._depth -= 1
