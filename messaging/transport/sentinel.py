"""Device queues on a server that Sentinels watch: each new connection asks them who is the master now.

A failover takes what had not reached the replica: wake-ups, never messages, which are rows and are published again. It
may also bring wake-ups back that were acknowledged already; they find nothing to claim.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import redis
from kombu.transport import redis as kombu_redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from redis.sentinel import Sentinel

from messaging.transport.channel import Channel
from messaging.transport.transport import Transport

#: A Sentinel that does not answer in this time is passed over: the next one knows as much.
SENTINEL_SECONDS = 2.0


class SentinelChannel(Channel, kombu_redis.SentinelChannel):
    """Our channel on kombu's way to the master.

    Transport options beside kombu's: ``sentinels``, all of them as (host, port); kombu would have them in the address,
    of which others that parse it (Flower) understand one host only.
    """

    sentinels: Sequence[tuple[str, int]] = ()
    sentinel_kwargs: dict[str, Any] | None = None
    master_name: str
    from_transport_options: tuple[str, ...] = tuple(  # type: ignore[assignment]  # kombu declares the exact tuple
        dict.fromkeys(
            (*Channel.from_transport_options, *kombu_redis.SentinelChannel.from_transport_options, "sentinels")
        )
    )

    def _sentinel_managed_pool(self, asynchronous: bool = False) -> redis.ConnectionPool:
        """As kombu's, with every Sentinel, and without its pauses between tries of one that is dead."""
        params = self._connparams(asynchronous)
        given = (params.pop("host"), params.pop("port"))
        manager = Sentinel(
            self.sentinels or [given],
            sentinel_kwargs={
                "socket_timeout": SENTINEL_SECONDS,
                "socket_connect_timeout": SENTINEL_SECONDS,
                "retry": Retry(NoBackoff(), 0),
                **(self.sentinel_kwargs or {}),
            },
            **params,
        )
        if asynchronous:
            self._async_sentinel_manager = manager  # kombu closes them
        else:
            self._sentinel_manager = manager
        return manager.master_for(self.master_name, redis.Redis).connection_pool

    def _brpop_read(self, **options: Any) -> bool:
        """A master that steps down tells its waiting clients so, which is no broken connection yet."""
        try:
            return super()._brpop_read(**options)
        except self.ResponseError as problem:
            if not str(problem).startswith("UNBLOCKED"):
                raise
            self.client.connection.disconnect()
            raise redis.ConnectionError("The master stepped down") from None


class SentinelTransport(Transport):
    """Our transport on a watched server. Celery: ``broker_transport="<this class>"``, ``sentinel://`` as address."""

    default_port = 26379  # type: ignore[assignment]  # kombu's base has none
    Channel = SentinelChannel
