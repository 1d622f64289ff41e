"""When to send next, and when to try again. Pure: the clock and the dice are passed in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, time, timedelta
from random import Random
from zoneinfo import ZoneInfo

WARM_UP_FIRST_DAY = 20
WARM_UP_GROWTH = 1.3
"""A new number's first day, in messages, and how much more it may send from day to day."""


@dataclass(frozen=True, slots=True)
class Rhythm:
    """The shortest and longest gap between two sends, in seconds."""

    min_seconds: float = 0.0
    max_seconds: float = 0.0

    def draw(self, rng: Random) -> float:
        """One gap in seconds, uniform between the two."""
        if self.max_seconds <= self.min_seconds:
            return self.min_seconds
        return rng.uniform(self.min_seconds, self.max_seconds)


def gap_seconds(*, device: Rhythm, batch: Rhythm, rng: Random) -> float:
    """Seconds to the device's next send: the larger of what the device and the batch ask for."""
    return max(device.draw(rng), batch.draw(rng))


def retry_delay_seconds(*, attempt: int, minutes: Sequence[float]) -> float | None:
    """Seconds to wait after ``attempt`` (from 1) failed for now; None when the attempts are used up."""
    if attempt > len(minutes):
        return None
    return minutes[attempt - 1] * 60


@dataclass(frozen=True, slots=True)
class Window:
    """The hours of the day in which a device sends; past midnight if ``end`` is before ``start``."""

    start: time
    end: time
    zone: ZoneInfo

    def opens_in_seconds(self, now: datetime) -> float:
        """Seconds until the window is open; 0 while it is. ``now`` is aware.

        A start that a clock change skips is the moment of the change; one that comes twice is the first.
        """
        local = now.astimezone(self.zone)
        if self._contains(local.time()):
            return 0.0
        for days in (0, 1):
            opening = datetime.combine(local.date() + timedelta(days=days), self.start, tzinfo=self.zone)
            seconds = opening.timestamp() - now.timestamp()
            if seconds > 0:
                return seconds
        return 0.0

    def _contains(self, at: time) -> bool:
        if self.start == self.end:
            return True
        if self.start < self.end:
            return self.start <= at < self.end
        return at >= self.start or at < self.end


def warm_up_cap(*, age: timedelta) -> int:
    """Messages that a number of this age may send in a day while it warms up."""
    days = max(int(age / timedelta(days=1)), 0)
    return min(int(WARM_UP_FIRST_DAY * WARM_UP_GROWTH ** min(days, 60)), 1_000_000)
