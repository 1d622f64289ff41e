"""System A's database: read in one snapshot, never written."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import psycopg2
from psycopg2 import sql
from psycopg2.extras import RealDictCursor

from config.legacy.words import Row

CONNECT_SECONDS: Final = 10
_AT_ONCE: Final = 2_000
TABLES: Final = (
    "users", "user_devices", "leads", "campaigns", "sequences", "sequence_steps", "sequence_contacts",
    "broadcast_messages",
)  # fmt: skip
"""Tables that are read. Others are named in the report if they hold rows."""


class SourceProblem(Exception):  # noqa: N818 - reads as a fact
    """The database cannot be read, or is not system A's. The text never shows its address."""


@dataclass(frozen=True, slots=True)
class Visitor:
    """Somebody else who is connected to the database."""

    pid: int
    user: str
    program: str
    address: str


@dataclass(slots=True)
class Source:
    """An open database of system A."""

    connection: Any = field(repr=False)
    schema: str
    columns: dict[str, frozenset[str]]

    def rows(self, table: str, wanted: Sequence[str], *, order: Sequence[str] = ("id",)) -> Iterator[Row]:
        """The rows of ``table`` with those of the ``wanted`` columns that it has, streamed; nothing without it."""
        has = self.columns.get(table, frozenset())
        names = [name for name in ("id", *wanted) if name in has]
        if "id" not in names:
            return
        statement = sql.SQL("SELECT {} FROM {} ORDER BY {}").format(
            sql.SQL(", ").join(map(sql.Identifier, dict.fromkeys(names))),
            sql.Identifier(self.schema, table),
            sql.SQL(", ").join(sql.SQL("{} NULLS LAST").format(sql.Identifier(n)) for n in order if n in has),
        )
        yield from self.ask(statement, name=f"flotilla_{table}")

    def ask(self, statement: Any, values: Sequence[Any] = (), *, name: str | None = None) -> Iterator[Row]:
        """The answer, row by row; with a ``name`` it stays on the server until it is read."""
        with self.connection.cursor(name, cursor_factory=RealDictCursor) as cursor:
            if name is not None:
                cursor.itersize = _AT_ONCE
            cursor.execute(statement, values or None)
            yield from cursor

    def table(self, name: str) -> sql.Identifier:
        """The name of a table for :meth:`ask`."""
        return sql.Identifier(self.schema, name)

    def has(self, table: str, *columns: str) -> bool:
        """Whether this install has the table with these columns."""
        return table in self.columns and self.columns[table].issuperset(columns)

    def visitors(self) -> list[Visitor]:
        """Everybody else connected now: the old process, while it runs, holds a session open through this database."""
        with self.connection.cursor() as cursor:
            cursor.execute("SELECT pg_stat_clear_snapshot()")  # else the answer stays this transaction's first one
            cursor.execute(
                """SELECT pid, coalesce(usename, ''), coalesce(application_name, ''),
                          coalesce(host(client_addr), 'local')
                   FROM pg_stat_activity
                   WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'
                   ORDER BY pid"""
            )
            return [Visitor(*row) for row in cursor.fetchall()]

    def unread(self) -> list[tuple[str, int]]:
        """Other tables of theirs that hold rows, with about how many: nothing of them comes over."""
        others = sorted(
            name for name in self.columns if name not in TABLES and not name.startswith(("whatsmeow_", "pg_"))
        )
        found = []
        for name in others:
            with self.connection.cursor() as cursor:
                cursor.execute(sql.SQL("SELECT count(*) FROM {}").format(self.table(name)))
                if number := cursor.fetchone()[0]:
                    found.append((name, number))
        return found


@contextmanager
def opened(address: str, *, schema: str = "public") -> Iterator[Source]:
    """The database at ``address`` (libpq's form; a password may also come from ~/.pgpass). Raises SourceProblem."""
    try:
        connection = psycopg2.connect(
            address, connect_timeout=CONNECT_SECONDS, application_name="flotilla import_legacy"
        )
    except psycopg2.OperationalError:
        raise SourceProblem(
            "The old database does not answer, or refuses: check host, port, name, user and password of --database."
        ) from None
    except psycopg2.Error:
        raise SourceProblem("--database cannot be read: write it as postgresql://user@host:5432/name.") from None
    try:
        connection.set_session(isolation_level="REPEATABLE READ", readonly=True)
        source = Source(connection, schema, _columns(connection, schema))
        _refuse_unless_theirs(source)
        yield source
    except psycopg2.Error as problem:
        said = (str(problem).splitlines() or [type(problem).__name__])[0]
        raise SourceProblem(f"The old database refused: {said[:200]}") from None
    finally:
        connection.close()


def _columns(connection: Any, schema: str) -> dict[str, frozenset[str]]:
    with connection.cursor() as cursor:
        cursor.execute(
            """SELECT c.relname, array_agg(a.attname::text) FROM pg_class c
               JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_attribute a ON a.attrelid = c.oid
               WHERE n.nspname = %s AND c.relkind IN ('r', 'p', 'v', 'm') AND a.attnum > 0 AND NOT a.attisdropped
               GROUP BY c.relname""",
            [schema],
        )
        return {table: frozenset(columns) for table, columns in cursor.fetchall()}


def _refuse_unless_theirs(source: Source) -> None:
    if "messaging_message" in source.columns:
        raise SourceProblem("This is a database of Flotilla: --database must name the one of the system before.")
    if not any(table in source.columns for table in TABLES):
        raise SourceProblem(
            f"None of {', '.join(TABLES)} is in schema “{source.schema}”: name the right database, or --schema. An"
            " install that keeps these in MySQL has to copy them into a PostgreSQL database first."
        )
