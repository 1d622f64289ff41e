"""How Celery, the cache and plain clients reach the server at REDIS_URL, named itself or by its Sentinels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from redis.sentinel import Sentinel, SentinelConnectionPool

from config.stack.sentinels import watched_from_url

SENTINEL_SECONDS: Final = 2.0
"""A Sentinel that does not answer in this time is passed over: the next one knows as much."""


@dataclass(frozen=True, slots=True)
class CeleryBroker:
    """Celery's settings of the same names; ``url`` and ``options`` may hold passwords."""

    url: str = field(repr=False)
    transport: str
    options: Mapping[str, Any] = field(repr=False)


def celery_broker(url: str) -> CeleryBroker:
    """What Celery is told of the server at ``url``. Raises StackError."""
    watched = watched_from_url(url)
    if watched is None:
        return CeleryBroker(url=url, transport="messaging.transport:Transport", options={})
    return CeleryBroker(
        url=watched.broker_url(),
        transport="messaging.transport:SentinelTransport",
        options=watched.transport_options(),
    )


def cache_at(url: str) -> dict[str, Any]:
    """The entry of Django's CACHES. A list, since the text of an address would be cut at commas between Sentinels."""
    return {
        "BACKEND": "django.core.cache.backends.redis.RedisCache",
        "LOCATION": [url],
        "OPTIONS": {"pool_class": "config.broker.Pool"},
    }


class Pool:
    """What Django's cache makes its connections from: it knows a pool by ``from_url`` alone."""

    @staticmethod
    def from_url(url: str, **options: Any) -> redis.ConnectionPool:
        """Connections to the server at ``url``; with Sentinels each new one asks them who is the master now."""
        watched = watched_from_url(url)
        if watched is None:
            return redis.ConnectionPool.from_url(url, **options)
        sentinels = Sentinel(
            watched.sentinels,
            sentinel_kwargs={
                "socket_timeout": SENTINEL_SECONDS,
                "socket_connect_timeout": SENTINEL_SECONDS,
                "retry": Retry(NoBackoff(), 0),
                **watched.sentinel_login(),
            },
        )
        return SentinelConnectionPool(watched.master, sentinels, db=watched.db, **watched.login(), **options)


def client(url: str, **options: Any) -> redis.Redis:
    """A client to be closed by whoever made it."""
    return redis.Redis.from_pool(Pool.from_url(url, **options))
