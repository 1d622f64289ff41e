"""The rules of a segment: what is asked of a lead, read from JSON and written back. Pure: no Django, no clock.

::

    {"status": "customer", "niches_any": ["TRAVEL"], "triggers_none": ["paid"], "custom": {"city": "Ipoh"},
     "consent": true, "created_from": "2026-01-31", "reached": false, "replied_since": {"days_ago": 30}}

Every rule has to hold; what is not named is not asked. Moments are ISO 8601 dates (midnight) or times, or so many days
before now; :meth:`Rules.settled` turns all of them into moments.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields, replace
from datetime import date, datetime, time, timedelta
from typing import Any, Self

from leads.cells import clean_tags

STATUSES = ("prospect", "customer")
TAGS_MOST, TAG_LENGTH = 100, 60
OWN_MOST, OWN_LENGTH = 20, 1000
DAYS_MOST = 36_500
_YEARS = range(1900, 2201)

Moment = datetime | date | timedelta
"""A time, a day (its midnight), or how long before now."""
Tags = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RuleProblem:
    """What is wrong with one rule; ``field`` is its name, ``text`` names it too and says what to do."""

    field: str
    code: str
    text: str


class RulesRefused(ValueError):  # noqa: N818 - reads as a fact
    """Rules that cannot be read, with every reason."""

    def __init__(self, problems: Iterable[RuleProblem]) -> None:
        self.problems = list(problems)
        super().__init__(" ".join(problem.text for problem in self.problems))


class _Bad(Exception):  # noqa: N818 - never leaves this module
    """Why one value was refused."""

    def __init__(self, text: str, code: str = "invalid") -> None:
        super().__init__(text)
        self.code = code


@dataclass(frozen=True, slots=True)
class Rules:
    """What is asked of a lead. Empty and None ask nothing."""

    status: str = ""
    niches_any: Tags = ()
    niches_all: Tags = ()
    niches_none: Tags = ()
    triggers_any: Tags = ()
    triggers_all: Tags = ()
    triggers_none: Tags = ()
    custom: tuple[tuple[str, str], ...] = ()
    """Own fields and the text each must have; a number or truth value counts as JSON writes it."""
    custom_set: tuple[str, ...] = ()
    custom_unset: tuple[str, ...] = ()
    consent: bool | None = None
    opted_out: bool | None = None
    in_review: bool | None = None
    device: int | None = None
    has_device: bool | None = None
    created_from: Moment | None = None
    created_before: Moment | None = None
    reached: bool | None = None
    """Whether any message to them was ever accepted."""
    sent_since: Moment | None = None
    not_sent_since: Moment | None = None
    replied_since: Moment | None = None

    def to_json(self) -> dict[str, Any]:
        """A form for a JSON column; :func:`parse` reads it back. Rules that ask nothing are left out."""
        asked = {name: value for name, value in self.asked() if name != "custom"}
        shown = {name: _json(value) for name, value in asked.items()}
        return {**shown, "custom": dict(self.custom)} if self.custom else shown

    def asked(self) -> list[tuple[str, Any]]:
        """(name, value) of the rules that ask something."""
        return [
            (field.name, value) for field in fields(self) if (value := getattr(self, field.name)) not in {"", (), None}
        ]

    def settled(self, *, now: datetime) -> Self:
        """The same rules, every moment a time. Days begin at midnight in the zone of ``now``."""
        moments: dict[str, Any] = {name: _at(value, now) for name, value in self.asked() if _is_moment(value)}
        return replace(self, **moments)


def parse(given: object) -> Rules:
    """Rules from JSON. Empty values ask nothing. Raises RulesRefused, which names each rule and what to do."""
    if not isinstance(given, Mapping):
        raise RulesRefused([RuleProblem("", "invalid", 'Rules are an object, as {"status": "customer"}.')])
    found: dict[str, Any] = {}
    problems = []
    for name, value in given.items():
        if name not in _READERS:
            text = f"There is no rule “{str(name)[:60]}”. Known: {', '.join(NAMES)}."
            problems.append(RuleProblem(str(name)[:60], "unknown_rule", text))
            continue
        if value is None or value in ("", [], {}):
            continue
        try:
            found[name] = _READERS[name](value)
        except _Bad as bad:
            problems.append(RuleProblem(name, bad.code, f"Rule “{name}”: {bad}"))
    if problems:
        raise RulesRefused(problems)
    return Rules(**found)


def _status(value: object) -> str:
    if value not in STATUSES:
        raise _Bad(f"this is no status; use {' or '.join(STATUSES)}.")
    return str(value)


def _tags(value: object) -> Tags:
    tags = clean_tags(_texts(value, most=TAGS_MOST, example='["TRAVEL", "FITNESS"]'))
    if any(len(tag) > TAG_LENGTH for tag in tags):
        raise _Bad(f"a tag has at most {TAG_LENGTH} characters; shorten it.")
    return tags


def _names(value: object) -> tuple[str, ...]:
    return tuple(dict.fromkeys(_texts(value, most=OWN_MOST, example='["city"]')))


def _own(value: object) -> tuple[tuple[str, str], ...]:
    if not isinstance(value, Mapping) or len(value) > OWN_MOST:
        raise _Bad(f'give at most {OWN_MOST} own fields and their texts, as {{"city": "Ipoh"}}.')
    return tuple((_text(name), _text(_written(wanted))) for name, wanted in value.items())


def _written(value: object) -> object:
    """A truth value or a number as JSON writes it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, int) else value


def _texts(value: object, *, most: int, example: str) -> tuple[str, ...]:
    if not isinstance(value, list | tuple) or len(value) > most:
        raise _Bad(f"give a list of at most {most} texts, as {example}.")
    return tuple(_text(text) for text in value)


def _text(value: object) -> str:
    if not isinstance(value, str) or not value:
        raise _Bad("every name and value is a text that is not empty, in quotation marks.")
    if len(value) > OWN_LENGTH or "\0" in value or any("\ud800" <= character <= "\udfff" for character in value):
        raise _Bad(f"a text has at most {OWN_LENGTH} characters and no NUL character; shorten or mend it.")
    return value


def _yes_no(value: object) -> bool:
    if not isinstance(value, bool):
        raise _Bad("use true or false; leave the rule out to ask neither.")
    return value


def _id(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value < 2**63:
        raise _Bad("give the id of a device, as 7.")
    return value


def _moment(value: object) -> Moment:
    if isinstance(value, Mapping):
        days = value.get("days_ago")
        if len(value) == 1 and isinstance(days, int) and not isinstance(days, bool) and 0 <= days <= DAYS_MOST:
            return timedelta(days=days)
    elif isinstance(value, str):
        found = _read_moment(value.strip())
        if found is not None and found.year in _YEARS:
            return found
    raise _Bad('give a day as "2026-01-31", a time as "2026-01-31T09:00:00+08:00", or {"days_ago": 30}.')


def _read_moment(text: str) -> datetime | date | None:
    for read in (date.fromisoformat, datetime.fromisoformat):
        try:
            return read(text)
        except ValueError:
            continue
    return None


_READERS: dict[str, Callable[[object], Any]] = {
    "status": _status,
    **dict.fromkeys((f"{tags}_{how}" for tags in ("niches", "triggers") for how in ("any", "all", "none")), _tags),
    "custom": _own,
    **dict.fromkeys(("custom_set", "custom_unset"), _names),
    **dict.fromkeys(("consent", "opted_out", "in_review"), _yes_no),
    "device": _id,
    "has_device": _yes_no,
    **dict.fromkeys(("created_from", "created_before"), _moment),
    "reached": _yes_no,
    **dict.fromkeys(("sent_since", "not_sent_since", "replied_since"), _moment),
}
NAMES = tuple(_READERS)
"""Every rule there is."""
ENGAGEMENT = ("reached", "sent_since", "not_sent_since", "replied_since")
"""Rules about what was sent to leads and what they wrote: others know that (:mod:`leads.engagement`)."""


def _is_moment(value: object) -> bool:
    return isinstance(value, datetime | date | timedelta)


def _at(value: Moment, now: datetime) -> datetime:
    """``value`` as a time with a zone: that of ``now`` where it names none."""
    if isinstance(value, timedelta):
        return now - value
    if isinstance(value, datetime):
        return value if value.tzinfo else value.replace(tzinfo=now.tzinfo)
    return datetime.combine(value, time.min, tzinfo=now.tzinfo)


def _json(value: Any) -> Any:
    if isinstance(value, timedelta):
        return {"days_ago": value.days}
    if isinstance(value, datetime | date):
        return value.isoformat()
    return list(value) if isinstance(value, tuple) else value
