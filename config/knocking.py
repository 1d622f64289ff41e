"""How often somebody may try to log in: the same three counters for the admin, the API and whatever comes.

Each try is counted before the password is looked at, with an atomic increment: a burst of parallel guesses is counted
in full, and none of them costs the work of a password's hash. (django-axes, the package for this, counts failures
afterwards, in rows.) Counters live in the cache and fall by themselves; when it cannot be reached, nobody logs in.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Final

import structlog
from django.core.cache import cache
from redis.exceptions import RedisError

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Limit:
    """At most ``tries`` in ``seconds`` for whoever has the same name and address, name, or address."""

    of: str
    tries: int
    seconds: int


LIMITS: Final = (
    Limit("name and address", 10, 60),
    # one name guessed from many addresses; high, since anybody may use it up and keep its owner out for the hour
    Limit("name", 100, 3600),
    # many names tried with one password from one address, behind which a whole office may sit
    Limit("address", 100, 600),
)


class TooManyTries(Exception):  # noqa: N818 - reads as a fact
    """This try is not looked at. ``seconds`` is after how long it makes sense to come again."""

    def __init__(self, seconds: int) -> None:
        super().__init__(
            f"Too many tries. Wait {seconds} seconds." if seconds <= 60 else "Too many tries. Wait a while."
        )
        self.seconds = seconds


class CounterAway(Exception):  # noqa: N818 - reads as a fact
    """The counter of tries does not answer."""

    def __str__(self) -> str:
        return "Logging in is not possible right now: the counter of tries does not answer."


def knock(*, name: str, address: str) -> None:
    """Count one try. Raises TooManyTries and CounterAway."""
    name = name.casefold()
    values = {"name and address": f"{address}|{name}", "name": name, "address": address}
    for limit in LIMITS:
        if _count(limit, values[limit.of]) > limit.tries:
            # neither the name, into which people type passwords, nor the address, which a page of the log would collect
            log.warning("login.throttled", limit=limit.of, tries=limit.tries, seconds=limit.seconds)
            raise TooManyTries(limit.seconds)


def _count(limit: Limit, value: str) -> int:
    key = f"login:{limit.of.replace(' ', '-')}:{hashlib.sha256(value.encode('utf-8', 'replace')).hexdigest()}"
    try:
        cache.add(key, 0, limit.seconds)
        try:
            return int(cache.incr(key))
        except ValueError:  # it expired between the two
            cache.set(key, 1, limit.seconds)
            return 1
    except RedisError:
        raise CounterAway from None
