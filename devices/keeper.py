"""Holding session shards: renewing the lease, taking and giving up shards, and letting go in time when it is lost.

Two threads while a host runs. One renews; it may hang in the database. The other watches the clock and closes the
sessions before the lease ends by our own clock, whatever the first one does. :meth:`Keeper.holds` goes by the clock as
well, so a process that was frozen past its lease holds nothing from its first instruction on.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from uuid import UUID

import structlog
from django.db import DatabaseError, InterfaceError, connection

from devices import leases
from devices.leases import Share, Status

log = structlog.get_logger(__name__)

WATCH_SECONDS = 0.1
DEAF_STEPS = 3
"""So many renewals in a row a host says that it is deaf before it acts on it."""


def clock() -> float:
    """Seconds that also pass while the machine sleeps, where the system has such a clock."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


class Keeper:
    """The shards of one process. ``gained`` and ``losing`` are told of shards, from one of its threads.

    ``losing(shards, hurry)`` closes their sessions before it returns. With ``hurry`` the lease is about to end: nothing
    is waited for. Two thirds of ``seconds`` after the last renewal was sent the lease counts as lost.
    """

    def __init__(
        self,
        *,
        name: str,
        total: int,
        seconds: float,
        gained: Callable[[frozenset[int]], None],
        losing: Callable[[frozenset[int], bool], None],
        status: Callable[[], Status] = Status,
        clock: Callable[[], float] = clock,
    ) -> None:
        self.name = name
        self.total = total
        self._seconds = seconds
        self._gained, self._losing, self._status, self._clock = gained, losing, status, clock
        self._lock = threading.Lock()
        self._host: UUID | None = None
        self._held: dict[int, int] = {}
        self._safe_until = 0.0
        self._handing_over = False
        self._deaf_steps = 0
        self._ended = threading.Event()
        self._threads: list[threading.Thread] = []

    # -- asked by everybody --------------------------------------------------------------------------------------------

    def holds(self, *, device_id: int) -> bool:
        """Whether this process may hold the session of this device now."""
        return device_id % self.total in self._held and self._clock() < self._safe_until

    def held(self) -> frozenset[int]:
        """The shards held now."""
        with self._lock:
            return frozenset(self._held) if self._clock() < self._safe_until else frozenset()

    # -- life ----------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to renew and to watch."""
        for name, work, pause in (("renew", self._step, self._seconds / 6), ("watch", self.watch, WATCH_SECONDS)):
            thread = threading.Thread(target=self._repeat, args=(work, pause), name=f"sessions-{name}", daemon=True)
            thread.start()
            self._threads.append(thread)

    def stop(self) -> None:
        """Close every session, give the shards back, end the threads."""
        with self._lock:
            held, self._held = frozenset(self._held), {}
        if held:
            self._losing(held, False)
        self._ended.set()
        for thread in self._threads:
            thread.join(self._seconds)
        host, self._host = self._host, None
        if host is not None:
            self._tell_database(lambda: leases.leave(host=host))
        log.info("sessions.left", host=self.name, shards=len(held))

    def _repeat(self, work: Callable[[], None], pause: float) -> None:
        try:
            while not self._ended.is_set():
                try:
                    work()
                except Exception:
                    log.exception("sessions.keeper_failed", step=work.__name__)
                self._ended.wait(pause)
        finally:
            connection.close()

    # -- steps ---------------------------------------------------------------------------------------------------------

    def _step(self) -> None:
        try:
            self.step()
        except (DatabaseError, InterfaceError) as problem:
            connection.close()
            log.warning("sessions.lease_not_renewed", host=self.name, error=type(problem).__name__)

    def step(self) -> None:
        """Renew, then take shards or hand some over. Raises Django's DatabaseError."""
        sent, host, status = self._clock(), self._host, self._status()
        if host is None:
            host = leases.register(name=self.name, seconds=self._seconds)
            with self._lock:
                self._host = host
        elif not leases.renew(host=host, seconds=self._seconds, status=status):
            self._lose("it had lapsed")
            return
        with self._lock:
            if self._host != host:
                return  # the watch was faster
            self._safe_until = sent + self._seconds * 2 / 3
        for name in leases.bury():
            log.warning("sessions.host_gone", name=name)
        part = leases.share(host=host, total=self.total)
        self._drop(frozenset(self._held) - frozenset(part.held))
        target = self._target(status, part)
        if len(part.held) < target:
            self._take(host, target - len(part.held))
        elif len(self._held) > target:
            self._hand_over(host, len(self._held) - target)

    def _target(self, status: Status, part: Share) -> int:
        """How many shards to hold. A deaf host gives its own to those that hear; where all are deaf, all keep theirs.

        Hence the wait: when a broker goes, its hosts notice one after the other, and each says so as it renews.
        """
        self._deaf_steps = self._deaf_steps + 1 if status.deaf else 0
        if status.leaving:
            return 0
        if not status.deaf:
            return part.target
        return 0 if part.others and self._deaf_steps > DEAF_STEPS else len(part.held)

    def watch(self) -> None:
        """Let go of everything once the lease is no longer surely ours."""
        if self._held and self._clock() >= self._safe_until:
            self._lose("it was not renewed in time")

    def _take(self, host: UUID, most: int) -> None:
        taken = leases.take(host=host, total=self.total, most=most)
        with self._lock:
            if self._host != host:
                return
            self._held.update(taken)
        if taken:
            log.info("sessions.shards_taken", host=self.name, shards=sorted(taken), fencing=sorted(taken.values()))
            self._gained(frozenset(taken))

    def _hand_over(self, host: UUID, number: int) -> None:
        """Give shards to others, in a thread of its own: sends that are under way end first, and renewals go on."""
        with self._lock:
            if self._handing_over:
                return
            self._handing_over = True
            shards = frozenset(sorted(self._held)[-number:])
            for shard in shards:
                del self._held[shard]

        def work() -> None:
            try:
                self._losing(shards, False)
                self._tell_database(lambda: leases.give_back(host=host, shards=sorted(shards)))
                log.info("sessions.shards_handed_over", host=self.name, shards=sorted(shards))
            finally:
                self._handing_over = False
                connection.close()

        threading.Thread(target=work, name="sessions-hand-over", daemon=True).start()

    def _lose(self, why: str) -> None:
        with self._lock:
            held, self._held, self._host = frozenset(self._held), {}, None
        log.error("sessions.lease_lost", host=self.name, shards=len(held), why=why)
        if held:
            self._losing(held, True)

    def _drop(self, shards: frozenset[int]) -> None:
        """Shards that the database gives to nobody or to somebody else: only a person at the database does that."""
        if shards:
            with self._lock:
                for shard in shards:
                    self._held.pop(shard, None)
            self._losing(shards, True)

    def _tell_database(self, what: Callable[[], None]) -> None:
        """Best effort: what the database does not hear, it finds out when the lease lapses."""
        try:
            what()
        except (DatabaseError, InterfaceError) as problem:
            log.warning("sessions.not_told", error=type(problem).__name__)
        finally:
            connection.close()
