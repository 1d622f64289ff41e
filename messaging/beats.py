"""Several beats, one of which ticks: the lease that it holds in the broker, and who stands by.

The broker is the right keeper. A beat without it has nowhere to publish to, it is the one server that a beat talks to,
and what it forgets (a restart, a failover) costs nothing: for a moment two beats tick, and every tick may be doubled.
"""

from __future__ import annotations

import os
import socket
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from time import monotonic
from typing import Any, Final

import structlog
from celery import Celery
from celery.beat import PersistentScheduler
from kombu import Connection
from kombu.exceptions import OperationalError as BrokerAway
from redis.exceptions import RedisError

log = structlog.get_logger(__name__)

__all__ = ["Beats", "Lease", "StandbyScheduler", "ask", "told"]

LEASE_KEY: Final = "beat:lease"
"""String: the beat that ticks. It is gone when that one has not renewed it for :data:`LEASE_SECONDS`."""
BEATS_KEY: Final = "beat:alive"
"""Sorted set: every beat that asks, by when it last did, in seconds of the server's clock."""
LEASE_SECONDS: Final = 2.0
RENEW_SECONDS: Final = 0.5
"""How often the lease is renewed, and asked for by who stands by."""
ALIVE_SECONDS: Final = 10.0

_AWAY = (BrokerAway, RedisError, ConnectionError, TimeoutError)

# One statement on the server, so that two who ask at once are never both told yes. Returns who holds the lease.
_ASK = """
local holder = redis.call('GET', KEYS[1])
if not holder or holder == ARGV[1] then
    redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
    holder = ARGV[1]
end
local now = redis.call('TIME')
redis.call('ZADD', KEYS[2], now[1], ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', now[1] - ARGV[3])
redis.call('EXPIRE', KEYS[2], 60)
return holder
"""
_LEAVE = """
if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end
redis.call('ZREM', KEYS[2], ARGV[1])
"""


@dataclass(frozen=True, slots=True)
class Beats:
    """Who was heard of within :data:`ALIVE_SECONDS`. Names are as ``host:pid:…``.

    Beats of releases before the lease tick without asking, and are not among these.
    """

    leader: str = ""
    alive: tuple[str, ...] = ()

    @property
    def standbys(self) -> int:
        """How many would take over."""
        return len([name for name in self.alive if name != self.leader])


def ask(pipeline: Any) -> None:
    """Add to a pipeline what :func:`told` reads: two answers."""
    pipeline.get(LEASE_KEY)
    pipeline.eval(_ALIVE, 1, BEATS_KEY, ALIVE_SECONDS)


_ALIVE = "return redis.call('ZRANGEBYSCORE', KEYS[1], redis.call('TIME')[1] - ARGV[1], '+inf')"


def told(leader: bytes | None, alive: list[bytes]) -> Beats:
    """The two answers."""
    return Beats((leader or b"").decode(), tuple(sorted(name.decode() for name in alive)))


class Lease:
    """The right to tick, of one process. It has a connection to the broker of its own."""

    def __init__(self, app: Celery, *, clock: Callable[[], float] = monotonic) -> None:
        self.name = f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:8]}"
        self.held = False
        self._app, self._clock = app, clock
        self._connection: Connection | None = None
        self._asked_at: float | None = None

    def holds(self) -> bool:
        """Whether to tick now. Asks the broker at most every :data:`RENEW_SECONDS`; while it is away: no."""
        now = self._clock()
        # A process that was frozen asks before it believes what it knew: that was long ago.
        if self._asked_at is None or now - self._asked_at >= RENEW_SECONDS:
            self._asked_at = now
            self._note(held=self._ask())
        return self.held

    def leave(self) -> None:
        """Say goodbye, so that nobody waits for the lease to lapse. Without the broker it lapses by itself."""
        if self._connection is not None:
            try:
                self._eval(_LEAVE)
            except _AWAY:
                log.info("beat.left_without_goodbye", beat=self.name)
            self._hang_up()
        self._note(held=False)

    def _ask(self) -> bool:
        try:
            return bool(self._eval(_ASK, int(1000 * LEASE_SECONDS), int(ALIVE_SECONDS)) == self.name.encode())
        except _AWAY as problem:
            self._hang_up()
            if self.held:
                log.warning("beat.broker_away", reason=type(problem).__name__)
            return False

    def _eval(self, script: str, *given: int) -> Any:
        if self._connection is None:
            self._connection = self._app.connection_for_write()
        channel: Any = self._connection.default_channel
        return channel.client.eval(script, 2, LEASE_KEY, BEATS_KEY, self.name, *given)

    def _hang_up(self) -> None:
        if self._connection is not None:
            with suppress(*_AWAY):
                self._connection.release()
            self._connection = None

    def _note(self, *, held: bool) -> None:
        if held != self.held:
            log.info("beat.ticks" if held else "beat.stands_by", beat=self.name)
        self.held = held


class StandbyScheduler(PersistentScheduler):
    """Celery's own scheduler, which ticks only while it holds the lease.

    Whoever takes over finds overdue what was not its to send, and sends each of it once.
    """

    def __init__(self, app: Celery, *args: Any, lazy: bool = False, **kwargs: Any) -> None:
        self._lease = Lease(app)
        super().__init__(app, *args, lazy=lazy, **kwargs)

    def tick(self, *args: Any, **kwargs: Any) -> float:
        """Send one thing that is due. Returns the seconds until the next look."""
        if not self._lease.holds():
            return RENEW_SECONDS
        return float(super().tick(*args, **kwargs))

    def close(self) -> None:
        """The end, by SIGTERM or Ctrl-C."""
        self._lease.leave()
        super().close()
