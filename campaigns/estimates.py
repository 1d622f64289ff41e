"""When a run will be done: the rhythm, caps, windows and warm-up of its devices, played forward. Pure.

A device's messages go one after the other, a mean gap and the length of a call apart, each no earlier than its window,
its rolling caps and its warm-up let it. Where several batches wait at one device they take turns. A run is done when
its last device is, which is later than the mean device: for that the spread of the gaps is added, by the expected
largest of as many normal deviates (Blom, *Statistical Estimates and Transformed Beta-Variables*, 1958).
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from statistics import NormalDist

from messaging.pacing import Rhythm, Window, warm_up_cap

CALL_SECONDS = 0.3
"""How long a call to a gateway takes where nothing is known, with what it takes to get there."""

HORIZON = timedelta(days=366)
STEPS = 256
PLAYED = 20_000
"""Messages of one device that are played one by one; beyond that, the pace so far is taken to go on."""

HOUR, DAY = timedelta(hours=1), timedelta(days=1)


Recent = Callable[[Sequence[int]], Mapping[int, Sequence[datetime]]]
"""When these devices sent in the last day, oldest first: asked only of those whose caps have to be played."""


@dataclass(frozen=True, slots=True)
class Load:
    """One device and what it has to send."""

    messages: int
    device_id: int = 0
    rhythm: Rhythm = field(default_factory=Rhythm)
    lanes: int = 1
    others: tuple[int, ...] = ()
    """How many messages of each other batch wait at it."""
    free_at: datetime | None = None
    """When it may send next, if that is later than now."""
    cap_per_hour: int | None = None
    cap_per_day: int | None = None
    warm_from: datetime | None = None
    windows: tuple[Window, ...] = ()

    @property
    def daily(self) -> bool:
        """Whether a day holds only so many."""
        return self.cap_per_day is not None or self.warm_from is not None

    @property
    def capped(self) -> bool:
        """Whether anything but its rhythm holds it up."""
        return bool(self.cap_per_hour or self.daily or self.windows)


@dataclass(frozen=True, slots=True)
class Estimate:
    """When it will be done; None where nobody sends, or it takes more than a year. ``per_minute``: the mean pace."""

    finish_at: datetime | None
    per_minute: float = 0.0


def estimate(
    *,
    loads: Iterable[Load],
    batch: Rhythm,
    now: datetime,
    call_seconds: float = CALL_SECONDS,
    recent_of: Recent | None = None,
) -> Estimate:
    """When everything of ``loads`` has been sent, if all goes well."""
    waiting = [load for load in loads if load.messages > 0]
    if not waiting:
        return Estimate(now)
    groups = [(group, _last_ones(group, now)) for group in _alike(waiting).values()]
    asked = [load.device_id for _, last in groups for load in last if load.cap_per_hour or load.daily]
    recent = recent_of(asked) if recent_of is not None and asked else {}
    latest = now
    for group, last in groups:
        finish = _group_finish(group, last, batch=batch, now=now, call_seconds=call_seconds, recent=recent)
        if finish is None:
            return Estimate(None)
        latest = max(latest, finish)
    minutes = max((latest - now).total_seconds() / 60, 1 / 60)
    return Estimate(latest, sum(load.messages for load in waiting) / minutes)


def mean_gap(*, device: Rhythm, batch: Rhythm) -> tuple[float, float]:
    """Mean and standard deviation, in seconds, of the larger of two uniform gaps: what :func:`gap_seconds` draws."""
    low, high = max(device.min_seconds, batch.min_seconds), max(device.max_seconds, batch.max_seconds)
    if high <= low:
        return low, 0.0
    width = (high - low) / STEPS
    middles = [low + (step + 0.5) * width for step in range(STEPS)]
    # E[g] = low + ∫ P(g > x) dx, and E[g²] likewise.
    above = [1 - _share_below(device, x) * _share_below(batch, x) for x in middles]
    mean = low + sum(above) * width
    square = low * low + sum(2 * x * share for x, share in zip(middles, above, strict=True)) * width
    return mean, math.sqrt(max(square - mean * mean, 0.0))


def _share_below(rhythm: Rhythm, x: float) -> float:
    if rhythm.max_seconds <= rhythm.min_seconds:
        return float(x >= rhythm.min_seconds)
    return min(max((x - rhythm.min_seconds) / (rhythm.max_seconds - rhythm.min_seconds), 0.0), 1.0)


def _alike(loads: Sequence[Load]) -> dict[tuple[object, ...], list[Load]]:
    """Devices with the same rules: of thousands only those that can be the last have to be played."""
    groups: dict[tuple[object, ...], list[Load]] = {}
    for load in loads:
        warm = load.warm_from.date() if load.warm_from else None
        key = (load.rhythm, load.lanes, load.cap_per_hour, load.cap_per_day, warm, load.windows)
        groups.setdefault(key, []).append(load)
    return groups


def _last_ones(group: Sequence[Load], now: datetime) -> list[Load]:
    """Those that can be the last: the six with the most to do, and the six that are free the latest."""
    most = sorted(group, key=lambda load: (_ahead(load), load.free_at or now), reverse=True)[:6]
    latest = sorted(group, key=lambda load: load.free_at or now, reverse=True)[:6]
    return list({id(load): load for load in [*most, *latest]}.values())


def _group_finish(
    group: Sequence[Load],
    last: Sequence[Load],
    *,
    batch: Rhythm,
    now: datetime,
    call_seconds: float,
    recent: Mapping[int, Sequence[datetime]],
) -> datetime | None:
    mean, deviation = mean_gap(device=group[0].rhythm, batch=batch)
    step = mean + call_seconds if mean > 0 else call_seconds / group[0].lanes
    if not max(mean, deviation) <= HORIZON.total_seconds():  # nor where they are no numbers any more
        return None
    finish = now
    for load in last:
        done = _play(load, step=step, now=now, recent=recent.get(load.device_id, ()))
        if done is None:
            return None
        finish = max(finish, done)
    if group[0].capped:
        return finish  # the caps and windows decide, not the dice
    size = max(_ahead(load) for load in group)
    rivals = sum(_ahead(load) * 10 >= size * 9 for load in group)
    spread = deviation * math.sqrt(size) * _largest_of(rivals)
    return finish + timedelta(seconds=spread) if spread <= HORIZON.total_seconds() else None


def _ahead(load: Load) -> int:
    """Messages that go out before the run's last one here: batches take turns."""
    return load.messages + sum(min(load.messages, other) for other in load.others)


def _largest_of(number: int) -> float:
    """The expected largest of ``number`` standard normal deviates."""
    return NormalDist().inv_cdf((number - 0.375) / (number + 0.25)) if number > 1 else 0.0


def _play(load: Load, *, step: float, now: datetime, recent: Sequence[datetime]) -> datetime | None:
    """When the last message of this device leaves, plus the call; None beyond the horizon."""
    at = max(load.free_at or now, now)
    number = _ahead(load)
    if not load.capped:
        seconds = step * (number - 1) + min(step, CALL_SECONDS)
        return at + timedelta(seconds=seconds) if seconds <= HORIZON.total_seconds() else None
    sent, gap = list(recent), timedelta(seconds=step)
    begun = at
    for played in range(number):
        moment = _allowed(load, sent, at)
        if moment is None or moment - now > HORIZON:
            return None
        sent.append(moment)
        at = moment + gap
        if played == PLAYED:
            pace = (moment - begun) / played
            left = pace.total_seconds() * (number - played)
            return moment + timedelta(seconds=left) if left <= HORIZON.total_seconds() else None
    return sent[-1] + min(gap, timedelta(seconds=CALL_SECONDS))


def _allowed(load: Load, sent: Sequence[datetime], at: datetime) -> datetime | None:
    """The first moment from ``at`` on that windows, caps and warm-up allow; None beyond the horizon."""
    ends = at + HORIZON
    while at <= ends:
        before = at
        for window in load.windows:
            at += timedelta(seconds=window.opens_in_seconds(at))
        at = _after_cap(sent, at, load.cap_per_hour, HOUR)
        at = _after_cap(sent, at, _daily(load, at), DAY)
        if at == before:
            return at
    return None


def _daily(load: Load, at: datetime) -> int | None:
    caps = [load.cap_per_day] if load.cap_per_day is not None else []
    if load.warm_from is not None:
        caps.append(warm_up_cap(age=at - load.warm_from))
    return min(caps) if caps else None


def _after_cap(sent: Sequence[datetime], at: datetime, cap: int | None, span: timedelta) -> datetime:
    """``at``, or the moment when fewer than ``cap`` of ``sent`` lie within the ``span`` before."""
    if cap is None:
        return at
    first, last = bisect_right(sent, at - span), bisect_left(sent, at)
    if last - first < max(cap, 1):
        return at
    return max(sent[last - max(cap, 1)] + span, at + timedelta(microseconds=1))
