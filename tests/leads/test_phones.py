"""Phone numbers: what people and spreadsheets write, and that the short cut agrees with the library."""

from __future__ import annotations

import re

import phonenumbers
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from phonenumbers import PhoneMetadata, PhoneNumberFormat

from leads.phones import PhoneProblem, _quick, mask, parse_phone

REGIONS = sorted(phonenumbers.SUPPORTED_REGIONS)


@pytest.mark.parametrize(
    "raw",
    [
        "+60123456789",
        "  +60 12-345 6789 ",
        "+60 (12) 345.6789",
        "+60 (0)12-345 6789",
        "012-345 6789",
        "0123456789",
        "123456789",  # the spreadsheet ate the zero
        "60123456789",  # and here the plus
        "0060123456789",
        "++60123456789",
        "'+60123456789",
        "’012-3456789",
        '="0123456789"',
        "tel:+60-12-345-6789",
        "p:+60123456789",
        "60123456789.0",
        "6.0123456789E+10",
        "6,0123456789e10",
        "+0123456789",
        "٠١٢٣٤٥٦٧٨٩",
        "۰۱۲۳۴۵۶۷۸۹",
        "०१२-३४५ ६७८९",
        "\u200e+60 12\u00a0345\u20116789\u202c",
        "٦٠١٢٣٤٥٦٧٨٩+",
        "\uff0b\uff16\uff10 \uff11\uff12\uff0d345\uff0d6789",
    ],
)
def test_one_number_in_many_forms(raw: str) -> None:
    assert parse_phone(raw, region="MY") == "+60123456789"


@pytest.mark.parametrize(
    ("raw", "region", "expected"),
    [
        ("12025550143", "US", "+12025550143"),
        ("(202) 555-0143", "US", "+12025550143"),
        ("011 60 12 345 6789", "US", "+60123456789"),
        ("00 60 12 345 6789", "US", "+60123456789"),
        ("06 698 12345", "IT", "+390669812345"),  # Italy keeps its zero
        ("8 912 345 67 89", "RU", "+79123456789"),
        ("9821234567", "IN", "+919821234567"),
        ("+1 204 234 5678", "MY", "+12042345678"),
        ("+881 612 345678", "MY", "+881612345678"),  # a satellite service has no country
    ],
)
def test_other_countries(raw: str, region: str, expected: str) -> None:
    assert parse_phone(raw, region=region) == expected


@pytest.mark.parametrize(
    ("raw", "code", "remedy"),
    [
        ("", "phone_missing", "fill it in"),
        (" ' ", "phone_missing", "fill it in"),
        ("6.01E+10", "phone_damaged", "format the column as text"),
        ("6.012346E+10", "phone_damaged", "paste the numbers again"),
        ("call me", "phone_letters", "digits only"),
        ("03-2000 0000 ext 12", "phone_letters", "extensions"),
        ("012-345 6789 / 013-345 6789", "phone_several", "one per row"),
        ("0123456789, 0133456789", "phone_several", "one per row"),
        ("*#06#", "phone_characters", "digits only"),
        ("12+345", "phone_characters", "digits only"),
        ("012-34", "phone_too_short", "complete it"),
        ("7", "phone_too_short", "complete it"),
        ("+60 12", "phone_too_short", "check it"),
        ("0123456789012345", "phone_too_long", "one number"),
        ("+60 12 3456 7890 1234", "phone_too_long", "one number"),
        ("+999 123 456 789", "phone_country_unknown", "check it"),
        ("+60 99 000 0000", "phone_not_valid", "check it"),
        ("442079460958", "phone_no_plus", "plus"),
        ("9" * 500, "phone_too_long", "one number"),
    ],
)
def test_refusals_say_what_to_do(raw: str, code: str, remedy: str) -> None:
    with pytest.raises(PhoneProblem) as caught:
        parse_phone(raw, region="MY")
    assert caught.value.code == code
    assert remedy in caught.value.text
    assert len(caught.value.text) <= 300


def test_without_a_country_a_national_number_is_refused_and_an_international_one_taken() -> None:
    assert parse_phone("+60 12-345 6789", region="") == "+60123456789"
    with pytest.raises(PhoneProblem) as caught:
        parse_phone("012-345 6789", region="XX")
    assert caught.value.code == "phone_country_unknown"


@st.composite
def _numbers(draw: st.DrawFn) -> tuple[str, str, str]:
    """(region, country code, national digits): an example number of any kind with up to four digits changed."""
    region = draw(st.sampled_from(REGIONS))
    kinds = [kind for kind in range(11) if phonenumbers.example_number_for_type(region, kind)]
    number = phonenumbers.example_number_for_type(region, draw(st.sampled_from(kinds)))
    digits = list(phonenumbers.national_significant_number(number))
    for _ in range(draw(st.integers(0, 4))):
        digits[draw(st.integers(0, len(digits) - 1))] = draw(st.sampled_from("0123456789"))
    if draw(st.integers(0, 9)) == 0:
        digits.append(draw(st.sampled_from("0123456789")))
    if draw(st.integers(0, 9)) == 0:
        digits.pop()
    return region, str(number.country_code), "".join(digits)


def _by_the_library(digits: str, region: str | None) -> str | None:
    try:
        number = phonenumbers.parse(digits, region)
    except phonenumbers.NumberParseException:
        return None
    if not (phonenumbers.is_possible_number(number) and phonenumbers.is_valid_number(number)):
        return None
    return phonenumbers.format_number(number, PhoneNumberFormat.E164)


@given(number=_numbers(), form=st.integers(0, 4))
@settings(max_examples=1500, deadline=None)
def test_the_short_cut_says_what_the_library_says(number: tuple[str, str, str], form: int) -> None:
    region, code, national = number
    prefix = PhoneMetadata.metadata_for_region(region, None).national_prefix or ""
    digits = [f"+{code}{national}", f"{code}{national}", national, f"{prefix}{national}", f"00{code}{national}"][form]
    found = _quick(digits, region)
    assert found is None or found == _by_the_library(digits, region)


def test_the_short_cut_is_taken_by_ordinary_numbers() -> None:
    for region in ("MY", "SG", "ID", "IN", "US", "GB", "DE"):
        number = phonenumbers.example_number_for_type(region, phonenumbers.PhoneNumberType.MOBILE)
        e164 = phonenumbers.format_number(number, PhoneNumberFormat.E164)
        assert _quick(e164, "MY") == e164
    assert _quick("0123456789", "MY") == _quick("60123456789", "MY") == "+60123456789"


@given(region=st.sampled_from(REGIONS), form=st.sampled_from([PhoneNumberFormat.INTERNATIONAL, PhoneNumberFormat.E164]))
@settings(deadline=None)
def test_every_country_is_understood_from_abroad_and_twice_is_once(region: str, form: int) -> None:
    number = phonenumbers.example_number(region)
    expected = phonenumbers.format_number(number, PhoneNumberFormat.E164)
    assert parse_phone(phonenumbers.format_number(number, form), region="MY") == expected
    assert parse_phone(expected, region=region) == expected


@given(raw=st.text(alphabet="0123456789+-() ./,;'\"eExp:=٣९\u200f\u00a0�", max_size=24) | st.text(max_size=40))
@settings(max_examples=500, deadline=None)
def test_any_text_is_a_valid_number_or_a_problem_in_words(raw: str) -> None:
    phone, refusal = "", None
    try:
        phone = parse_phone(raw, region="MY")
    except PhoneProblem as problem:
        refusal = problem
    if refusal:
        assert refusal.code.startswith("phone_")
        assert 0 < len(refusal.text) <= 300
    else:
        assert re.fullmatch(r"\+[1-9][0-9]{5,14}", phone)
        assert phonenumbers.is_valid_number(phonenumbers.parse(phone, None))


def test_masked_numbers_hide_enough() -> None:
    assert mask("+60123456789") == "+6012•••789"
    assert mask("+2903123") == "+29•••23"
    assert mask("12345") == "•••"
