"""Harm to PostgreSQL and Valkey. Whoever owns the servers starts them again; here they are only struck."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import psycopg2
import redis

from config.stack import processes, state
from config.stack.processes import Identity

FULL_LOOK_SECONDS = 0.1
"""Time between two tries to take another connection while there is none."""

STARTED_SECONDS = 0.3
"""From our first answer to the moment when its starter has had one for certain."""


class CouldNot(Exception):  # noqa: N818 - reads as a fact
    """The server was not there to be harmed, because of an earlier harm."""


@dataclass(slots=True)
class Servers:
    """The stack's servers, at these addresses, with their pids in the state file below ``root``."""

    root: Path
    database_url: str = field(repr=False)
    redis_url: str = field(repr=False)
    _emptied: threading.Event = field(default_factory=threading.Event)
    _filling: threading.Thread | None = None

    def strike(self, server: str, harm: str, *, seconds: float) -> None:
        """Do it. Raises :class:`CouldNot`."""
        harms: dict[tuple[str, str], Callable[[], None]] = {
            ("valkey", "restart"): lambda: self._signal("valkey", signal.SIGKILL),  # it keeps nothing on disk
            ("valkey", "flush"): lambda: self._valkey("FLUSHALL"),
            ("valkey", "cut"): lambda: self._valkey("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"),
            ("valkey", "pause"): lambda: self._valkey("CLIENT", "PAUSE", str(int(1000 * seconds)), "ALL"),
            # SIGQUIT: immediate shutdown, so that the next start recovers as after a crash
            ("postgres", "restart"): lambda: self._signal_postgres(signal.SIGQUIT),
            ("postgres", "kill"): lambda: self._signal_postgres(signal.SIGKILL),
            ("postgres", "crash"): self._crash_postgres,
            ("postgres", "cut"): self._cut_postgres,
            ("postgres", "full"): self._fill_postgres,
        }
        harms[server, harm]()

    def answers(self) -> bool:
        """Whether PostgreSQL takes a connection and answers."""
        try:
            with contextlib.closing(self._connect()) as connection, connection.cursor() as cursor:
                cursor.execute("SELECT 1")
        except psycopg2.Error:
            return False
        return True

    def release(self) -> None:
        """Let go of the connections that keep PostgreSQL full."""
        filling, self._filling = self._filling, None
        if filling is not None:
            self._emptied.set()
            filling.join()

    def _signal(self, server: str, number: int) -> None:
        who = self._identity(server)
        if who is None or not processes.send(who, number):
            raise CouldNot(f"{server} is down")

    def _signal_postgres(self, number: int) -> None:
        """Only once it is up: whoever starts it takes a death before the first answer for a defect, and so it is."""
        try:
            with contextlib.closing(self._connect()):
                pass
        except psycopg2.Error as problem:
            raise CouldNot(f"PostgreSQL: {type(problem).__name__}") from None
        time.sleep(STARTED_SECONDS)  # its starter may have to ask once more
        self._signal("postgres", number)

    def _identity(self, server: str) -> Identity | None:
        found = state.read(self.root)
        return found.processes.get(server) if found else None

    def _valkey(self, *command: str) -> None:
        try:
            with redis.Redis.from_url(self.redis_url, socket_timeout=5, socket_connect_timeout=2) as client:
                client.execute_command(*command)
        except redis.RedisError as problem:
            raise CouldNot(f"Valkey: {type(problem).__name__}") from None

    def _cut_postgres(self) -> None:
        try:
            with contextlib.closing(self._connect()) as connection, connection.cursor() as cursor:
                cursor.execute(
                    "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity "
                    "WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'"
                )
        except psycopg2.Error as problem:
            raise CouldNot(f"PostgreSQL: {type(problem).__name__}") from None

    def _crash_postgres(self) -> None:
        """Kill one backend: the server throws all others out, recovers and goes on with the same pid."""
        try:
            with contextlib.closing(self._connect()) as connection, connection.cursor() as cursor:
                cursor.execute(
                    "SELECT pid FROM pg_stat_activity WHERE pid <> pg_backend_pid() "
                    "AND backend_type = 'client backend' ORDER BY backend_start LIMIT 1"
                )
                found = cursor.fetchone()
        except psycopg2.Error as problem:
            raise CouldNot(f"PostgreSQL: {type(problem).__name__}") from None
        who = processes.identify(found[0]) if found else None
        if who is None or not processes.send(who, signal.SIGKILL):
            raise CouldNot("PostgreSQL serves nobody just now")

    def _fill_postgres(self) -> None:
        """Take every connection that comes free, until the release. Whoever has one keeps it; nobody gets a new one."""
        if self._filling is not None:
            raise CouldNot("PostgreSQL is full already")
        self._emptied.clear()
        self._filling = threading.Thread(target=self._take_connections, name="filling", daemon=True)
        self._filling.start()

    def _take_connections(self) -> None:
        held: list[psycopg2.extensions.connection] = []
        while not self._emptied.is_set():
            try:
                held.append(self._connect())
            except psycopg2.OperationalError:
                self._emptied.wait(FULL_LOOK_SECONDS)
        for connection in held:
            with contextlib.suppress(psycopg2.Error):
                connection.close()

    def _connect(self) -> psycopg2.extensions.connection:
        connection = psycopg2.connect(self.database_url, connect_timeout=5, application_name="flotilla-chaos")
        connection.autocommit = True
        return connection
