"""Telling one device's trouble from everybody's: what the connecting of a process's devices says about its network.

Three different devices in a row that meet nobody, with no success between them, are no coincidence: that is one
*incident* of this host (or of what it connects to). None of them is blamed, also not for the failures that led there.
While it lasts, connecting is not tried for ten seconds, then twice as long each time up to two minutes; after each rest
one device tries. The first that meets somebody ends it, and all come back by themselves.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

from devices.keeper import clock as system_clock

FAILURES = 3
WINDOW_SECONDS = 60.0
FIRST_REST_SECONDS, LONGEST_REST_SECONDS = 10.0, 120.0


@dataclass(frozen=True, slots=True)
class Change:
    """The incident began or ended; ``devices`` failed since it did, or just before."""

    began: bool
    devices: frozenset[int]


class Weather:
    """One process's view. Safe for threads."""

    def __init__(self, *, clock: Callable[[], float] = system_clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._failed: dict[int, float] = {}
        self._bad = False
        self._rests = 0
        self._quiet_until = 0.0
        self._probing = False

    @property
    def bad(self) -> bool:
        """Whether there is an incident now."""
        return self._bad

    def wait_seconds(self) -> float:
        """0 if a device may try to connect; during an incident this is asked by whoever then tries."""
        with self._lock:
            if not self._bad:
                return 0.0
            left = self._quiet_until - self._clock()
            if left > 0:
                return left
            if self._probing:
                return FIRST_REST_SECONDS / 2
            self._probing = True
            return 0.0

    def met(self) -> Change | None:
        """A device connected, or was refused by somebody: there is a network."""
        with self._lock:
            ended, devices = self._bad, frozenset(self._failed)
            self._failed.clear()
            self._bad, self._rests, self._probing = False, 0, False
        return Change(False, devices) if ended else None

    def met_nobody(self, *, device_id: int) -> Change | None:
        """A device found nobody there."""
        now = self._clock()
        with self._lock:
            if not self._bad:
                self._failed = {d: at for d, at in self._failed.items() if at > now - WINDOW_SECONDS}
            self._failed[device_id] = now
            began = not self._bad and len(self._failed) >= FAILURES
            if began or (self._bad and self._probing):
                self._bad, self._probing = True, False
                self._quiet_until = now + min(LONGEST_REST_SECONDS, FIRST_REST_SECONDS * 2**self._rests)
                self._rests = min(self._rests + 1, 10)
            return Change(True, frozenset(self._failed)) if began else None

    def gave_up(self) -> None:
        """Whoever was to try came to neither end: another may."""
        with self._lock:
            self._probing = False
