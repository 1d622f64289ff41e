"""Many threads ask for the same kind of thing at once; one of them asks for all.

The shape is *flat combining* (Hendler, Incze, Shavit, Tzafrir 2010): a thread that finds nobody at work leads. It takes
what has gathered, does it in one go, hands everyone their answer, and passes the lead to one of those who came
meanwhile. Nobody waits for company: a thread that is alone does its own work at once, and groups form only while
another group is being worked on, so they are as large as the load is heavy.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from typing import Generic, TypeVar

import structlog

log = structlog.get_logger(__name__)

Asked = TypeVar("Asked")
Answer = TypeVar("Answer")


class FailedTogether(Exception):  # noqa: N818 - reads as a fact
    """The work for a whole group raised ``problem``: for its members there is no telling what was done."""

    def __init__(self, problem: Exception) -> None:
        super().__init__(type(problem).__name__)
        self.problem = problem


class _Place(Generic[Asked, Answer]):
    """One thread's place in the line. ``turn`` is let go when it is answered, or is to lead."""

    __slots__ = ("answer", "answered", "asked", "key", "problem", "turn")

    def __init__(self, asked: Asked, key: Hashable) -> None:
        self.asked = asked
        self.key = key
        self.answer: Answer | None = None
        self.answered = False
        self.problem: Exception | None = None
        self.turn = threading.Lock()
        self.turn.acquire()


class Combiner(Generic[Asked, Answer]):
    """Brings concurrent questions together, at most ``most`` at a time, under at most ``leaders`` threads at once.

    ``work`` answers several questions, in their order, None where it has no answer. It must not wait long for anybody:
    all that came later wait with it. Two questions with the same key never share a group. Safe for threads.
    """

    def __init__(
        self, *, work: Callable[[Sequence[Asked]], Sequence[Answer | None]], most: int = 64, leaders: int = 1
    ) -> None:
        self._work = work
        self._most = most
        self._free_leads = leaders
        self._lock = threading.Lock()
        self._line: deque[_Place[Asked, Answer]] = deque()

    def ask(self, asked: Asked, *, key: Hashable) -> Answer | None:
        """The answer. None says nothing: ask alone then, in a way that may wait. Raises FailedTogether."""
        place: _Place[Asked, Answer] = _Place(asked, key)
        with self._lock:
            leads = self._free_leads > 0
            if leads:
                self._free_leads -= 1
            else:
                self._line.append(place)
        if not leads:
            place.turn.acquire()
        if not place.answered:
            self._lead(place)
        if place.problem is not None:
            raise FailedTogether(place.problem)
        return place.answer

    def _lead(self, own: _Place[Asked, Answer]) -> None:
        group = self._gather(own)
        try:
            for place, answer in zip(group, self._work([place.asked for place in group]), strict=True):
                place.answer = answer
        except Exception as problem:  # noqa: BLE001 - it is raised again, by each of them
            log.warning("combining.failed", together=len(group), error=type(problem).__name__)
            for place in group:
                place.problem = problem
        finally:
            self._pass_on()
            for place in group:
                place.answered = True
                place.turn.release()

    def _gather(self, own: _Place[Asked, Answer]) -> list[_Place[Asked, Answer]]:
        group, keys, later = [own], {own.key}, []
        with self._lock:
            while self._line and len(group) < self._most:
                place = self._line.popleft()
                if place.key in keys:
                    later.append(place)
                else:
                    keys.add(place.key)
                    group.append(place)
            self._line.extendleft(reversed(later))
        return group

    def _pass_on(self) -> None:
        """Whoever has waited longest leads next."""
        with self._lock:
            if self._line:
                self._line.popleft().turn.release()
            else:
                self._free_leads += 1
