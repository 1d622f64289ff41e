"""What there is to judge: the rows as they are after a run, and the simulator's ledger. Plain values, no queries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from config.chaos.incidents import Incident

COUNTERS = ("total", "waiting", "sent", "delivered", "read", "failed", "cancelled", "expired", "unknown")


@dataclass(frozen=True, slots=True)
class Entry:
    """One request in the ledger. Times are seconds of the wall clock; ``end`` is None while it is in flight."""

    n: int
    begin: float
    end: float | None
    device: str
    message: int | None
    attempt: int
    faults: str = ""
    answer: str | None = None
    delivered: bool = False
    repeated: bool = False

    @classmethod
    def read(cls, line: Mapping[str, Any]) -> Self:
        """From a line as the simulator's control API gives it."""
        end = line["end"]
        return cls(
            n=line["n"],
            begin=line["at"],
            end=None if end is None else line["at"] + end - line["monotonic"],
            device=line["device"],
            message=line["message"],
            attempt=line["attempt"],
            faults=line["faults"],
            answer=line["answer"],
            delivered=line["delivered"],
            repeated=line["repeated"],
        )

    @property
    def seconds(self) -> float:
        """How long it was in flight."""
        return float("inf") if self.end is None else self.end - self.begin


@dataclass(frozen=True, slots=True)
class DeviceRow:
    """A device as the ledger knows it."""

    id: int
    token: str
    lanes: int
    gap_seconds: float
    """The shortest gap of its rhythm."""


@dataclass(frozen=True, slots=True)
class BatchRow:
    """A batch. ``expected``: how many messages it had to get (None: not laid down)."""

    id: int
    name: str
    state: str
    gap_seconds: float = 0.0
    expected: int | None = None


@dataclass(frozen=True, slots=True)
class StreamRow:
    """A stream with its counters, by name."""

    id: int
    batch_id: int
    device_id: int
    is_open: bool
    counters: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class MessageRow:
    """A message."""

    id: int
    batch_id: int
    stream_id: int
    device_id: int
    state: str
    release_no: int = 0
    attempts: int = 0
    error_code: str = ""
    delivered: bool = False
    read: bool = False


@dataclass(frozen=True, slots=True)
class AttemptRow:
    """An attempt. Times are seconds of the wall clock."""

    message_id: int
    release_no: int
    number: int
    round: int
    started: float
    finished: float | None
    outcome: str
    error_code: str = ""


@dataclass(frozen=True, slots=True)
class Stuck:
    """Something that did not move for longer than it may."""

    what: str
    message: int | None = None


@dataclass(frozen=True, slots=True)
class Evidence:
    """Everything the judge looks at. ``plain``: the gateway counts as one that drops no repeats."""

    lease_seconds: float
    plain: bool
    devices: Sequence[DeviceRow]
    batches: Sequence[BatchRow]
    streams: Sequence[StreamRow]
    messages: Sequence[MessageRow]
    attempts: Sequence[AttemptRow]
    entries: Sequence[Entry]
    incidents: Sequence[Incident] = ()
    stuck: Sequence[Stuck] = ()
    problems: Sequence[str] = field(default=())
    """What the product's services refused with an error while the load asked them."""
