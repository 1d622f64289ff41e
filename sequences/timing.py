"""When a step is due. Pure: no Django, no clock of its own.

A delay counts in real time from the moment the step before was actually sent. The hours and weekdays of a step then
move it forward, by the clock of one zone: never back, and to the first moment that fits.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

EVERY_DAY = frozenset(range(1, 8))


@dataclass(frozen=True, slots=True)
class Hours:
    """When a step may go out: from ``start`` up to ``end`` (past midnight if that is earlier) on ISO ``weekdays``.

    No start and end: the whole day. No weekdays: every day. The hours after midnight belong to the day they began on.
    """

    start: time | None = None
    end: time | None = None
    weekdays: frozenset[int] = EVERY_DAY

    @classmethod
    def of(cls, start: time | None, end: time | None, weekdays: Collection[int]) -> Hours:
        """From what a step says."""
        return cls(start, end, frozenset(weekdays) or EVERY_DAY)

    @property
    def always(self) -> bool:
        """Whether it is always open."""
        return self._whole_day and self.weekdays == EVERY_DAY

    @property
    def _whole_day(self) -> bool:
        return self.start is None or self.end is None or self.start == self.end

    def opening(self, at: datetime, *, zone: ZoneInfo) -> datetime:
        """``at`` if that is within the hours, else the next moment that is. ``at`` is aware, and so is the answer.

        A start that a clock change skips is the moment of the change; one that comes twice is the first.
        """
        if self.always:
            return at
        today = at.astimezone(zone).date()
        for days in range(-1, 16):  # a clock change may skip the hours of a whole week
            day = today + timedelta(days=days)
            opens, closes = self._on(day, zone)
            if day.isoweekday() in self.weekdays and max(at, opens) < closes:
                return max(at, opens)
        raise AssertionError("two weeks have every weekday")  # pragma: no cover

    def is_open(self, at: datetime, *, zone: ZoneInfo) -> bool:
        """Whether ``at`` is within the hours."""
        return self.opening(at, zone=zone) == at

    def _on(self, day: date, zone: ZoneInfo) -> tuple[datetime, datetime]:
        """First moment and end of the hours that begin on ``day``, in UTC."""
        start = time(0) if self._whole_day or self.start is None else self.start
        end = time(0) if self._whole_day or self.end is None else self.end
        last = day if end > start else day + timedelta(days=1)
        return _moment(day, start, zone), _moment(last, end, zone)


def due_at(base_at: datetime, *, delay: timedelta, hours: Hours, zone: ZoneInfo) -> datetime:
    """When a step is due whose delay counts from ``base_at``."""
    return hours.opening(base_at + delay, zone=zone)


def is_late(due: datetime, *, now: datetime, late: timedelta) -> bool:
    """Whether a step that was due then is to be skipped by now."""
    return now - due > late


def look_again(since: datetime, *, now: datetime, at_least: timedelta, at_most: timedelta) -> datetime:
    """When to look again at something that has gone on since then: the longer it takes, the more rarely."""
    return now + min(max((now - since) / 4, at_least), at_most)


def remaining(steps: Iterable[tuple[timedelta, timedelta]]) -> timedelta:
    """How long the steps ahead take at least, each given as its delay and its wait for a reply."""
    return sum((delay + wait for delay, wait in steps), timedelta(0))


def _moment(day: date, at: time, zone: ZoneInfo) -> datetime:
    """A local time as a moment in UTC; one that does not exist is that of the clock change before it."""
    local = datetime.combine(day, at, tzinfo=zone)
    moment = local.astimezone(UTC)
    if moment.astimezone(zone).replace(tzinfo=None) == local.replace(tzinfo=None):
        return moment
    # In a gap fold=0 reads the clock before it: that much too late by the length of the gap's rest. Find the change.
    early, late = moment - timedelta(hours=3), moment
    offset = late.astimezone(zone).utcoffset()
    while late - early > timedelta(seconds=1):
        middle = early + (late - early) / 2
        if middle.astimezone(zone).utcoffset() == offset:
            late = middle
        else:
            early = middle
    return late.replace(microsecond=0)
