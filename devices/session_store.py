"""Where WhatsApp sessions are stored: whatsmeow's own tables, in a schema of their own in the project's database.

The library makes and migrates its tables itself and wants its address in a form of its own. Here is what must be done
with SQL around it: the schema, whether a session is stored at all (asking the library for one that is not aborts the
whole process), removing one, and closing what the library leaves open. Nothing here needs Django's set-up or the
library, so that session hosts, pairing and tests can all use it.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote, urlencode

import psycopg2
from psycopg2.extensions import parse_dsn

SCHEMA = "whatsmeow"
CONNECT_SECONDS = 5
STATEMENT_MS = 5_000
SILENCE_MS = 10_000
"""A server that answers no packet for so long is away: the limit for statements is kept by the server alone."""
_UNDERSTOOD = {"sslmode", "sslcert", "sslkey", "sslrootcert", "connect_timeout"}
"""Options that Go's driver knows as libpq does; others would be sent to the server as settings, and refused."""

_prepared: set[str] = set()
_preparing = threading.Lock()


class StoreAway(Exception):  # noqa: N818 - reads as a fact
    """The database with the sessions does not answer, or refuses. The text never shows its address."""


def library_url(store_url: str, *, name: str) -> str:
    """``store_url`` (libpq's form, any of them) in the one form that Go's driver and the library both understand.

    A ``host=… dbname=…`` line would silently become a SQLite file of that name. Everything goes into the query, which
    is the only place where a UNIX socket's folder fits. ``name`` tells this client's connections from all others (see
    :func:`end_connections`). The result holds the password. Raises StoreAway.
    """
    given = _parsed(store_url)
    hosts = given.get("host", "")
    options = {
        "host": hosts.split(",")[0],  # one host: Go's driver knows no lists
        "port": given.get("port", "").split(",")[0],
        "user": given.get("user", ""),
        "password": given.get("password", ""),
        **{key: value for key, value in given.items() if key in _UNDERSTOOD},
        "search_path": SCHEMA,
        "application_name": name,
    }
    # TLS is no use on a socket, and Go's driver insists on it unless told otherwise.
    fallback = "disable" if hosts.startswith(("/", "@")) or not hosts else "prefer"
    options["sslmode"] = _SSL.get(options.get("sslmode", fallback), options.get("sslmode", fallback))
    query = urlencode({key: value for key, value in options.items() if value}, quote_via=quote)
    return f"postgres:///{quote(given.get('dbname', ''), safe='')}?{query}"


_SSL = {"allow": "disable", "prefer": "disable"}
"""Go's driver knows no opportunistic TLS; whoever wants it says ``require`` or stricter."""


def prepare(store_url: str) -> None:
    """Make the schema if it is not there; once for each address and process. Raises StoreAway."""
    with _preparing:
        if store_url in _prepared:
            return
        with _cursor(store_url) as cursor:
            # IF NOT EXISTS alone lets two first hosts collide on the catalogue's unique index.
            cursor.execute("SELECT pg_advisory_xact_lock(hashtext('flotilla.whatsmeow'))")
            cursor.execute(f"CREATE SCHEMA IF NOT EXISTS {SCHEMA}")
        _prepared.add(store_url)


def holds(store_url: str, *, jid: str) -> bool:
    """Whether the session of ``jid`` (``user:device@server``) is stored. Raises StoreAway."""
    with _cursor(store_url) as cursor:
        if not _has_tables(cursor):
            return False
        cursor.execute(f"SELECT 1 FROM {SCHEMA}.whatsmeow_device WHERE jid = %s", (jid,))  # noqa: S608 - a constant
        return cursor.fetchone() is not None


def forget(store_url: str, *, jid: str) -> bool:
    """Delete the session of ``jid`` with everything that hangs on it; whether there was one. Raises StoreAway.

    Nobody may have it open: a client whose row is gone aborts its process when it connects anew.
    """
    with _cursor(store_url) as cursor:
        if not _has_tables(cursor):
            return False
        cursor.execute(f"DELETE FROM {SCHEMA}.whatsmeow_device WHERE jid = %s", (jid,))  # noqa: S608 - a constant
        return bool(cursor.rowcount)


def end_connections(store_url: str, *, name: str) -> int:
    """Close what a client of this ``name`` left open, once it is closed itself; returns how many.

    Each time it connects, the library opens a pool of connections that it never closes. The server can. Raises
    StoreAway.
    """
    with _cursor(store_url) as cursor:
        cursor.execute(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
            " WHERE application_name = %s AND datname = current_database() AND usename = current_user",
            (name,),
        )
        return int(cursor.fetchone()[0])


def secrets_in(store_url: str) -> dict[str, str]:
    """What must not be shown of an address: the whole, as either side writes it, and its password."""
    try:
        password = _parsed(store_url).get("password", "")
    except StoreAway:
        password = ""
    found = {"url": store_url, "password": password, "quoted": quote(password, safe="")}
    return {name: value for name, value in found.items() if value}


_ADDRESS = re.compile(r"postgres(?:ql)?://\S+")


def without_secrets(text: str, *, store_url: str) -> str:
    """``text`` of the library with every address of the store blanked out: a malformed one is quoted in full."""
    for secret in sorted(secrets_in(store_url).values(), key=len, reverse=True):
        text = text.replace(secret, "***")
    return _ADDRESS.sub("postgres://***", text)


def _parsed(store_url: str) -> dict[str, str]:
    try:
        return {key: str(value) for key, value in parse_dsn(store_url).items()}
    except psycopg2.ProgrammingError:
        raise StoreAway("The address of the session store cannot be read.") from None


def _has_tables(cursor: Any) -> bool:
    """Whether the library has ever made its tables: it does so when the first client connects."""
    cursor.execute("SELECT to_regclass(%s)", (f"{SCHEMA}.whatsmeow_device",))
    return cursor.fetchone()[0] is not None


@contextmanager
def _cursor(store_url: str) -> Iterator[Any]:
    """A short connection of its own, in one transaction, bounded in time."""
    try:
        connection = psycopg2.connect(
            store_url,
            connect_timeout=CONNECT_SECONDS,
            tcp_user_timeout=SILENCE_MS,
            keepalives_idle=CONNECT_SECONDS,
            keepalives_interval=1,
            application_name="flotilla sessions",
            options=f"-c statement_timeout={STATEMENT_MS}",
        )
    except psycopg2.Error:
        raise StoreAway("The database with the stored sessions does not answer.") from None
    try:
        with connection, connection.cursor() as cursor:
            yield cursor
    except psycopg2.Error as problem:
        raise StoreAway(f"The database with the stored sessions refused: {type(problem).__name__}.") from None
    finally:
        connection.close()
