"""What stands at DATABASE_URL: PostgreSQL itself or a pooler before it, and whether that is set up for Flotilla."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from typing import Final

import psycopg2

CONNECT_SECONDS: Final = 5


@dataclass(frozen=True, slots=True)
class Seen:
    """One address. ``pools``: somebody stands in between. ``server`` tells this database of this server from others."""

    pools: bool
    server: str
    idle_seconds: float


def look(url: str) -> Seen:
    """Connect once, with no start-up parameter that a pooler might refuse. Raises psycopg2.Error.

    Who connects is told a process id along with the key for cancelling (PostgreSQL manual, BackendKeyData). A pooler
    tells one of its own, whatever its mode; the server's own function tells the true one.
    """
    with closing(psycopg2.connect(url, connect_timeout=CONNECT_SECONDS)) as connection, connection.cursor() as cursor:
        cursor.execute(
            "SELECT pg_backend_pid(), pg_postmaster_start_time()::text || ' ' || current_database(), "
            "extract(epoch FROM current_setting('idle_in_transaction_session_timeout')::interval)::float8"
        )
        backend, server, idle = cursor.fetchone()
        return Seen(pools=connection.info.backend_pid != backend, server=server, idle_seconds=idle)
