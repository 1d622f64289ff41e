"""Files of leads, pretty and ugly: encodings, delimiters, quotation marks, headers, cells."""

from __future__ import annotations

import codecs
import csv
import io
from collections.abc import Iterator
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leads.imports import LeadFileProblem, LeadRow, RowProblem, open_leads


def read(content: str | bytes, *, region: str = "MY", skip: int = 0) -> list[LeadRow | RowProblem]:
    data = content.encode() if isinstance(content, str) else content
    return list(open_leads(io.BytesIO(data)).rows(region=region, skip=skip))


def leads(content: str | bytes) -> list[LeadRow]:
    rows = read(content)
    assert all(isinstance(row, LeadRow) for row in rows), rows
    return [row for row in rows if isinstance(row, LeadRow)]


def problem(content: str | bytes) -> RowProblem:
    (found,) = [row for row in read(content) if isinstance(row, RowProblem)]
    return found


def refused(content: str | bytes) -> LeadFileProblem:
    data = content.encode() if isinstance(content, str) else content
    with pytest.raises(LeadFileProblem) as caught:
        open_leads(io.BytesIO(data)).count()
    assert "\n" not in caught.value.text
    return caught.value


# -- Columns and cells -------------------------------------------------------------------------------------------------


def test_a_whole_row() -> None:
    (row,) = leads(
        "name,phone,niche,target_status,trigger,notes,Email,Order date\n"
        'Ali  bin Abu,012-345 6789,"VIP, Fitness;VIP",Customer,WELCOME|COLD,met at fair,ali@example.com,2026-01-02\n'
    )
    assert row == LeadRow(
        row_number=2,
        phone="+60123456789",
        name="Ali bin Abu",
        status="customer",
        niches=("VIP", "Fitness"),
        triggers=("WELCOME", "COLD"),
        notes="met at fair",
        custom={"email": "ali@example.com", "order_date": "2026-01-02"},
    )


@pytest.mark.parametrize(
    "header",
    [
        "NAME,PHONE",
        "Full Name,Mobile Number",
        "nama,WhatsApp",
        "Name ,Number",
        '"name","phone_no"',
        "Name,Contact-Number",
    ],
)
def test_headers_by_other_names(header: str) -> None:
    (row,) = leads(f"{header}\nAli,0123456789\n")
    assert (row.name, row.phone, row.custom) == ("Ali", "+60123456789", {})


def test_names_in_two_columns_and_a_short_status_header() -> None:
    (row,) = leads("Last name,First name,phone,target_sta\nTan,Mei Ling,0123456789,prospects\n")
    assert (row.name, row.status) == ("Mei Ling Tan", "prospect")


def test_a_second_number_stands_in_for_an_empty_first() -> None:
    rows = leads("phone,mobile\n,0123456789\n0133456789,0143456789\n")
    assert [(row.phone, row.custom) for row in rows] == [
        ("+60123456789", {"mobile": "0123456789"}),
        ("+60133456789", {"mobile": "0143456789"}),
    ]


def test_unknown_columns_become_fields_that_templates_can_name() -> None:
    (row,) = leads("phone,2nd visit,,City!,city,الاسم\n0123456789,yes,x,Ipoh,KL,قيمة\n")
    assert row.custom == {"column_2nd_visit": "yes", "column_3": "x", "city": "Ipoh", "city_5": "KL", "الاسم": "قيمة"}
    assert all(key.isidentifier() for key in row.custom)


def test_the_download_of_problems_can_be_handed_in_again() -> None:
    (row,) = leads("row,problem,field,name,phone\n7,too short,phone,Ali,0123456789\n")
    assert (row.name, row.custom) == ("Ali", {})


@pytest.mark.parametrize(
    ("row", "code", "field"),
    [
        ("Ali,012,,,", "phone_too_short", "phone"),
        ("Ali,,,,", "phone_missing", "phone"),
        ("Ali,0123456789,,vip,", "status_unknown", "status"),
        (f"Ali,0123456789,{'x' * 61},,", "niche_too_long", "niche"),
        (f"Ali,0123456789,,,{'x' * 61}", "trigger_too_long", "trigger"),
        (f"{'x' * 201},0123456789,,,", "name_too_long", "name"),
        ("Tan, Ali,0123456789,VIP,,WELCOME", "too_many_cells", ""),
    ],
)
def test_what_is_wrong_with_a_row(row: str, code: str, field: str) -> None:
    found = problem(f"name,phone,niche,target_status,trigger\n{row}\nBibi,0133456789,,,\n")
    assert (found.row_number, found.code, found.field) == (2, code, field)
    assert 0 < len(found.message) <= 300
    assert list(found.values.values())[:2] == row.split(",")[:2]


def test_row_numbers_are_those_of_a_spreadsheet() -> None:
    rows = read('\nname,phone\n\n"Two\nlines",0123456789\n,,\n   ,\nAli,1\n')
    assert [(row.row_number, type(row)) for row in rows] == [(4, LeadRow), (7, RowProblem)]
    assert [row.row_number for row in read("phone\n0123456789\n1\n0133456789\n", skip=2)] == [4]


def test_short_rows_are_filled_up() -> None:
    (row,) = leads("phone,name,niche\n0123456789\n")
    assert (row.name, row.niches) == ("", ())


# -- As other programs write them --------------------------------------------------------------------------------------

EXPORTS = {
    "Google Contacts, as it was": (
        "Name,Given Name,Additional Name,Family Name,Group Membership,Phone 1 - Type,Phone 1 - Value,Phone 2 - Type,"
        "Phone 2 - Value,Notes\n"
        "Mei Ling Tan,Mei Ling,,Tan,* myContacts,Mobile,+60 12-345 6789 ::: +60 3-2000 0000,,,met\n"
    ),
    "Google Contacts": (
        "First Name,Last Name,Notes,Labels,Phone 1 - Label,Phone 1 - Value,Phone 2 - Label,Phone 2 - Value\n"
        "Mei Ling,Tan,met,* myContacts,,,Mobile,012-345 6789\n"
    ),
    "HubSpot": (
        '"Record ID","First Name","Last Name","Email","Phone Number","Mobile Phone Number","Lead Status","Notes"\r\n'
        '"151","Mei Ling","Tan","m@example.com","","+60123456789","Open deal","met"\r\n'
    ),
    "Mailchimp": (
        '"Email Address","First Name","Last Name",Phone Number,Notes,MEMBER_RATING,OPTIN_TIME,TAGS\n'
        'm@example.com,Mei Ling,Tan,60123456789,met,2,"2026-01-01 10:00:00","""Gold"",""VIP"""\n'
    ),
    "a spreadsheet in Spanish": "Full name;Teléfono;Notes\nMei Ling Tan;’012 345 6789;met\n",
    "a spreadsheet in Arabic": "Name\tرقم الهاتف\tNotes\nMei Ling Tan\t٠١٢٣٤٥٦٧٨٩\tmet\n",
}


@pytest.mark.parametrize("name", EXPORTS)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_exports_of_other_programs(name: str, encoding: str) -> None:
    (row,) = leads(EXPORTS[name].encode(encoding))
    assert (row.name, row.phone, row.notes, row.status) == ("Mei Ling Tan", "+60123456789", "met", "")


def test_a_status_of_another_program_is_a_field_and_ours_is_judged() -> None:
    (row,) = leads("phone,status\n0123456789,subscribed\n")
    assert (row.status, row.custom) == ("", {"status": "subscribed"})
    assert [type(row) for row in read("phone,status\n0123456789,customer\n0123456780,vip\n")] == [LeadRow, RowProblem]
    assert problem("phone,target_status\n0123456789,subscribed\n").code == "status_unknown"


# -- Bytes -------------------------------------------------------------------------------------------------------------

TEXT = "name;phone\r\nZoë Müller;+60123456789\r\n"


@pytest.mark.parametrize(
    "data",
    [
        TEXT.encode(),
        TEXT.encode("utf-8-sig"),
        TEXT.encode("utf-16"),
        codecs.BOM_UTF16_BE + TEXT.encode("utf-16-be"),
        TEXT.encode("utf-16-le"),
        TEXT.encode("utf-16-be"),
        TEXT.encode("utf-32"),
        TEXT.encode("cp1252"),
        TEXT.replace("\r\n", "\r").encode(),
        TEXT.rstrip().encode(),
        TEXT.replace(";", "\t").encode("utf-16"),
        TEXT.replace(";", "|").encode(),
        TEXT.replace(";", ",").encode(),
        ("sep=;\r\n" + TEXT).encode(),
        TEXT.replace("Zoë", "\x00Zo\x01ë").encode(),
    ],
)
def test_encodings_line_ends_and_delimiters(data: bytes) -> None:
    (row,) = leads(data)
    assert (row.row_number, row.name, row.phone) == (2, "Zoë Müller", "+60123456789")


def test_one_damaged_name_does_not_garble_the_others() -> None:
    data = "name,phone\n陈伟,0123456789\nZo\udcff,0133456789\nРенат,0143456789\n".encode(errors="surrogateescape")
    rows = read(data)
    assert [row.name for row in rows if isinstance(row, LeadRow)] == ["陈伟", "Ренат"]
    assert problem(data).code == "bad_characters"


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "empty"),
        (b" \r\n\r\n ", "empty"),
        (codecs.BOM_UTF8, "empty"),
        (b"PK\x03\x04\x14\x00\x06\x00", "not_csv"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "not_csv"),
        (b"%PDF-1.7", "not_csv"),
        (b"\x1f\x8b\x08\x00", "not_csv"),
        (b"  <html><table>", "not_csv"),
        (bytes(range(256)) * 20, "not_text"),
        (b"name,phone\nA\x81\x8d,012\n", "not_text"),
        (b"name,email\nAli,ali@example.com\n", "no_phone_column"),
        (b"Ali,0123456789\nBibi,0133456789\n", "no_header"),
        (b"name,phone\n", "no_rows"),
        (b"name,phone\n,\n\n", "no_rows"),
        (b"phone\n" + b"7" * 2_000_000, "not_csv"),
        (b"phone," + b"x," * 300, "too_many_columns"),
    ],
)
def test_files_that_hold_no_leads(data: bytes, code: str) -> None:
    assert refused(data).code == code


# -- Quotation marks ---------------------------------------------------------------------------------------------------


def test_quoted_line_breaks_and_marks_inside() -> None:
    rows = leads('name,phone,notes\n"Ali ""Boss"" Abu",0123456789,"one\r\ntwo, three"\n5" Pipe,0133456789,x\n')
    assert [(row.name, row.notes) for row in rows] == [('Ali "Boss" Abu', "one\ntwo, three"), ('5" Pipe', "x")]


@pytest.mark.parametrize("last", ["", 'Dina,0163456789,"a ""note"""\n'])
def test_an_open_quotation_mark_costs_one_row_and_not_the_rest(last: str) -> None:
    rows = read(f'name,phone,notes\nAli,0123456789,x\n"Bibi,0133456789,x\nCici,0143456789,x\n{last}')
    assert [row.row_number for row in rows if isinstance(row, RowProblem)] == [3]
    assert [row.row_number for row in rows if isinstance(row, LeadRow)] == [2, 4, *([5] if last else [])]
    (found,) = [row for row in rows if isinstance(row, RowProblem)]
    assert (found.code, found.values) == ("quote_open", {"name": '"Bibi,0133456789,x'})


def test_an_open_quotation_mark_in_a_long_file_is_found_without_reading_to_its_end() -> None:
    class Counting(io.BytesIO):
        asked = 0

        def read(self, size: int | None = -1) -> bytes:
            self.asked += 1
            return super().read(size)

    lines = "".join(f"Person {number},+6012{number:07d}\n" for number in range(60_000))
    file = Counting(f'name,phone\n"Open,0133456789\n{lines}'.encode())
    rows = open_leads(file).rows(region="MY")
    before = file.asked
    first = next(rows)
    assert isinstance(first, RowProblem)
    assert first.code == "quote_open"
    assert file.asked - before <= 2
    assert sum(isinstance(row, LeadRow) for row in rows) == 60_000


def test_a_cell_beyond_what_csv_allows_is_one_problem() -> None:
    rows = read(f"name,phone,notes\nAli,0123456789,{'x' * 200_000}\nBibi,0133456789,y\n")
    assert [type(row) for row in rows] == [RowProblem, LeadRow]


# -- Any table ---------------------------------------------------------------------------------------------------------

_letters = st.characters(exclude_categories=("Cs", "Cc"))
_cell = st.text(_letters, max_size=30)
_tag = st.text(st.characters(categories=("L", "N")), min_size=1, max_size=12)
_people = st.lists(
    st.tuples(
        _cell, st.integers(0, 9_999_999), st.lists(_tag, max_size=3), st.text(_letters | st.just("\n"), max_size=30)
    ),
    min_size=1,
    max_size=8,
)


def _expected(people: list[tuple[str, int, list[str], str]]) -> Iterator[LeadRow]:
    for position, (name, number, tags, notes) in enumerate(people):
        yield LeadRow(
            row_number=position + 2,
            phone=f"+6012{number:07d}",
            name=" ".join(name.split()),
            niches=tuple(dict.fromkeys(tags)),
            notes=notes.strip(),
        )


@given(
    people=_people,
    delimiter=st.sampled_from(",;\t|"),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-32"]),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
    line_end=st.sampled_from(["\n", "\r\n"]),
)
@settings(max_examples=300, deadline=None)
def test_what_was_written_is_what_is_read(
    people: list[tuple[str, int, list[str], str]], delimiter: str, encoding: str, quoting: int, line_end: str
) -> None:
    text = io.StringIO(newline="")
    writer = csv.writer(text, delimiter=delimiter, quoting=quoting, lineterminator=line_end)
    writer.writerow(["name", "phone", "niche", "notes"])
    writer.writerows([name, f"+6012{number:07d}", ",".join(tags), notes] for name, number, tags, notes in people)
    assert leads(text.getvalue().encode(encoding)) == list(_expected(people))


@given(data=st.binary(max_size=300) | st.text(alphabet='phone,;\n\r"0123+ \tx', max_size=200).map(str.encode))
@settings(max_examples=500, deadline=None)
def test_any_bytes_are_rows_or_a_problem_in_words(data: bytes) -> None:
    rows: list[LeadRow | RowProblem] = []
    with suppress(LeadFileProblem):
        rows = read(b"phone,name\n" + data)
    numbers = [row.row_number for row in rows]
    assert numbers == sorted(set(numbers))
    assert all(row.message for row in rows if isinstance(row, RowProblem))
