"""What a trial of several hosts promises, held against rows, the ledger and the log of sessions. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from config.demo.verdict import Verdict

CLOCK_SECONDS = 0.01
"""PostgreSQL's, the simulator's and our clock are one machine's; their readings pass through different hands."""


@dataclass(frozen=True, slots=True)
class Silence:
    """A host that could not reach something, from when to when; seconds of the wall clock. A dead host never ends."""

    host: str
    address: str
    what: frozenset[str]
    """Of "postgres", "valkey" and "gateway"."""
    began: float
    ended: float | None = None

    def overlaps(self, begin: float, end: float) -> bool:
        """Whether it went on at any moment from ``begin`` to ``end``."""
        return self.began <= end and (self.ended is None or self.ended >= begin)


@dataclass(frozen=True, slots=True)
class Stay:
    """One holder of a session at the gateway, by its address."""

    session: str
    peer: str
    began_at: float
    heard_at: float
    ended_at: float | None
    replaced: bool


@dataclass(frozen=True, slots=True)
class Call:
    """One attempt and when the gateway got it; ``arrived`` is None for one that never did."""

    device: str
    message: int
    claimed: float
    arrived: float | None
    unknown: bool = False


@dataclass(frozen=True, slots=True)
class Evidence:
    """Everything that is judged. ``gaps`` holds the shortest gap of each device by the gateway's name for it."""

    verdict: Verdict
    stays: Sequence[Stay]
    silences: Sequence[Silence]
    calls: Sequence[Call]
    gaps: Mapping[str, float]
    lease_seconds: float
    strays: Sequence[str] = ()
    """What did not come right in its time, in words."""


def judge(evidence: Evidence) -> list[str]:
    """Every broken promise, in words."""
    verdict = evidence.verdict
    found = [f"{len(rows)} {what}: {list(rows)[:5]}" for what, rows in _wrong(verdict) if rows]
    return [*found, *two_holders(evidence), *baseless(evidence), *early(evidence), *evidence.strays]


def _wrong(verdict: Verdict) -> Iterator[tuple[str, Sequence[int]]]:
    # Not the order: what a silent host held goes out after what others sent meanwhile.
    yield "messages lost", verdict.lost
    yield "messages on a phone twice", verdict.duplicated
    yield "messages on a phone that are called unsent", verdict.unaccounted


def two_holders(evidence: Evidence) -> Iterator[str]:
    """A session with two holders at one moment: whoever was followed by another says nothing any more, and was
    followed while still there only if it could not reach the gateway to say farewell."""
    by_session: defaultdict[str, list[Stay]] = defaultdict(list)
    for stay in sorted(evidence.stays, key=lambda stay: stay.began_at):
        by_session[stay.session].append(stay)
    for session, stays in by_session.items():
        for before, after in pairwise(stays):
            if before.heard_at > after.began_at + CLOCK_SECONDS:
                late = before.heard_at - after.began_at
                yield f"{session}: {before.peer} still sent {late:.2f} s after {after.peer} had logged in"
            elif before.replaced and not _was_silent(evidence, before, until=after.began_at):
                yield f"{session}: {after.peer} logged in while {before.peer} held it and could be reached"


def _was_silent(evidence: Evidence, stay: Stay, *, until: float) -> bool:
    return any(
        "gateway" in silence.what and silence.address == stay.peer and silence.overlaps(stay.heard_at, until)
        for silence in evidence.silences
    )


def baseless(evidence: Evidence) -> Iterator[str]:
    """Unknown outcomes that no silence explains."""
    for call in evidence.calls:
        if not call.unknown:
            continue
        lease = evidence.lease_seconds
        if not any(
            silence.overlaps(call.claimed - CLOCK_SECONDS, call.claimed + lease) for silence in evidence.silences
        ):
            yield f"message {call.message} of {call.device} is unknown for no reason"


def early(evidence: Evidence) -> Iterator[str]:
    """Sooner after the device's last call than its shortest gap. A call may dawdle on a cut wire, and arrive after
    later ones, so what counts is the longer of the distances between arrivals and between claims."""
    for device, calls in _by_device(evidence.calls).items():
        wanted = evidence.gaps.get(device, 0.0)
        for before, call in pairwise(calls):
            since = max(call.arrived - before.arrived, abs(call.claimed - before.claimed))  # type: ignore[operator]
            if since < wanted - CLOCK_SECONDS:
                yield f"{device} sent {since:.3f} s after its last, gap {wanted:g} s"


def _by_device(calls: Sequence[Call]) -> Mapping[str, list[Call]]:
    """Those that arrived, in the order of arrival."""
    found: defaultdict[str, list[Call]] = defaultdict(list)
    for call in sorted((call for call in calls if call.arrived is not None), key=lambda call: call.arrived or 0.0):
        found[call.device].append(call)
    return found


def longest_pause(evidence: Evidence, *, begin: float, end: float) -> tuple[float, str]:
    """The longest time in which one device sent nothing between ``begin`` and ``end``, in seconds, and which it was."""
    longest, which = 0.0, ""
    for device, calls in _by_device(evidence.calls).items():
        moments = [begin, *(call.arrived for call in calls if begin < (call.arrived or 0.0) < end), end]
        pause = max(later - before for before, later in pairwise(moments))  # type: ignore[operator]
        longest, which = max((longest, which), (pause, device))
    return longest, which
