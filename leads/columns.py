"""Which column of a table means what: guessed from its title, or told. Pure: no Django.

A *mapping* has one entry for each column, in their order: a name in :data:`FIELDS`, ``custom.<key>`` for a field of the
user's own, or ``skip``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from leads.tables import LeadFileProblem

KEY_LENGTH = 60
COLUMNS_MOST = 200
SKIP = "skip"
CUSTOM = "custom."

FIELDS: Mapping[str, str] = {
    "phone": "Phone",
    "other_phone": "Another phone, used where the first is empty",
    "name": "Name",
    "first_name": "First name",
    "last_name": "Last name",
    "niche": "Niche tags",
    "status": "Status (prospect or customer)",
    "trigger": "Trigger tags",
    "notes": "Notes",
    "consent_at": "Consent: when",
    "consent_source": "Consent: where and how",
    "opted_out_at": "Opted out: when",
    "custom_json": "Several own fields, as JSON",
}
"""What a column may mean, with words for a person."""

PROBLEM_TITLES = ["row", "problem", "field"]
"""What the download of an import's problems puts before the file's own columns."""

_REPEATABLE = {"other_phone"}
_ALIASES: Mapping[str, tuple[str, ...]] = {
    # in the order of preference, where a file has several
    "phone": (
        "phone", "phone number", "whatsapp", "whatsapp number", "whatsapp phone number", "mobile", "mobile number",
        "mobile phone", "mobile phone number", "phone no", "mobile no", "whatsapp no", "handphone", "cell",
        "cell phone", "cellphone", "msisdn", "tel", "telephone", "telephone number", "contact number",
        "recipient phone", "phone 1 value", "phone 2 value", "primary phone", "sms phone number", "no telefon",
        "nombor telefon", "no hp", "nomor telepon", "nomor hp", "telefon", "telefonnummer", "handynummer", "teléfono",
        "telefono", "celular", "téléphone", "numéro de téléphone", "telefone", "телефон", "الهاتف", "رقم الهاتف",
        "电话", "手机", "手机号", "電話番号", "전화번호", "number",
    ),
    "name": (
        "name", "full name", "fullname", "contact name", "customer name", "lead name", "recipient name",
        "display name", "nama",
    ),
    "first_name": ("first name", "firstname", "given name"),
    "last_name": ("last name", "lastname", "surname", "family name"),
    "niche": ("niche", "niches"),
    "status": ("target status", "target sta", "status", "lead status", "lifecycle stage"),
    "trigger": ("trigger", "triggers"),
    "notes": ("notes", "note", "remarks", "remark", "comments", "comment", "journey", "catatan"),
    "consent_at": ("consent at",),
    "consent_source": ("consent source",),
    "opted_out_at": ("opted out at",),
    "custom_json": ("custom json",),
}  # fmt: skip
_TITLES = frozenset(alias for aliases in _ALIASES.values() for alias in aliases)
_OTHERS_STATUS = {"status", "lead status", "lifecycle stage"}
"""Titles that other programs use for stages of their own, as “Open deal”: ours only where our words stand below."""
STATUSES = {
    "": "",
    "prospect": "prospect", "prospects": "prospect", "lead": "prospect",
    "customer": "customer", "customers": "customer", "client": "customer",
}  # fmt: skip


class ImportRefused(ValueError):  # noqa: N818 - reads as a fact
    """An import that cannot be set up; ``field`` names what to change."""

    def __init__(self, code: str, text: str, field: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = text
        self.field = field


@dataclass(frozen=True, slots=True)
class Columns:
    """Positions of the columns that mean something, and (position, key) of the user's own."""

    phone: tuple[int, ...]
    name: tuple[int, ...]
    custom: tuple[tuple[int, str], ...]
    niche: int | None = None
    status: int | None = None
    trigger: int | None = None
    notes: int | None = None
    consent_at: int | None = None
    consent_source: int | None = None
    opted_out_at: int | None = None
    custom_json: int | None = None


def guess(header: Sequence[str], samples: Sequence[Sequence[str]] = ()) -> list[str]:
    """A mapping for ``header``, whose first rows are ``samples``; without ``phone`` if no title says so.

    Raises LeadFileProblem for more columns than a table of leads has.
    """
    if len(header) > COLUMNS_MOST:
        raise LeadFileProblem("too_many_columns", f"The file has {len(header)} columns: {COLUMNS_MOST} are allowed.")
    titles = [_plain(title) for title in header]
    places = {
        field: [titles.index(alias) for alias in aliases if alias in titles] for field, aliases in _ALIASES.items()
    }
    places["status"] = [place for place in places["status"] if _is_status(titles[place], place, samples)]
    mapping = dict.fromkeys(range(len(header)), "")
    if places["name"]:
        places["first_name"] = places["last_name"] = []
    for field, found in places.items():
        for place in found[:1]:
            mapping[place] = field
    for place in places["phone"][1:]:
        mapping[place] = "other_phone"
    if titles[: len(PROBLEM_TITLES)] == PROBLEM_TITLES:
        mapping.update(dict.fromkeys(range(len(PROBLEM_TITLES)), SKIP))
    for place, key in _keys(titles, {place for place, field in mapping.items() if field}):
        mapping[place] = CUSTOM + key
    return list(mapping.values())


def checked(mapping: Sequence[str], header: Sequence[str]) -> list[str]:
    """``mapping`` if it fits a table with this header. Raises :class:`ImportRefused`."""
    entries = [str(entry).strip() for entry in mapping]
    if len(entries) != len(header):
        raise _refused(f"The file has {len(header)} columns, the mapping {len(entries)} entries: give one for each.")
    for entry in dict.fromkeys(entries):
        key = entry.removeprefix(CUSTOM)
        if entry not in FIELDS and entry != SKIP and (key == entry or not key.isidentifier() or len(key) > KEY_LENGTH):
            raise _refused(
                f"“{entry[:80]}” is nothing that a column can be: use one of {', '.join(FIELDS)}, {SKIP}, or {CUSTOM}"
                " and a name of letters, digits and underscores."
            )
        if entry != SKIP and entry not in _REPEATABLE and entries.count(entry) > 1:
            raise _refused(f"“{entry}” stands at {entries.count(entry)} columns: choose one of them.")
    if "phone" not in entries:
        raise _refused("No column is the phone number: say which one is.")
    return entries


def understood(mapping: Sequence[str], header: Sequence[str]) -> Columns:
    """The positions behind a mapping. Raises LeadFileProblem if none holds phone numbers."""
    if "phone" not in mapping:
        raise no_phone_column(header)
    titles = [_plain(title) for title in header]
    keys = dict(_keys(titles, {place for place, entry in enumerate(mapping) if entry != "other_phone"}))
    custom = {place: entry.removeprefix(CUSTOM) for place, entry in enumerate(mapping) if entry.startswith(CUSTOM)}
    taken = set(custom.values())
    custom.update({place: f"{key}_{place + 1}" if key in taken else key for place, key in keys.items()})
    others = [place for place, entry in enumerate(mapping) if entry == "other_phone"]
    aliases = _ALIASES["phone"]
    others.sort(key=lambda place: aliases.index(titles[place]) if titles[place] in aliases else len(aliases))
    names = ["name"] if "name" in mapping else ["first_name", "last_name"]
    single = ("niche", "status", "trigger", "notes", "consent_at", "consent_source", "opted_out_at", "custom_json")
    return Columns(
        phone=(mapping.index("phone"), *others),
        name=tuple(mapping.index(field) for field in names if field in mapping),
        custom=tuple(sorted(custom.items())),
        **{field: mapping.index(field) for field in single if field in mapping},
    )


def own_keys(header: Sequence[str]) -> list[str]:
    """For each column the key it would have as a field of the user's own."""
    return [key for _, key in _keys([_plain(title) for title in header], set())]


def is_title(key: str) -> bool:
    """Whether a column with the title ``key`` is guessed to be the user's own field of just that name."""
    return len(key) <= KEY_LENGTH and _plain(key) not in _TITLES and dict(_keys([_plain(key)], set())) == {0: key}


def no_phone_column(header: Sequence[str]) -> LeadFileProblem:
    """Why a table without phone numbers is no table of leads."""
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


def _plain(title: str) -> str:
    return re.sub(r"[\s_\-./:*]+", " ", title.strip("'\"").casefold()).strip()


def _is_status(title: str, place: int, samples: Sequence[Sequence[str]]) -> bool:
    if title not in _OTHERS_STATUS:
        return True
    words = [row[place].strip().casefold() for row in samples if len(row) > place and row[place].strip()]
    return not words or any(word in STATUSES for word in words)


def _keys(titles: Sequence[str], used: set[int]) -> Iterator[tuple[int, str]]:
    """Keys for the columns that are not ``used``, as templates can name them: “Order date” becomes ``order_date``."""
    taken: set[str] = set()
    for position, title in enumerate(titles):
        if position in used:
            continue
        fallback = f"column_{position + 1}"
        key = re.sub(r"\W+", "_", title).strip("_")[:KEY_LENGTH] or fallback
        if not key.isidentifier():
            key = f"column_{key}" if f"column_{key}".isidentifier() else fallback
        if key in taken:
            key = f"{key}_{position + 1}"
        taken.add(key)
        yield position, key


def _refused(text: str) -> ImportRefused:
    return ImportRefused("mapping_invalid", text, "mapping")
