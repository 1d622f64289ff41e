"""A small pool of database connections per process, borrowed for single statements.

A worker has many threads that mostly wait for gateways; a connection each would exhaust ``max_connections``, and
Celery would close Django's after every task (2 ms to open again). Eight to sixteen connections serve hundreds of
threads, because a claim or a record holds one for about a millisecond.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from queue import Empty, LifoQueue
from typing import Any

import psycopg2
from django.conf import settings
from django.db import connections
from psycopg2 import errors
from psycopg2.extensions import connection as Connection  # noqa: N812 - it is a class
from psycopg2.extensions import cursor as Cursor  # noqa: N812

Row = tuple[Any, ...]
Params = Mapping[str, Any]

BORROW_SECONDS = 30.0
RACES = (errors.DeadlockDetected, errors.SerializationFailure)
"""Errors of a statement that was rolled back whole and may simply be run again."""


class PoolExhausted(psycopg2.OperationalError):
    """Every connection stayed busy for :data:`BORROW_SECONDS`."""


class Pool:
    """At most ``size`` connections to the default database, opened when needed, safe for threads."""

    def __init__(self, *, size: int) -> None:
        self._slots: LifoQueue[Connection | None] = LifoQueue()
        for _ in range(size):
            self._slots.put(None)

    def execute(self, sql: str, params: Params) -> list[Row]:
        """Run one statement in a transaction of its own and return its rows. Lost races are run again."""
        for attempt in range(1, 4):
            try:
                with self._borrowed() as connection, connection.cursor() as cursor:
                    cursor.execute(sql, params)
                    return cursor.fetchall() if cursor.description else []
            except RACES:
                if attempt == 3:
                    raise
        raise AssertionError("unreachable")

    @contextmanager
    def transaction(self) -> Iterator[Cursor]:
        """Several statements in one transaction: committed at the end, rolled back on any exception."""
        with self._borrowed() as connection, connection.cursor() as cursor:
            cursor.execute("BEGIN")
            try:
                yield cursor
            except BaseException:
                if not connection.closed:
                    cursor.execute("ROLLBACK")
                raise
            cursor.execute("COMMIT")

    def close(self) -> None:
        """Close what is idle. Call it when nobody borrows any more."""
        idle = []
        while True:
            try:
                idle.append(self._slots.get_nowait())
            except Empty:
                break
        for connection in idle:
            if connection is not None:
                connection.close()
            self._slots.put(None)

    @contextmanager
    def _borrowed(self) -> Iterator[Connection]:
        try:
            connection = self._slots.get(timeout=BORROW_SECONDS)
        except Empty:
            raise PoolExhausted(f"no database connection came free in {BORROW_SECONDS:g} s") from None
        try:
            if connection is None or connection.closed:
                connection = _open()
            yield connection
        except (psycopg2.OperationalError, psycopg2.InterfaceError) as problem:
            # the server went away: do not hand this connection to the next borrower
            if connection is not None and not isinstance(problem, RACES):
                connection.close()
            raise
        finally:
            self._slots.put(None if connection is None or connection.closed else connection)


def _open() -> Connection:
    params = connections["default"].get_connection_params()
    params.pop("cursor_factory", None)
    params.setdefault("application_name", "flotilla-dispatch")
    connection = psycopg2.connect(**{k: v for k, v in params.items() if k not in {"context", "server_side_binding"}})
    connection.autocommit = True
    with connection.cursor() as cursor:
        cursor.execute("SET TIME ZONE 'UTC'; SET statement_timeout = '30s'")
    return connection


_lock = threading.Lock()
_shared: Pool | None = None


def shared_pool() -> Pool:
    """This process's pool, made on first use."""
    global _shared  # noqa: PLW0603 - one per process is the point
    with _lock:
        if _shared is None:
            _shared = Pool(size=settings.FLOTILLA_POOL_SIZE)
        return _shared
