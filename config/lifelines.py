"""How connections find out that nobody is at their other end any more.

A host that loses power, or a switch that drops every packet, says nothing: TCP by itself goes on repeating for a
quarter of an hour, and a connection that only listens waits for two hours. These options make both ends give up within
about ``seconds``, at the level of packets: a server that thinks for long is not taken for dead, because its kernel
answers for it (tcp(7): TCP_USER_TIMEOUT, TCP_KEEPIDLE, TCP_KEEPINTVL, TCP_KEEPCNT; libpq: keepalives_*,
tcp_user_timeout). They change nothing on UNIX sockets.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

SHORTEST_CONNECT_SECONDS = 2
"""libpq takes less for this."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a silence lasts until a connection counts as dead, in the steps that TCP knows. Whole seconds."""

    seconds: int

    @property
    def idle(self) -> int:
        """Before the first probe of a connection on which nothing happens."""
        return max(1, self.seconds // 2)

    @property
    def interval(self) -> int:
        """From one probe to the next."""
        return max(1, self.seconds // 6)

    @property
    def count(self) -> int:
        """Probes without an answer."""
        return 3


def ours(*, given: Mapping[str, Any], seconds: int) -> dict[str, Any]:
    """libpq's options that end dead connections at our end, also where a pooler takes no start-up parameters."""
    patience = Patience(seconds)
    return {
        "connect_timeout": max(SHORTEST_CONNECT_SECONDS, seconds // 2),
        "keepalives_idle": patience.idle,
        "keepalives_interval": patience.interval,
        "keepalives_count": patience.count,
        "tcp_user_timeout": 1000 * seconds,
        **given,
    }


def database_options(*, given: Mapping[str, Any], seconds: int) -> dict[str, Any]:
    """libpq's options with those that end dead connections, at our end and at the server's; what is ``given`` stays.

    The server's end matters as well: what a dead host held there, connections and locks of sessions, comes free.
    """
    patience = Patience(seconds)
    theirs = {
        "tcp_keepalives_idle": patience.idle,
        "tcp_keepalives_interval": patience.interval,
        "tcp_keepalives_count": patience.count,
        "tcp_user_timeout": 1000 * seconds,
    }
    asked = str(given.get("options", ""))
    told = " ".join(f"-c {name}={value}" for name, value in theirs.items() if f"{name}=" not in asked)
    return {**ours(given=given, seconds=seconds), "options": f"{told} {asked}".strip()}


def broker_options(*, seconds: int) -> dict[str, Any]:
    """Transport options of kombu that do the same for Redis.

    A consumer that waits sends nothing, so its silence is noticed by the health check: BRPOP answers every second.
    """
    patience = Patience(seconds)
    wanted = {
        "TCP_KEEPIDLE": patience.idle,
        "TCP_KEEPINTVL": patience.interval,
        "TCP_KEEPCNT": patience.count,
        "TCP_USER_TIMEOUT": 1000 * seconds,
    }
    return {
        "socket_keepalive": True,
        # some systems know fewer of them
        "socket_keepalive_options": {
            getattr(socket, name): value for name, value in wanted.items() if hasattr(socket, name)
        },
        "health_check_interval": seconds,
    }
