"""Phone numbers as people and spreadsheets write them, turned into E.164. Pure: no Django, no clock.

The rules of each country come from the ``phonenumbers`` library (Google's libphonenumber metadata). Most numbers take a
short cut over patterns compiled once from that same metadata; it only ever says "yes, valid", and whatever it does not
recognise goes to the library, which decides.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from functools import cache
from typing import Any

import phonenumbers
from phonenumbers import COUNTRY_CODE_TO_REGION_CODE, NumberParseException, PhoneMetadata, ValidationResult

_SHOWN = 30
"""Characters of the raw text that a message quotes."""

_PLAIN = re.compile(r"\+?[0-9(][0-9 ()-]*")
_SEPARATORS = str.maketrans("", "", " ()-")
_ALLOWED = re.compile(r"\+?[0-9]+")
_PUNCTUATION = re.compile(r"[\s\-.()/_~·‐-―−－（）．／]+")
_QUOTES = "'’‘`´\"“”"
_LABEL = re.compile(r"(?:tel|phone|mobile|whatsapp|wa|p)\s*:\s*", re.IGNORECASE)
_FORMULA = re.compile(r'=\s*"([^"]*)"')
_SCIENTIFIC = re.compile(r"\+?([0-9])(?:[.,]([0-9]+))?[eE]\+?([0-9]{1,2})")
_DECIMAL_TAIL = re.compile(r"(\+?[0-9]{7,15})[.,]0+")
_SEVERAL = re.compile(r"(?:[0-9][\s\-.()]*){7,}(?:[,;/|\n]|\bor\b)\s*\+?(?:[0-9(][\s\-.()]*){7,}")
_E164_LONGEST = 15
_E164_SHORTEST = 6


class PhoneProblem(ValueError):  # noqa: N818 - reads as a fact
    """Text that is no phone number: ``code`` is stable, ``text`` says what is wrong and what to do."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = text


def known_region(region: str) -> bool:
    """Whether ``region`` is a country whose numbers we know, as MY (ISO 3166-1, two capitals)."""
    return region in phonenumbers.SUPPORTED_REGIONS


def parse_phone(raw: str, *, region: str) -> str:
    """``raw`` as E.164, as +60123456789. Numbers without a country code are read as numbers of ``region``.

    Takes separators, a leading apostrophe, digits of any script, the prefix 00, a lost plus before the region's own
    country code, and numbers that a spreadsheet wrote with an exponent as long as no digit was lost. Raises
    :class:`PhoneProblem` for anything that is not a number in its country's numbering plan.
    """
    text = raw.strip()
    if _PLAIN.fullmatch(text):
        quick = _quick(text.translate(_SEPARATORS), region)
        if quick is not None:
            return quick
    digits = _digits(text)
    candidates = _candidates(digits, region)
    for candidate, where in candidates:
        found = _valid(candidate, where)
        if found is not None:
            return found
    raise _refusal(digits, shown=_shown(raw), region=region)


def mask(phone: str) -> str:
    """``phone`` for logs: ``+6012•••789``. Too little of it is left to write to anybody."""
    if len(phone) < 8:
        return "•••"
    head, tail = (5, 3) if len(phone) >= 11 else (3, 2)
    return f"{phone[:head]}•••{phone[-tail:]}"


# -- From text to digits -----------------------------------------------------------------------------------------------


def _shown(raw: str) -> str:
    text = " ".join(raw.split())
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"


def _digits(text: str) -> str:
    """ASCII digits with at most one plus in front, exactly as many as were written. Raises PhoneProblem."""
    text = _ascii_digits(text).strip()
    formula = _FORMULA.fullmatch(text)
    text = (formula.group(1) if formula else text).strip(_QUOTES).strip()
    label = _LABEL.match(text)
    text = text[label.end() :] if label else text
    if not text:
        raise PhoneProblem("phone_missing", "There is no phone number: fill it in or remove the row.")
    shown = _shown(text)
    text = _undo_spreadsheet(text, shown)
    if _SEVERAL.fullmatch(text):
        raise PhoneProblem("phone_several", f"“{shown}” holds more than one number: keep one per row.")
    if any(character.isalpha() for character in text):
        raise PhoneProblem("phone_letters", f"“{shown}” holds letters: write digits only, without names or extensions.")
    text = _PUNCTUATION.sub("", text).replace("\uff0b", "+")
    # Right-to-left tables often show the plus at the end.
    text = "+" + text.strip("+") if text[:1] == "+" or text[-1:] == "+" else text
    if not _ALLOWED.fullmatch(text):
        raise PhoneProblem("phone_characters", f"“{shown}” is not a phone number: write digits only, as +60123456789.")
    return text


def _ascii_digits(text: str) -> str:
    """``text`` with the digits of every script as 0–9 and without invisible characters (direction marks and such)."""
    if text.isascii():
        return text
    return "".join(
        str(unicodedata.decimal(character)) if character.isdecimal() else character
        for character in text
        if unicodedata.category(character) != "Cf"
    )


def _undo_spreadsheet(text: str, shown: str) -> str:
    """Undo ``6.0123456789E+10`` and ``60123456789.0`` where every digit is still there. Raises PhoneProblem."""
    scientific = _SCIENTIFIC.fullmatch(text)
    if scientific:
        first, rest, exponent = scientific.group(1), scientific.group(2) or "", int(scientific.group(3))
        # Fewer digits than the exponent says: zeros at the end and digits cut away look the same.
        if len(rest) != exponent:
            raise PhoneProblem(
                "phone_damaged",
                f"A spreadsheet turned this number into “{shown}” and digits were lost: format the column as text,"
                " and paste the numbers again.",
            )
        return first + rest
    decimal = _DECIMAL_TAIL.fullmatch(text)
    return decimal.group(1) if decimal else text


# -- From digits to a number -------------------------------------------------------------------------------------------


def _candidates(digits: str, region: str) -> list[tuple[str, str | None]]:
    """Readings of ``digits`` in the order of likelihood, each with the region it is read in."""
    if digits.startswith("+0"):  # no country code begins with 0: a national number with a plus too many
        digits = digits[1:]
    if digits.startswith("+"):
        return [(digits, None)]
    readings: list[tuple[str, str | None]] = []
    if known_region(region):
        readings.append((digits, region))
        if digits.startswith(str(phonenumbers.country_code_for_region(region))):
            readings.append((f"+{digits}", None))
    if digits.startswith("00"):
        readings.append((f"+{digits[2:]}", None))
    return readings


def _valid(digits: str, region: str | None) -> str | None:
    """E.164 if the library finds ``digits`` possible and valid."""
    try:
        number = phonenumbers.parse(digits, region)
    except NumberParseException:
        return None
    if not (phonenumbers.is_possible_number(number) and phonenumbers.is_valid_number(number)):
        return None
    found = phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164)
    # A few plans (Germany's) allow more digits than E.164 has room for.
    return found if _E164_SHORTEST < len(found) <= _E164_LONGEST + 1 else None


def _refusal(digits: str, *, shown: str, region: str) -> PhoneProblem:
    """Why ``digits`` are no number, and what would help."""
    international = digits.startswith("+") and not digits.startswith("+0")
    if not international and not known_region(region):
        return PhoneProblem(
            "phone_country_unknown", f"“{shown}” has no country code: write it in front, as +60 for Malaysia."
        )
    if not international and _valid(f"+{digits.lstrip('+')}", None):
        return PhoneProblem(
            "phone_no_plus",
            f"“{shown}” is no number of {region}. If it already holds a country code, write a plus in front of it.",
        )
    try:
        number = phonenumbers.parse(digits, None if international else region)
        reason = phonenumbers.is_possible_number_with_reason(number)
    except NumberParseException as error:
        reason = _REASONS.get(error.error_type, ValidationResult.INVALID_LENGTH)
    where = "its country" if international else region
    remedy = (
        "check it against the original" if international else "complete it, or write it with a plus and country code"
    )
    if reason == ValidationResult.INVALID_COUNTRY_CODE:
        return PhoneProblem(
            "phone_country_unknown", f"“{shown}” begins with a country code that does not exist: {remedy}."
        )
    if reason in {ValidationResult.TOO_SHORT, ValidationResult.IS_POSSIBLE_LOCAL_ONLY}:
        return PhoneProblem("phone_too_short", f"“{shown}” is too short for {where}: {remedy}.")
    if reason == ValidationResult.TOO_LONG or len(digits) > _E164_LONGEST + 1:
        return PhoneProblem("phone_too_long", f"“{shown}” is too long for {where}: keep one number, without extension.")
    return PhoneProblem("phone_not_valid", f"“{shown}” is not a number that exists in {where}: {remedy}.")


_REASONS = {
    NumberParseException.INVALID_COUNTRY_CODE: ValidationResult.INVALID_COUNTRY_CODE,
    NumberParseException.TOO_SHORT_AFTER_IDD: ValidationResult.TOO_SHORT,
    NumberParseException.TOO_SHORT_NSN: ValidationResult.TOO_SHORT,
    NumberParseException.NOT_A_NUMBER: ValidationResult.TOO_SHORT,
    NumberParseException.TOO_LONG: ValidationResult.TOO_LONG,
}


# -- The short cut -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Plan:
    """A country code's numbering plan; ``regions`` in the library's order, each (leading digits, valid numbers)."""

    prefix: re.Pattern[str] | None
    regions: tuple[tuple[re.Pattern[str] | None, re.Pattern[str]], ...]

    def holds(self, national: str) -> bool:
        """Whether ``national`` is a valid number of this plan."""
        for leading, numbers in self.regions:
            if leading is not None:
                if leading.match(national):  # decides alone, whether the number is valid or not
                    return numbers.fullmatch(national) is not None
            elif numbers.fullmatch(national):
                return True
        return False


@dataclass(frozen=True, slots=True)
class _Home:
    """How numbers are dialled inside one region; only for regions where that is a plain prefix or nothing."""

    country_code: str
    national_prefix: str
    abroad: re.Pattern[str]
    general: re.Pattern[str]

    def national(self, digits: str) -> str:
        """``digits`` without country code and prefix; empty where only the library can tell them apart."""
        if digits.startswith(self.country_code):
            return "" if self.general.fullmatch(digits) else digits[len(self.country_code) :]
        return digits.removeprefix(self.national_prefix)


def _quick(digits: str, region: str) -> str | None:
    """E.164 of numbers that need no interpretation, None for all others."""
    if digits.startswith("+"):
        code, national = _split(digits[1:])
    else:
        home = _home(region)
        if home is None or home.abroad.match(digits):
            return None
        code, national = home.country_code, home.national(digits)
        if not home.general.fullmatch(national):
            return None
    plan = _plan(code) if code else None
    if plan is None or national.startswith("0") or (plan.prefix is not None and plan.prefix.match(national)):
        return None
    if len(code) + len(national) > _E164_LONGEST or not plan.holds(national):
        return None
    return f"+{code}{national}"


def _split(digits: str) -> tuple[str, str]:
    """(country code, rest); no country code is the beginning of another. ("", digits) if it does not exist."""
    for length in (1, 2, 3):
        if digits[:length] in _CODES:
            return digits[:length], digits[length:]
    return "", digits


_CODES = frozenset(str(code) for code in COUNTRY_CODE_TO_REGION_CODE)


@cache
def _plan(code: str) -> _Plan | None:
    names = COUNTRY_CODE_TO_REGION_CODE[int(code)]
    if names == ("001",):  # a service without a country: rare enough for the library
        return None
    metadata = [known for name in names if (known := PhoneMetadata.metadata_for_region(name, None))]
    main = metadata[0].national_prefix_for_parsing
    return _Plan(
        prefix=re.compile(main) if main else None,
        regions=tuple((re.compile(m.leading_digits) if m.leading_digits else None, _numbers(m)) for m in metadata),
    )


@cache
def _home(region: str) -> _Home | None:
    metadata = PhoneMetadata.metadata_for_region(region, None) if known_region(region) else None
    if metadata is None or metadata.country_code is None or metadata.general_desc is None:
        return None
    if COUNTRY_CODE_TO_REGION_CODE[metadata.country_code][0] != region:  # a plan shared with a larger neighbour
        return None
    prefix = metadata.national_prefix or ""
    if (metadata.national_prefix_for_parsing or "") != prefix or metadata.national_prefix_transform_rule:
        return None
    return _Home(
        country_code=str(metadata.country_code),
        national_prefix=prefix,
        abroad=re.compile(metadata.international_prefix or "(?!)"),
        general=re.compile(metadata.general_desc.national_number_pattern or "(?!)"),
    )


def _numbers(metadata: Any) -> re.Pattern[str]:
    """One pattern for what ``phonenumbers.is_valid_number`` accepts in a region: the general shape and any type's."""
    kinds = [
        metadata.mobile, metadata.fixed_line, metadata.voip, metadata.premium_rate, metadata.toll_free,
        metadata.shared_cost, metadata.personal_number, metadata.pager, metadata.uan, metadata.voicemail,
    ]  # fmt: skip
    shapes = "|".join(shape for shape in map(_shape, kinds) if shape)
    return re.compile(f"(?={_shape(metadata.general_desc)}$)(?:{shapes or '(?!)'})")


def _shape(description: Any) -> str:
    """Pattern of one kind of number, with its lengths looked at first; empty if the region has none of it."""
    if description is None or not description.national_number_pattern:
        return ""
    lengths = [length for length in description.possible_length if length > 0]
    if description.possible_length and not lengths:
        return ""
    look = f"(?=(?:{'|'.join(f'[0-9]{{{n}}}' for n in lengths)})$)" if lengths else ""
    return f"{look}(?:{description.national_number_pattern})"
