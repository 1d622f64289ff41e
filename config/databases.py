"""Django's DATABASES: one server, reached directly or through a pooler as well. Pure.

A pooler such as PgBouncer in transaction mode gives each transaction another server connection. What lives longer than
a transaction, prepared statements, session locks, temporary tables, settings and cursors, would be left in a stranger's
connection or be looked for in one. So with a pooler there are two addresses: the pooler's for everything that fits into
a transaction, which is nearly everything, and the server's own, under the alias ``direct``, for the rest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any, Final

from config import lifelines
from config.stack.addresses import Addresses, database_from_url
from config.stack.errors import StackError

DIRECT: Final = "direct"
_KEPT: Final = {"CONN_MAX_AGE": 60, "CONN_HEALTH_CHECKS": True}
# A migration may think for long, whatever the database says. But whoever waits for a table's lock keeps everybody
# behind it waiting: give up instead, and be run again.
_MIGRATING: Final = ("idle_in_transaction_session_timeout=0", "lock_timeout=10s")
_VARIABLE: Final = "FLOTILLA_DIRECT_DATABASE_URL"


def databases(
    *, found: Addresses, direct_url: str, argv: Sequence[str], idle_seconds: float, silence_seconds: int
) -> dict[str, dict[str, Any]]:
    """DATABASES for the process started as ``argv``; with an entry ``direct`` where ``default`` is a pooler.

    Commands of ``manage.py`` that people run, migrations above all, go to the server itself and never see the pooler:
    ``serve`` becomes another program, which reads its settings anew. ``idle_seconds`` ends transactions that a process
    sleeps in, 0 for never; a pooler refuses that start-up parameter, so the server must know it (deploy/README.md).
    After ``silence_seconds`` the other end of a connection counts as dead (:mod:`config.lifelines`).
    Raises StackError, without the address.
    """
    migrates = list(argv[1:2]) == ["migrate"]
    limits = _MIGRATING if migrates else _idle(idle_seconds)
    if not direct_url:
        return {"default": _direct(found.database, limits, silence_seconds)}
    if found.source != "environment":
        raise StackError(f"{_VARIABLE} is set and DATABASE_URL is not: set that to the pooler's address, or neither.")
    try:
        own = database_from_url(direct_url)
    except StackError as problem:
        raise StackError(str(problem).replace("DATABASE_URL", _VARIABLE)) from None
    if PurePath(argv[0]).name == "manage.py":
        return {"default": _direct(own, limits, silence_seconds)}
    return {
        "default": {
            **found.database,
            **_KEPT,
            "DISABLE_SERVER_SIDE_CURSORS": True,
            "OPTIONS": lifelines.ours(given=found.database.get("OPTIONS") or {}, seconds=silence_seconds),
        },
        DIRECT: {**_direct(own, limits, silence_seconds), "TEST": {"MIRROR": "default"}},
    }


def _idle(seconds: float) -> tuple[str, ...]:
    return (f"idle_in_transaction_session_timeout={int(1000 * seconds)}",) if seconds else ()


def _direct(given: Mapping[str, Any], limits: Sequence[str], silence_seconds: int) -> dict[str, Any]:
    options = lifelines.database_options(given=given.get("OPTIONS") or {}, seconds=silence_seconds)
    if limits:
        given_ones = [options["options"]] if options.get("options") else []
        options["options"] = " ".join([*given_ones, *(f"-c {limit}" for limit in limits)])
    return {**given, **_KEPT, "OPTIONS": options}
