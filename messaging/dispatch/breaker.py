"""Keeping one gateway's trouble to itself: a bulkhead and a circuit breaker per address (Nygard, *Release It!*).

A dead host behind a thousand devices would fill every thread of every worker with calls that hang, and everybody else's
messages would wait behind them. So each process counts, per address,

* calls that have run for a long time: beyond a number, further messages for the address go back for a moment;
* calls in a row that met nobody (no connection, no answer in time): beyond a number, the address *rests*, for the whole
  fleet (a row of ``devices.GatewayRest``), for ten seconds, then twice as long each time up to two minutes. After a
  rest one call per process tries; the first that meets somebody ends it.

Messages that go back lose nothing: no attempt, no place in their stream, and no device is blamed.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from time import monotonic

from django.conf import settings

from devices.gateways.base import NETWORK_CODES, Outcome, Temporary, Unknown

Address = tuple[str, str]
"""(gateway kind, base URL of the device): devices that share it share its fate."""


def met_somebody(outcome: Outcome) -> bool:
    """Whether there was an answer, of whatever kind."""
    return not (isinstance(outcome, Temporary | Unknown) and outcome.code in NETWORK_CODES)


@dataclass(slots=True)
class _Line:
    """What this process knows of one address."""

    started: dict[object, float] = field(default_factory=dict)
    in_vain: int = 0


class Breaker:
    """Calls of one process by address. ``slow_seconds``, ``most_slow``: the bulkhead; ``most_in_vain``: the breaker."""

    def __init__(
        self,
        *,
        slow_seconds: float = 10.0,
        most_slow: int = 8,
        most_in_vain: int = 5,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._slow_seconds = slow_seconds
        self._most_slow = most_slow
        self._most_in_vain = most_in_vain
        self._clock = clock
        self._lines: defaultdict[Address, _Line] = defaultdict(_Line)
        self._lock = threading.Lock()

    def refuses(self, address: Address, *, probing: bool) -> bool:
        """Whether one more call must wait. ``probing``: the address has rested and nobody was met since."""
        with self._lock:
            started = self._lines[address].started
            if probing:
                return bool(started)
            since = self._clock() - self._slow_seconds
            return len(started) >= self._most_slow and sum(at < since for at in started.values()) >= self._most_slow

    @contextmanager
    def calling(self, address: Address) -> Iterator[None]:
        """Around a call."""
        call = object()
        with self._lock:
            self._lines[address].started[call] = self._clock()
        try:
            yield
        finally:
            with self._lock:
                del self._lines[address].started[call]

    def trips(self, address: Address, *, probing: bool, met: bool) -> bool:
        """Note how a call ended; True when the address should rest now."""
        with self._lock:
            line = self._lines[address]
            line.in_vain = 0 if met else line.in_vain + 1
            if met or (line.in_vain < self._most_in_vain and not probing):
                return False
            line.in_vain = 0
            return True


@cache
def shared_breaker() -> Breaker:
    """This process's breaker."""
    return Breaker(slow_seconds=settings.FLOTILLA_SLOW_CALL_SECONDS, most_slow=settings.FLOTILLA_SLOW_CALLS)
