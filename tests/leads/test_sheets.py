"""Workbooks, pretty, damaged and hostile."""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from typing import Any

import openpyxl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openpyxl.xml.constants import SHARED_STRINGS, SHEET_MAIN_NS

from leads.imports import LeadFileProblem, LeadRow, RowProblem, open_leads

SHEET = "xl/worksheets/sheet1.xml"


def book(rows: list[list[Any]], *, before: Callable[[Any], None] = lambda _: None) -> bytes:
    workbook = openpyxl.Workbook()
    before(workbook)
    for row in rows:
        workbook.active.append(row)
    file = io.BytesIO()
    workbook.save(file)
    return file.getvalue()


def changed(data: bytes, part: str, change: Callable[[bytes], bytes]) -> bytes:
    """The workbook with one part rewritten."""
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            content = old.read(name)
            new.writestr(name, change(content) if name == part else content)
    return file.getvalue()


def sheet_of(rows: str) -> bytes:
    """A workbook whose only sheet holds this XML."""
    data = book([["phone"]])
    return changed(data, SHEET, lambda xml: re.sub(rb"<sheetData>.*</sheetData>", rows.encode(), xml, flags=re.DOTALL))


def with_texts(texts: str, rows: str) -> bytes:
    """A workbook as Excel writes it: the sheet's texts stand in a table of their own."""
    kind = f'<Override PartName="/xl/sharedStrings.xml" ContentType="{SHARED_STRINGS}"/></Types>'.encode()
    plain = sheet_of(f"<sheetData>{rows}</sheetData>")
    file = io.BytesIO(changed(plain, "[Content_Types].xml", lambda xml: xml.replace(b"</Types>", kind)))
    with zipfile.ZipFile(file, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("xl/sharedStrings.xml", f'<sst xmlns="{SHEET_MAIN_NS}">{texts}</sst>')
    return file.getvalue()


def texts(*numbers: int) -> str:
    return "<row>" + "".join(f'<c t="s"><v>{number}</v></c>' for number in numbers) + "</row>"


def read(data: bytes) -> list[LeadRow | RowProblem]:
    leads = open_leads(io.BytesIO(data))
    leads.count()
    return list(leads.rows(region="MY"))


def test_cells_of_every_kind_are_what_somebody_would_have_typed() -> None:
    data = book(
        [
            ["Name", "Phone", "Niche", "Visited", "Score"],
            ["Zoë\r\nMüller", 60123456789, "A, B", datetime(2026, 1, 2), 1.5],  # noqa: DTZ001 - sheets know no zones
            [],
            [None, 123456780, True, datetime(2026, 1, 2, 3, 4), 60123456780.0],  # noqa: DTZ001
            [1, "'012-345 6781", None, "", None],
            ["Rounded", 6.0123456789e16, None, None, None],
            ["Lost", "6.01E+10", None, None, None],
        ]
    )
    rows = read(data)
    assert [row.row_number for row in rows] == [2, 4, 5, 6, 7]
    people = [row for row in rows if isinstance(row, LeadRow)]
    assert [(row.name, row.phone) for row in people] == [
        ("Zoë Müller", "+60123456789"),
        ("", "+60123456780"),
        ("1", "+60123456781"),
    ]
    assert people[0].custom == {"visited": "2026-01-02", "score": "1.5"}
    assert people[1].custom == {"visited": "2026-01-02T03:04:00", "score": "60123456780"}
    assert (people[0].niches, people[1].niches) == (("A", "B"), ("TRUE",))
    assert [row.code for row in rows if isinstance(row, RowProblem)] == ["phone_damaged"] * 2


def test_a_row_beyond_the_header_is_a_problem_and_hidden_and_empty_sheets_are_passed_over() -> None:
    def arrange(workbook: Any) -> None:
        workbook.active.title = "Leads"
        hidden = workbook.create_sheet("Old", 0)
        hidden.append(["phone"])
        hidden.sheet_state = "hidden"
        workbook.create_sheet("Empty", 0)
        workbook.active = workbook["Leads"]

    rows = read(book([["phone", None], ["0123456789", None, "stray"], ["0123456780"]], before=arrange))
    assert [type(row) for row in rows] == [RowProblem, LeadRow]
    with pytest.raises(LeadFileProblem, match="empty"):
        open_leads(io.BytesIO(book([])))


def test_rows_without_places_and_texts_inside_the_cells() -> None:
    data = sheet_of(
        '<sheetData><row><c t="inlineStr"><is><t>phone</t></is></c></row><row r="9"><c r="A9"><v>60123456789</v></c>'
        "</row></sheetData>"
    )
    (row,) = read(data)
    assert isinstance(row, LeadRow)
    assert row.phone == "+60123456789"


def test_texts_from_the_workbooks_own_table() -> None:
    table = (
        "<si><t>phone</t></si><si><t>name</t></si><si><t>0123456789</t></si>"
        '<si><r><rPr><b/></rPr><t xml:space="preserve">Zoë </t></r><r><t>Müller</t></r><rPh><t>x</t></rPh></si><si/>'
    )
    first, second = read(with_texts(table, texts(0, 1) + texts(2, 3) + texts(2, 4)))
    assert isinstance(first, LeadRow)
    assert isinstance(second, LeadRow)
    assert (first.phone, first.name, second.name) == ("+60123456789", "Zoë Müller", "")


BOMBS = {
    "a gigabyte of blanks": sheet_of(f"<sheetData>{' ' * 2**25}</sheetData>"),
    "one row of many cells": sheet_of(f"<sheetData><row>{'<c/>' * 200_000}</row></sheetData>"),
    "a row far below": sheet_of('<sheetData><row r="2000000000"><c><v>1</v></c></row></sheetData>'),
    "a huge cell": sheet_of(f"<sheetData><row><c><v>{'9' * 2**23}</v></c></row></sheetData>"),
    "deep nesting": sheet_of(f"<sheetData>{'<row>' * 500}{'</row>' * 500}</sheetData>"),
    "entities": changed(
        book([["phone"]]),
        SHEET,
        lambda xml: (
            b'<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;">]>' + xml[xml.index(b"<worksheet") :]
        ),
    ),
    "a table of a million texts": with_texts("<si/>" * 1_000_001, texts(0)),
    "one text of many parts": with_texts(f"<si>{'<r/>' * 10_000}</si>", texts(0)),
    "a style sheet of millions": changed(
        book([["phone"]]), "xl/styles.xml", lambda xml: xml.replace(b"<fonts", b"<x/>" * 1_000_000 + b"<fonts", 1)
    ),
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_small_file_that_would_be_a_large_one_is_refused(name: str) -> None:
    assert len(BOMBS[name]) < 100_000
    with pytest.raises(LeadFileProblem) as caught:
        read(BOMBS[name])
    assert caught.value.code == "too_large"
    assert "\n" not in caught.value.text


@pytest.mark.parametrize(
    "data",
    [
        changed(book([["phone"], [1]]), "[Content_Types].xml", lambda _: b"<Types/>"),
        changed(book([["phone"], [1]]), "xl/workbook.xml", lambda xml: xml[:200]),
        with_texts("<si><t>phone</t></si>", texts(0) + texts(1)),
        changed(book([["phone"], [1]]), SHEET, lambda xml: xml.replace(b"<v>1</v>", b"<v>one</v>")),
        book([["phone"], [1]])[:-200],
        book([["phone"], [1]])[:3000],
    ],
)
def test_damaged_workbooks_are_refused_in_words(data: bytes) -> None:
    with pytest.raises(LeadFileProblem) as caught:
        read(data)
    assert caught.value.code in {"workbook_damaged", "not_csv"}


def test_another_archive_is_no_workbook() -> None:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("leads.csv", "phone\n0123456789\n")
    with pytest.raises(LeadFileProblem, match="unpack it"):
        open_leads(file)


_GOOD = book([["name", "phone", "niche"], ["Ali", "0123456789", "A"], ["Bibi", 60133456789, ""]])


@given(place=st.integers(0, len(_GOOD) - 1), junk=st.binary(min_size=1, max_size=30))
@settings(max_examples=150, deadline=None)
def test_any_damage_is_rows_or_a_problem_in_words(place: int, junk: bytes) -> None:
    with suppress(LeadFileProblem):
        assert all(isinstance(row, LeadRow | RowProblem) for row in read(_GOOD[:place] + junk + _GOOD[place + 5 :]))


@given(old=st.sampled_from([b"<v>", b'r="', b't="s"', b"<row", b"</row>", b"<c"]), new=st.binary(max_size=8))
@settings(max_examples=100, deadline=None)
def test_any_damage_inside_a_sheet_is_rows_or_a_problem_in_words(old: bytes, new: bytes) -> None:
    with suppress(LeadFileProblem):
        read(changed(_GOOD, SHEET, lambda xml: xml.replace(old, new, 1)))


_cell = st.text(st.characters(exclude_categories=("Cs", "Cc"), exclude_characters="\ufffe\uffff"), max_size=20)


@given(people=st.lists(st.tuples(_cell, st.integers(0, 9_999_999), _cell), min_size=1, max_size=5))
@settings(max_examples=40, deadline=None)
def test_what_was_written_is_what_is_read(people: list[tuple[str, int, str]]) -> None:
    from leads.cells import unguarded

    rows = [["name", "phone", "notes"], *([name, 60120000000 + number, notes] for name, number, notes in people)]
    workbook = openpyxl.Workbook()
    for number, row in enumerate(rows, start=1):
        for column, value in enumerate(row, start=1):
            cell = workbook.active.cell(number, column, value)
            if isinstance(value, str):
                cell.data_type = "s"  # a text, whatever it begins with
    file = io.BytesIO()
    workbook.save(file)
    expected = [
        (" ".join(unguarded(name).split()), f"+6012{number:07d}", unguarded(notes).strip())
        for name, number, notes in people
    ]
    assert [(row.name, row.phone, row.notes) for row in read(file.getvalue()) if isinstance(row, LeadRow)] == expected
