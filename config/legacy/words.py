"""What system A's cells mean here. Pure: no Django, no database.

Each function takes what the driver read (None where the column is not there) and raises :class:`Unreadable` with what
to do.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import date, datetime, time
from typing import Any, Final
from zoneinfo import ZoneInfo

from leads.cells import clean_tags
from leads.imports import TAG_LENGTH

Row = Mapping[str, Any]

OPEN_CAMPAIGNS: Final = frozenset({"scheduled", "pending"})
"""States of a campaign there that has not begun."""
OVER_CAMPAIGNS: Final = frozenset(
    {"triggered", "processing", "sent", "completed", "completed_with_pending", "finished", "failed"}
)
UNSENT: Final = ("pending", "queued", "processing")
"""States of a message there that has not left."""

_CLOCK = re.compile(r"(\d{1,2})[:.](\d{2})(?:[:.]\d{2}(?:\.\d+)?)?\s*([AaPp][Mm])?")
_PLACE = re.compile(r"(?<!\{)\{\s*(name|phone)\s*\}(?!\})", re.IGNORECASE)
_STATES: Final = {"": "", "all": "", "prospect": "prospect", "customer": "customer"}


class Unreadable(Exception):  # noqa: N818 - reads as a fact
    """A cell that means nothing here: which, and what to do."""

    def __init__(self, field: str, code: str, text: str) -> None:
        super().__init__(text)
        self.field, self.code, self.text = field, code, text


def text_of(row: Row, field: str) -> str:
    """The cell as text, trimmed; empty for NULL."""
    value = row.get(field)
    return "" if value is None else str(value).strip()


def tags_of(row: Row, field: str) -> tuple[str, ...]:
    """A comma list as exact tags."""
    tags = clean_tags(text_of(row, field).split(","))
    if long := next((tag for tag in tags if len(tag) > TAG_LENGTH), None):
        raise Unreadable(
            field, "tag_too_long", f"The tag “{long[:20]}…” is longer than {TAG_LENGTH}: shorten it there."
        )
    return tags


def status_of(row: Row, field: str = "target_status") -> str:
    """prospect, customer, or empty for both."""
    said = text_of(row, field).lower()
    if said not in _STATES:
        raise Unreadable(field, "bad_status", "It is neither prospect, customer nor all: correct it there.")
    return _STATES[said]


def clock_of(row: Row, field: str = "time_schedule") -> time | None:
    """A time of day, as 09:00, 9.00 or 9:00 pm."""
    value = row.get(field)
    if isinstance(value, time):
        return value.replace(microsecond=0, tzinfo=None)
    said = text_of(row, field)
    if not said:
        return None
    match = _CLOCK.fullmatch(said)
    hour, minute = (int(match[1]), int(match[2])) if match else (99, 0)
    if match and match[3]:
        hour = hour % 12 + (12 if match[3].lower() == "pm" else 0) if 1 <= hour <= 12 else 99
    try:
        return time(hour, minute)
    except ValueError:
        raise Unreadable(field, "bad_time", "It is no time of day: write it there as 09:00.") from None


def delays_of(row: Row, *, least: float, most: float) -> tuple[float, float]:
    """Shortest and longest delay, in seconds; ``least`` and ``most`` where nothing is said."""
    low, high = (_number(row, name) for name in ("min_delay_seconds", "max_delay_seconds"))
    low, high = least if low is None else low, most if high is None else high
    if low < 0 or high < low:
        text = "The delays are not a range from short to long: correct them there, or here on its page."
        raise Unreadable("max_delay_seconds", "bad_delays", text)
    return low, high


def _number(row: Row, field: str) -> float | None:
    said = text_of(row, field)
    try:
        return float(said) if said else None
    except ValueError:
        raise Unreadable(field, "bad_delays", "It is no number of seconds: correct it there.") from None


def planned_of(row: Row, *, zone: ZoneInfo) -> datetime | None:
    """When a campaign was to run: ``scheduled_at``, else day and time of day by ``zone``."""
    at = row.get("scheduled_at")
    if isinstance(at, datetime):
        return at if at.tzinfo else at.replace(tzinfo=zone)
    day = row.get("campaign_date")
    if isinstance(day, str) and day.strip():
        try:
            day = date.fromisoformat(day.strip()[:10])
        except ValueError:
            raise Unreadable("campaign_date", "bad_date", "It is no date: write it there as 2026-01-31.") from None
    if isinstance(day, datetime):
        day = day.date()
    return datetime.combine(day, clock_of(row) or time(0), tzinfo=zone) if isinstance(day, date) else None


def wording_of(text: str) -> tuple[str, bool]:
    """A text with its places for a lead's values as they are written here, and whether any had to be changed."""
    changed = _PLACE.sub(lambda match: "{{ " + match[1].lower() + " }}", text)
    return changed, changed != text


def delay_minutes_of(row: Row, *, first: bool, before: Row | None) -> int:
    """How long a step waits: hours of its own, else days of its own, else the days between it and the step before."""
    if first:
        return 0
    for field, minutes in (("trigger_delay_hours", 60), ("delay_days", 24 * 60)):
        number = _number(row, field)
        if number is not None and number > 0:
            return round(number * minutes)
    day, last = _number(row, "day_number"), _number(before, "day_number") if before is not None else None
    if day is not None and last is not None and day > last:
        return round((day - last) * 24 * 60)
    return 24 * 60


def user_of(jid: str) -> str:
    """The digits of a session's name, ``user:device@server`` or ``user.agent:device@server``."""
    return re.split(r"[.:@]", jid, maxsplit=1)[0]
