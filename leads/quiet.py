"""When a lead may be written to: quiet hours by the lead's own clock, and caps on how often. Pure: no Django.

A number tells its time zone where its country, or its area, has one (Google's libphonenumber metadata). Where it could
be several that differ, as for a Russian mobile, the installation's setting decides.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

import phonenumbers
from phonenumbers import timezone as numbering

_HOURS = re.compile(r"([01]?[0-9]|2[0-3]):([0-5][0-9])\s*[-–]\s*([01]?[0-9]|2[0-3]):([0-5][0-9])")
_CAP = re.compile(r"([1-9][0-9]{0,3})\s*/\s*(hour|day|week|month)")
_SPANS = {
    "hour": timedelta(hours=1),
    "day": timedelta(days=1),
    "week": timedelta(days=7),
    "month": timedelta(days=30),
}


class CourtesyProblem(ValueError):  # noqa: N818 - reads as a fact
    """A setting that cannot be read, with what it should look like."""


@dataclass(frozen=True, slots=True)
class QuietHours:
    """From ``start`` up to ``end`` by the lead's clock, usually past midnight."""

    start: time
    end: time


@dataclass(frozen=True, slots=True)
class Cap:
    """At most ``number`` messages to one lead in any ``span`` (rolling, not by the calendar)."""

    number: int
    per: str

    @property
    def span(self) -> timedelta:
        """The length of the window."""
        return _SPANS[self.per]


def parse_quiet_hours(text: str) -> QuietHours | None:
    """``21:00-08:00``; empty is None. Raises :class:`CourtesyProblem`."""
    if not text.strip():
        return None
    found = _HOURS.fullmatch(text.strip())
    if found is None:
        raise CourtesyProblem(f"“{text}” are no hours; write them as 21:00-08:00, or leave it empty.")
    first, second, third, fourth = (int(part) for part in found.groups())
    quiet = QuietHours(time(first, second), time(third, fourth))
    if quiet.start == quiet.end:
        raise CourtesyProblem(f"“{text}” begins when it ends: leave it empty for no quiet hours.")
    return quiet


def parse_caps(text: str) -> tuple[Cap, ...]:
    """``1/day,3/week``; empty is no cap. Raises :class:`CourtesyProblem`."""
    caps = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        found = _CAP.fullmatch(part.lower())
        if found is None:
            raise CourtesyProblem(f"“{part}” is no cap; write 1/day,3/week (hour, day, week or month), or nothing.")
        caps.append(Cap(int(found[1]), found[2]))
    return tuple(caps)


def parse_zone(text: str) -> str:
    """The name of a time zone that exists. Raises :class:`CourtesyProblem`."""
    try:
        ZoneInfo(text)
    except (KeyError, ValueError, OSError):
        raise CourtesyProblem(f"“{text}” is not a time zone; use a name like Asia/Kuala_Lumpur.") from None
    return text


def zone_of(*, phone: str, stated: str, otherwise: str) -> ZoneInfo:
    """The time zone of a lead with this E.164 number: ``stated`` if any, else the number's, else ``otherwise``."""
    return ZoneInfo(stated or zone_name_of(phone) or otherwise)


def zone_name_of(phone: str) -> str:
    """The time zone that the number gives away; empty if it does not, or could be several that differ."""
    try:
        names = numbering.time_zones_for_number(phonenumbers.parse(phone))
    except phonenumbers.NumberParseException:
        return ""
    return _one_of(tuple(names))


@lru_cache(maxsize=2048)
def _one_of(names: tuple[str, ...]) -> str:
    """The last of ``names`` if they all show the same time all year round (Guernsey, Jersey, London), else nothing."""
    try:
        zones = [ZoneInfo(name) for name in names if name != numbering.UNKNOWN_TIMEZONE]
    except (KeyError, ValueError, OSError):
        return ""
    year = [datetime(2026, month, 15, tzinfo=UTC) for month in range(1, 13)]
    clocks = {tuple(moment.astimezone(zone).utcoffset() for moment in year) for zone in zones}
    return str(zones[-1].key) if len(clocks) == 1 else ""
