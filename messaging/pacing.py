"""When to send next, and when to try again. Pure: the clock and the dice are passed in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random


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
