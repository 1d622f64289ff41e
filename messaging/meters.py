"""What one process has done since it started, in numbers: added to in passing, read every few seconds.

The numbers leave the process in its own row (:mod:`messaging.workers`), so /metrics can be asked of any web process on
any host and no files are shared. A counter that starts again with its worker is what Prometheus expects of one.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections import Counter, deque
from collections.abc import Callable
from time import monotonic
from typing import Any, Final

SEND_BOUNDS: Final = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
RELEASE_BOUNDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0)
"""Upper bounds of the buckets, in seconds; one more bucket holds what took longer."""

MINUTE = 60.0


class Histogram:
    """Durations by size. Not safe for threads by itself."""

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._seconds = 0.0

    def add(self, seconds: float) -> None:
        """One more that took ``seconds``; a bound belongs to its bucket."""
        self._counts[bisect_left(self.bounds, seconds)] += 1
        self._seconds += seconds

    def as_json(self) -> dict[str, Any]:
        """``{"bounds": …, "counts": one more than bounds, not added up, "seconds": their sum}``."""
        return {"bounds": list(self.bounds), "counts": list(self._counts), "seconds": round(self._seconds, 6)}


class Meters:
    """The numbers of one process. Safe for threads."""

    def __init__(self, *, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._sends: Counter[str] = Counter()
        self._send_seconds = Histogram(SEND_BOUNDS)
        self._release_seconds = Histogram(RELEASE_BOUNDS)
        self._released = 0
        self._marks: deque[tuple[float, int]] = deque([(clock(), 0)])

    def note_send(self, state: str, *, seconds: float) -> None:
        """A gateway was called for ``seconds``, and the message is in ``state`` because of it."""
        with self._lock:
            self._sends[state] += 1
            self._send_seconds.add(seconds)

    def note_release(self, messages: int, *, seconds: float) -> None:
        """A tick released ``messages`` in ``seconds``."""
        with self._lock:
            self._released += messages
            self._release_seconds.add(seconds)

    def read(self) -> dict[str, Any]:
        """Counters since the start, and how many were sent in the last minute (over the span known, if shorter).

        ``{"sends": {state: n}, "released": n, "send_seconds": {…}, "release_seconds": {…}, "sent_per_minute": n}``
        """
        with self._lock:
            now, sent = self._clock(), self._sends["sent"]
            self._marks.append((now, sent))
            # the oldest mark is the youngest that is a minute old
            while len(self._marks) > 1 and self._marks[1][0] <= now - MINUTE:
                self._marks.popleft()
            since, before = self._marks[0]
            span = max(now - since, MINUTE)
            return {
                "sends": dict(self._sends),
                "released": self._released,
                "send_seconds": self._send_seconds.as_json(),
                "release_seconds": self._release_seconds.as_json(),
                "sent_per_minute": round((sent - before) * MINUTE / span),
            }


METERS = Meters()
"""This process's."""
