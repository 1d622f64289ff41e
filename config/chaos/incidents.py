"""What was really done to the stack, and when: told as it happens, and kept for the judge."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from config.chaos.plan import DEVICE_WORKERS

BREAKS_A_PROCESS = frozenset({"kill", "freeze", "failpoint"})


@dataclass(slots=True)
class Incident:
    """One harm done. ``begin`` and ``end`` are seconds of the wall clock; ``end`` is None while it goes on."""

    kind: str
    target: str
    begin: float
    end: float | None
    note: str = ""

    def overlaps(self, begin: float, end: float) -> bool:
        """Whether it went on at any moment from ``begin`` to ``end``."""
        return self.begin <= end and (self.end is None or self.end >= begin)

    @property
    def hides_outcomes(self) -> bool:
        """Whether a send that it hits may end without anybody knowing how.

        Death or sleep of a device worker, and a database that takes no record. The broker is not among them: whatever
        it forgets or repeats, a send that has begun ends as it would have. Nor is SIGTERM, which lets sends end. What
        the gateway does wrong is written beside each request in the ledger, so it needs no window of time.
        """
        return (self.kind in BREAKS_A_PROCESS and self.target in DEVICE_WORKERS) or self.kind == "postgres"

    def words(self) -> str:
        """For a person, without the time."""
        return f"{self.kind} {self.target}{f' ({self.note})' if self.note else ''}"


class Log:
    """Every incident so far. ``say`` gets a line for each, with the seconds since the start."""

    def __init__(self, *, say: Callable[[str], None], clock: Callable[[], float] = time.time) -> None:
        self.incidents: list[Incident] = []
        self._say = say
        self._clock = clock
        self._started = clock()

    def start(self) -> None:
        """Count seconds from here."""
        self._started = self._clock()

    def begin(self, kind: str, target: str, *, note: str = "", lasts: bool = False) -> Incident:
        """Note a harm; with ``lasts`` it goes on until :meth:`end`."""
        now = self._clock()
        incident = Incident(kind, target, now, None if lasts else now, note)
        self.incidents.append(incident)
        self.tell(incident.words())
        return incident

    def end(self, incident: Incident) -> None:
        """The harm is over."""
        if incident.end is None:
            incident.end = self._clock()
            self.tell(f"{incident.kind} {incident.target} over")

    def forget(self, incident: Incident, reason: str) -> None:
        """The harm could not be done."""
        self.incidents.remove(incident)
        self.tell(f"{incident.kind} {incident.target}: not now, {reason}")

    def tell(self, text: str) -> None:
        """One line that is no incident."""
        self._say(f"{self._clock() - self._started:7.2f}  {text}")
