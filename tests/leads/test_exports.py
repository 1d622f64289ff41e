"""What is exported imports again to the same leads, and no cell of it is a formula."""

from __future__ import annotations

import csv
import io
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from leads import services
from leads.cells import guarded, tags_cell, tags_of, unguarded
from leads.exports import lead_lines
from leads.models import Lead, LeadImport
from tests.factories import make_leads, make_user

FIELDS = ("phone", "name", "status", "niches", "triggers", "notes", "custom", "consent_at", "consent_source",
          "opted_out_at")  # fmt: skip


def exported(owner: User) -> str:
    return "".join(lead_lines(Lead.objects.filter(owner=owner)))


def table(text: str) -> list[list[str]]:
    return list(csv.reader(io.StringIO(text.removeprefix("\ufeff"), newline="")))


def imported(text: str, *, owner: User, **fields: Any) -> LeadImport:
    made = services.create_import(
        owner=owner, file=io.BytesIO(text.encode()), filename="leads.csv", region="MY", consent_source="", **fields
    )
    return services.run_import(import_id=made.pk)


def people(owner: User) -> list[dict[str, Any]]:
    return list(Lead.objects.filter(owner=owner).order_by("phone").values(*FIELDS))


_NO_SHRINKING = (Phase.explicit, Phase.reuse, Phase.generate)  # which would import hundreds of times
_starts = st.sampled_from(["", "=", "+", "-", "@", "'", "''", "'=", '"', "＝", " "])
_body = st.text(st.characters(exclude_categories=("Cs", "Cc")) | st.sampled_from("\",;|'\n=+-@\t"), max_size=25)
_text = st.tuples(_starts, _body).map("".join)
_line = _text.map(lambda text: " ".join(text.split()))
_tags = st.lists(_line.map(lambda tag: tag[:60].strip()).filter(bool), max_size=3, unique=True)
_key = st.sampled_from(
    ["city", "order_date", "Order Date", "phone", "number", "notes", "2nd", "a__b", "الاسم", "=x", ""]
)
_json = st.recursive(st.none() | st.booleans() | st.integers(-9, 9) | st.floats(-9, 9) | _text, st.lists, max_leaves=3)
_moment = st.none() | st.datetimes(datetime(2000, 1, 1), datetime(2030, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001
_lead = st.fixed_dictionaries(
    {
        "name": _line, "status": st.sampled_from(["prospect", "customer"]), "niches": _tags, "triggers": _tags,
        "notes": _text.map(str.strip), "custom": st.dictionaries(_key, _json | _text, max_size=4),
        "consent_at": _moment, "consent_source": _line, "opted_out_at": _moment,
    }
)  # fmt: skip


@pytest.mark.django_db
@given(rows=st.lists(_lead, min_size=1, max_size=4), policy=st.sampled_from(LeadImport.Duplicates.values))
@settings(max_examples=50, deadline=None, phases=_NO_SHRINKING, suppress_health_check=list(HealthCheck))
def test_what_is_exported_imports_again_to_the_same_leads(rows: list[dict[str, Any]], policy: str) -> None:
    first, second = make_user(), make_user()
    for number, row in enumerate(rows):
        # a source without a time is none
        row["consent_source"] = row["consent_source"] if row["consent_at"] else ""
        Lead.objects.create(owner=first, phone=f"+6012000000{number}", **row)
    text = exported(first)
    assert not any(cell[:1] in set("=+-@＝") for line in table(text)[1:] for cell in line)
    done = imported(text, owner=second, duplicates=policy)
    assert (done.accepted, done.rejected) == (len(rows), 0), list(done.problems.values_list("message", "values"))
    assert people(second) == people(first)
    before = people(first)
    again = imported(text, owner=first, duplicates=policy)
    assert (again.accepted, again.rejected) == (0, 0)
    assert people(first) == before


@given(text=_text)
@settings(max_examples=500)
def test_the_guard_comes_off_as_it_went_on(text: str) -> None:
    assert unguarded(guarded(text)) == text


@given(tags=_tags)
@settings(max_examples=300)
def test_tags_in_a_cell_are_the_same_tags(tags: list[str]) -> None:
    assert tags_of(tags_cell(tags)) == tuple(tags)


@pytest.mark.parametrize(
    ("cell", "tags"),
    [
        ('"Gold members","VIP"', ("Gold members", "VIP")),
        ('5" Pipe, x', ('5" Pipe', "x")),
        ('"a,b"; c|d', ("a,b", "c", "d")),
        ('"open, x', ('"open', "x")),
        (" , ;", ()),
    ],
)
def test_tags_as_other_programs_write_them(cell: str, tags: tuple[str, ...]) -> None:
    assert tags_of(cell) == tags


@pytest.mark.django_db
def test_columns_are_the_imports_own_and_the_rarest_fields_share_one() -> None:
    owner = make_user()
    (lead,) = make_leads(1, owner=owner, custom={"city": "Ipoh", "phone": "x", "age": 3})
    make_leads(1, owner=owner, custom={f"f{n}": "v" for n in range(300)} | {"city": "KL"})
    header, first, second = table(exported(owner))
    assert header[:5] == ["name", "phone", "niche", "target_status", "trigger"]
    assert (len(header), header[-1]) == (len(set(header)), "custom_json")
    assert len(header) <= 200
    assert "city" in header
    assert dict(zip(header, first, strict=True))["custom_json"] == '{"age": 3, "phone": "x"}'
    assert dict(zip(header, first, strict=True))["phone"] == f"'{lead.phone}"
    assert len(second) == len(header)
    other = make_user()
    imported(exported(owner), owner=other)
    assert people(other) == people(owner)


@pytest.mark.django_db
@pytest.mark.parametrize("value", ["", " x", "x ", "a\nb", "a\r\nb", "'=x", "=x", "- x", 5, 1.5, None, [1], {"a": "b"}])
def test_a_field_of_ones_own_comes_back_as_it_was(value: Any) -> None:
    owner, other = make_user(), make_user()
    make_leads(1, owner=owner, custom={"city": value, "town": "x"})
    imported(exported(owner), owner=other)
    assert Lead.objects.get(owner=other).custom == {"city": value, "town": "x"}


@pytest.mark.django_db
def test_an_empty_export_has_its_header() -> None:
    lines = list(lead_lines(Lead.objects.none()))
    assert len(lines) == 1
    assert lines[0].startswith("\ufeffname,phone,niche,target_status,trigger,")


@pytest.mark.django_db
def test_a_consent_with_a_zone_is_the_same_moment() -> None:
    owner, other = make_user(), make_user()
    moment = datetime(2026, 1, 31, 23, 59, 59, 123456, tzinfo=UTC) - timedelta(days=1)
    make_leads(1, owner=owner, consent_at=moment)
    imported(exported(owner), owner=other)
    assert Lead.objects.get(owner=other).consent_at == moment
