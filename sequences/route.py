"""The way through a sequence: its steps as the tick reads them, and which follows which. Pure: no Django.

Steps follow one another by position; a reply or its absence may lead further on, never back, so that every way ends.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from sequences.timing import Hours


@dataclass(frozen=True, slots=True)
class Stop:
    """One step. ``reply_to`` and ``silence_to`` are positions; None is the step that follows."""

    key: int
    position: int
    delay: timedelta
    hours: Hours = field(default_factory=Hours)
    on_reply: str = ""
    reply_to: int | None = None
    wait: timedelta = timedelta(0)
    silence_to: int | None = None
    ends: bool = False
    revision: int = 1
    content: Mapping[str, Any] = field(default_factory=dict)

    @property
    def words(self) -> str:
        """What it says, in a line: its text, or else what kind of thing it sends."""
        kind = str(self.content.get("type", "text"))
        text = str(self.content.get("text") or "")
        if kind == "template":
            return text or f"Template {(self.content.get('template') or {}).get('name', '')}".strip()
        return f"{kind.capitalize()}: {text}" if kind != "text" and text else text or kind.capitalize()


@dataclass(frozen=True, slots=True)
class Route:
    """All steps of one version, in the order of their positions."""

    stops: tuple[Stop, ...]

    def stop(self, key: int | None) -> Stop | None:
        """The step with this key, if it is part of this version."""
        return next((stop for stop in self.stops if stop.key == key), None)

    def first(self) -> Stop | None:
        """Where leads begin."""
        return self.stops[0] if self.stops else None

    def after(self, stop: Stop) -> Stop | None:
        """What follows ``stop`` without a reply; None where the sequence ends."""
        if stop.ends:
            return None
        return self.at(stop.silence_to) if stop.silence_to is not None else self._next(stop.position)

    def on_reply(self, stop: Stop) -> Stop | None:
        """Where a reply to ``stop`` leads, for steps that a reply leads on from."""
        return self.at(stop.reply_to) if stop.reply_to is not None else self.after(stop)

    def at(self, position: int) -> Stop | None:
        """The step at a position, or the first after it."""
        return next((stop for stop in self.stops if stop.position >= position), None)

    def ahead_of(self, stop: Stop) -> tuple[Stop, ...]:
        """``stop`` and what follows it if nobody replies."""
        found: list[Stop] = []
        step: Stop | None = stop
        while step is not None and step not in found:
            found.append(step)
            step = self.after(step)
        return tuple(found)

    def _next(self, position: int) -> Stop | None:
        return self.at(position + 1)


def place_in(new: Route, *, old: Route, last_key: int | None, next_key: int | None) -> int | None:
    """The key of the step ahead in ``new`` of a lead that had ``last_key`` last and ``next_key`` ahead in ``old``.

    Steps that were put in behind the last one are ahead now; a step that was taken out is passed over. Who was led
    aside by a reply keeps the step ahead while it exists.
    """
    last = old.stop(last_key)
    ahead = old.stop(next_key)
    usual = old.after(last) if last is not None else old.first()
    kept = new.stop(next_key)
    if ahead is not None and ahead != usual and kept is not None:
        return kept.key
    done = {stop.key for stop in old.stops if last is not None and stop.position <= last.position}
    still_there = new.stop(last_key)
    if still_there is not None:
        following = new.after(still_there)
    else:
        left = [stop.position for stop in new.stops if stop.key in done]
        following = new.at(max(left) + 1) if left else new.first()
    while following is not None and following.key in done:
        following = new.after(following)
    return following.key if following is not None else None
