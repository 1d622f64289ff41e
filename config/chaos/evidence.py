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
    dedups: bool = True
    """Whether its gateway drops repeats, so that a doubtful send may be made again."""


@dataclass(frozen=True, slots=True)
class BatchRow:
    """A batch. ``expected``: how many messages it had to get (None: not laid down). ``single``: one message, by API."""

    id: int
    name: str
    state: str
    gap_seconds: float = 0.0
    expected: int | None = None
    single: bool = False


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
    device_id: int = 0


@dataclass(slots=True)
class Stop:
    """An order to send no more: of one batch, of some devices, or (neither) of everything.

    ``begin`` is the moment after its commit, ``end`` the one before it was taken back (None: never); ``grace_seconds``
    is how long it may take to be heard by all.
    """

    what: str
    begin: float
    end: float | None = None
    batch: int | None = None
    devices: frozenset[int] = frozenset()
    grace_seconds: float = 0.0

    def forbids(self, attempt: AttemptRow, *, batch: int | None) -> bool:
        """Whether this attempt should not have been claimed."""
        if self.batch is not None:
            concerned = batch == self.batch
        else:
            concerned = not self.devices or attempt.device_id in self.devices
        since = self.begin + self.grace_seconds
        return concerned and attempt.started > since and (self.end is None or attempt.started < self.end)


@dataclass(frozen=True, slots=True)
class OptOut:
    """Leads that refused, and their messages.

    ``seen`` holds the claims of their messages, as (message, release number), that were committed when the refusal had
    its locks: no other may exist.
    """

    leads: frozenset[int]
    seen: frozenset[tuple[int, int]]
    messages: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class Stuck:
    """Something that did not move for longer than it may."""

    what: str
    message: int | None = None


@dataclass(frozen=True, slots=True)
class Evidence:
    """Everything the judge looks at."""

    lease_seconds: float
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
    errors: Sequence[str] = ()
    """Errors in tasks, by the programs' logs, other than by a database or broker that was away."""
    stops: Sequence[Stop] = ()
    opt_outs: Sequence[OptOut] = ()
    moved: frozenset[int] = frozenset()
    """Messages that failover gave to another device, or that the rogue released out of turn: they keep no order."""
    accepted: Sequence[int] = ()
    """Single messages that the API said it had taken."""
