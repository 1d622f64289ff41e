"""A small pool of database connections per process, borrowed for single statements.

A worker has many threads that mostly wait for gateways; a connection each would exhaust ``max_connections``, and
Celery would close Django's after every task (2 ms to open again). Eight to sixteen connections serve hundreds of
threads, because a claim or a record holds one for about a millisecond.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from queue import Empty, LifoQueue
from time import monotonic, sleep
from typing import Any

import psycopg2
from django.conf import settings
from django.db import connections
from psycopg2 import errors
from psycopg2.extensions import connection as Connection  # noqa: N812 - it is a class

from messaging.dispatch.prepared import Statement

Row = tuple[Any, ...]
Params = Mapping[str, Any]

BORROW_SECONDS = 30.0
AGAIN_SECONDS = 0.2
_DJANGO_ONLY = frozenset({"context", "cursor_factory", "server_side_binding"})
STATEMENT_SECONDS = 30
RACES = (errors.DeadlockDetected, errors.SerializationFailure)
"""Errors of a statement that was rolled back whole and may simply be run again."""


def is_away(problem: psycopg2.Error) -> bool:
    """Whether the connection broke or could not be had.

    A server that vanishes in the middle of a statement is a bare DatabaseError, and one that took the transaction from
    a process that slept in it says so; any other subclass is an answer.
    """
    return isinstance(
        problem, psycopg2.OperationalError | psycopg2.InterfaceError | errors.IdleInTransactionSessionTimeout
    ) or (type(problem) is psycopg2.DatabaseError)


class PoolExhausted(psycopg2.OperationalError):
    """Every connection stayed busy for :data:`BORROW_SECONDS`."""


class Session:
    """One connection, borrowed, with the statements it has prepared.

    ``limits`` (SQL, or nothing) goes ahead of each message, into its transaction: behind a pooler the next transaction
    runs on another server connection, and what is set for longer than this one would be left to strangers.
    """

    def __init__(self, connection: Connection, *, prepare: bool, limits: str = "") -> None:
        self._connection = connection
        self._prepare = prepare
        self._limits = [limits] if limits else []
        self._prepared: set[str] = set()

    @property
    def closed(self) -> bool:
        """Whether the connection is gone."""
        return bool(self._connection.closed)

    def execute(self, statement: Statement, params: Params) -> list[Row]:
        """Run the statement and return its rows."""
        return self.execute_together((statement,), params)

    def execute_together(self, statements: Sequence[Statement], params: Params) -> list[Row]:
        """Run the statements as one message to the server, which makes them one transaction; the last one's rows."""
        with self._connection.cursor() as cursor:
            for statement in statements:
                if self._prepare and statement.name not in self._prepared:
                    cursor.execute(statement.prepare)
                    self._prepared.add(statement.name)
            parts = [statement.execute if self._prepare else statement.text for statement in statements]
            cursor.execute(";".join([*self._limits, *parts]), params)
            return cursor.fetchall() if cursor.description else []

    def begin(self) -> None:
        """BEGIN, with the limits of this transaction."""
        self.control(";".join(["BEGIN", *self._limits]))

    def control(self, command: str) -> None:
        """COMMIT or ROLLBACK."""
        with self._connection.cursor() as cursor:
            cursor.execute(command)

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


class Pool:
    """At most ``size`` connections to the default database, opened when needed, safe for threads.

    ``away``: the last that was heard of the database is that no connection could be had.
    """

    def __init__(self, *, size: int) -> None:
        self.away = False
        self._slots: LifoQueue[Session | None] = LifoQueue()
        for _ in range(size):
            self._slots.put(None)

    def execute(self, statement: Statement, params: Params) -> list[Row]:
        """Run one statement in a transaction of its own and return its rows. Lost races are run again."""
        for attempt in range(1, 4):
            try:
                with self._borrowed() as session:
                    return session.execute(statement, params)
            except RACES:
                if attempt == 3:
                    raise
        raise AssertionError("unreachable")

    def insist(self, statement: Statement, params: Params, *, seconds: float) -> list[Row]:
        """:meth:`execute`, again and again for up to ``seconds`` while the database is away.

        Only for statements that may run twice: a connection that breaks can hide that the first run was committed.
        """
        ends = monotonic() + seconds
        while True:
            try:
                return self.execute(statement, params)
            except psycopg2.Error as problem:
                if not is_away(problem) or monotonic() > ends:
                    raise
            sleep(AGAIN_SECONDS)

    def execute_together(self, statements: Sequence[Statement], params: Params) -> list[Row]:
        """Run several statements in one transaction and one trip to the server; returns the last one's rows."""
        for attempt in range(1, 4):
            try:
                with self._borrowed() as session:
                    return session.execute_together(statements, params)
            except RACES:
                if attempt == 3:
                    raise
        raise AssertionError("unreachable")

    @contextmanager
    def transaction(self) -> Iterator[Session]:
        """Several statements in one transaction: committed at the end, rolled back on any exception."""
        with self._borrowed() as session:
            session.begin()
            try:
                yield session
            except BaseException:
                if not session.closed:
                    session.control("ROLLBACK")
                raise
            session.control("COMMIT")

    def close(self) -> None:
        """Close what is idle. Call it when nobody borrows any more."""
        self._let_go_of_idle()

    @contextmanager
    def _borrowed(self) -> Iterator[Session]:
        try:
            session = self._slots.get(timeout=BORROW_SECONDS)
        except Empty:
            raise PoolExhausted(f"no database connection came free in {BORROW_SECONDS:g} s") from None
        try:
            if session is None or session.closed:
                session = self._connect()
            yield session
            self.away = False
        except psycopg2.Error as problem:
            if session is not None and is_away(problem) and not isinstance(problem, RACES):
                broke = session.closed  # as libpq found it: a statement that timed out leaves a connection that works
                session.close()
                if broke:
                    self._let_go_of_idle()
            raise
        finally:
            self._slots.put(None if session is None or session.closed else session)

    def _connect(self) -> Session:
        try:
            return _open()
        except psycopg2.OperationalError:
            self.away = True
            raise

    def _let_go_of_idle(self) -> None:
        """What broke one connection has probably broken the idle ones: the next borrowers shall open their own."""
        slots = []
        with suppress(Empty):
            while True:
                slots.append(self._slots.get_nowait())
        for session in slots:
            if session is not None:
                session.close()
            self._slots.put(None)


def _open() -> Session:
    params = connections["default"].get_connection_params()
    params.setdefault("application_name", "flotilla-dispatch")
    known = {name: value for name, value in params.items() if name not in _DJANGO_ONLY}
    connection = psycopg2.connect(**known)
    connection.autocommit = True
    if settings.FLOTILLA_POOLED:
        with connection.cursor() as cursor:
            cursor.execute("SET TIME ZONE 'UTC'")  # one of the few that poolers carry over
        return Session(connection, prepare=False, limits=_limits())
    with connection.cursor() as cursor:
        cursor.execute(
            f"SET TIME ZONE 'UTC'; SET statement_timeout = '{STATEMENT_SECONDS}s'; "
            "SET plan_cache_mode = 'force_generic_plan'"
        )
    return Session(connection, prepare=settings.FLOTILLA_PREPARE)


def _limits() -> str:
    idle = int(1000 * settings.FLOTILLA_IDLE_TRANSACTION_SECONDS)
    return (
        f"SET LOCAL statement_timeout = '{STATEMENT_SECONDS}s'; SET LOCAL idle_in_transaction_session_timeout = {idle}"
    )


_lock = threading.Lock()
_shared: Pool | None = None


def shared_pool() -> Pool:
    """This process's pool, made on first use."""
    global _shared  # noqa: PLW0603 - one per process is the point
    with _lock:
        if _shared is None:
            _shared = Pool(size=settings.FLOTILLA_POOL_SIZE)
        return _shared
