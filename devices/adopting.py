"""Taking over WhatsApp sessions that another program of the same library has stored, so that nobody pairs again.

Both sides are whatsmeow's own tables. Theirs may be older than ours: a column of ours that they lack must be able to do
without. A column or type of theirs that ours does not know means that theirs are newer, or another library's, and
nothing is taken: half a session is worse than none. Nobody else may have the session open; that is the caller's to see
to, since two programs under one session throw each other out and spoil its keys.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import structlog
from django.db import IntegrityError, connection, transaction
from psycopg2 import sql

from devices.models import Device, DeviceState
from devices.pairing import JID
from devices.secrets import Secrets
from devices.session_store import SCHEMA

log = structlog.get_logger(__name__)

DEVICES, VERSION = "whatsmeow_device", "whatsmeow_version"
_SHARED = frozenset({"whatsmeow_lid_map"})
"""Tables that hold facts about people rather than about one session: what is there stays."""
_OWNERS = ("our_jid", "jid")
"""What the column with the session's name is called, in the order in which it is looked for."""
_ROWS_AT_ONCE = 1_000


class CannotAdopt(Exception):  # noqa: N818 - reads as a fact
    """This session, or none of theirs, can be taken; the text says why and what to do."""


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a table; ``needed`` where a row cannot go without a value of its own."""

    type: str
    needed: bool


Tables = Mapping[str, Mapping[str, Column]]


@dataclass(frozen=True, slots=True)
class Plan:
    """What is copied of a session: ``(table, column of the session's name, columns)``, in the order of foreign keys."""

    tables: tuple[tuple[str, str, tuple[str, ...]], ...]
    schema: str


def plan(*, theirs: Any, schema: str) -> Plan:
    """How sessions that psycopg2's cursor ``theirs`` reads in ``schema`` fit into our store. Raises CannotAdopt."""
    with connection.cursor() as cursor:
        here, order = _tables(cursor, SCHEMA), _order(cursor)
    there = _tables(theirs, schema)
    if DEVICES not in there:
        raise CannotAdopt("It stores no sessions in this database: pair these devices again.")
    if DEVICES not in here:
        raise CannotAdopt(
            "Our own session store has no tables yet: open “Pair” on any WhatsApp device once, which makes them, then"
            " move over again."
        )
    return Plan(fitting(here=here, there=there, order=order), schema)


def fitting(*, here: Tables, there: Tables, order: Sequence[str]) -> tuple[tuple[str, str, tuple[str, ...]], ...]:
    """The tables of :class:`Plan`. Pure. Raises CannotAdopt where theirs hold what ours have no place for."""
    found = []
    for table in (name for name in (*order, *sorted(set(there) - set(order))) if name in there and name != VERSION):
        ours, columns = here.get(table), there[table]
        if ours is None:
            raise CannotAdopt(f"Its store has a table {table} that ours does not know: pair these devices again.")
        for name, column in columns.items():
            if name not in ours or ours[name].type != column.type:
                raise CannotAdopt(f"Its store has {table}.{name} as ours does not know it: pair these devices again.")
        for name, column in ours.items():
            if column.needed and name not in columns:
                raise CannotAdopt(f"Its store is too old, it lacks {table}.{name}: pair these devices again.")
        owner = next((name for name in _OWNERS if name in columns), "")
        if owner or table in _SHARED:
            found.append((table, "" if table in _SHARED else owner, tuple(columns)))
    return tuple(found)


def stored(*, jid: str, plan: Plan, theirs: Any) -> bool:
    """Whether they have the session of ``jid``."""
    theirs.execute(
        sql.SQL("SELECT 1 FROM {} WHERE jid = %s").format(sql.Identifier(plan.schema, DEVICES)),
        (jid,),
    )
    return theirs.fetchone() is not None


def share(*, plan: Plan, theirs: Any) -> int:
    """Copy what they know about people, once for all sessions, before the first; returns how many rows were read."""
    with transaction.atomic():
        return _copy(plan, jid="", theirs=theirs)


def adopt(*, device: Device, jid: str, phone: str, plan: Plan, theirs: Any) -> int:
    """Copy the session of ``jid`` and let ``device`` send by it, in one transaction; returns the rows copied.

    A paused device stays paused. Raises CannotAdopt.
    """
    try:
        with transaction.atomic():
            locked = Device.objects.select_for_update(no_key=True).get(pk=device.pk)
            if locked.credentials.get(JID):
                raise CannotAdopt("This device is linked to a phone here already.")
            copied = _copy(plan, jid=jid, theirs=theirs)
            if not copied:
                raise CannotAdopt("It has no session stored for this device: pair it again.")
            locked.credentials = Secrets({**locked.credentials, JID: jid})
            locked.session_phone = phone
            locked.save(update_fields=["credentials", "session_phone"])
            Device.objects.filter(pk=device.pk, state=DeviceState.UNPAIRED).update(
                state=DeviceState.ACTIVE, state_reason="", attention_code=""
            )
    except IntegrityError:
        raise CannotAdopt(
            "This session or its number is here already, at another device: log that one out, or leave it as it is."
        ) from None
    log.info("session.adopted", device_id=device.pk, rows=copied)
    return copied


def _copy(plan: Plan, *, jid: str, theirs: Any) -> int:
    """The rows of one session; without ``jid`` those of no session. How many were read."""
    copied = 0
    for table, owner, columns in plan.tables:
        if bool(owner) != bool(jid):
            continue
        names = sql.SQL(", ").join(map(sql.Identifier, columns))
        statement = sql.SQL("SELECT {} FROM {}").format(names, sql.Identifier(plan.schema, table))
        if owner:
            statement += sql.SQL(" WHERE {} = %(jid)s").format(sql.Identifier(owner))
        theirs.execute(statement, {"jid": jid})
        insert = sql.SQL("INSERT INTO {} ({}) VALUES ({}){}").format(
            sql.Identifier(SCHEMA, table),
            names,
            sql.SQL(", ").join(sql.Placeholder() * len(columns)),
            sql.SQL("" if owner else " ON CONFLICT DO NOTHING"),
        )
        while rows := theirs.fetchmany(_ROWS_AT_ONCE):
            with connection.cursor() as cursor:
                cursor.executemany(insert, rows)
            copied += len(rows)
    return copied


def _tables(cursor: Any, schema: str) -> dict[str, dict[str, Column]]:
    cursor.execute(
        """SELECT c.relname, a.attname, format_type(a.atttypid, a.atttypmod),
                  a.attnotnull AND NOT a.atthasdef AND a.attidentity = ''
           FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace
           WHERE n.nspname = %s AND c.relname LIKE 'whatsmeow\\_%%' AND c.relkind = 'r' AND a.attnum > 0
             AND NOT a.attisdropped ORDER BY c.relname, a.attnum""",
        (schema,),
    )
    found: dict[str, dict[str, Column]] = {}
    for table, name, kind, needed in cursor.fetchall():
        found.setdefault(table, {})[name] = Column(kind, needed)
    return found


def _order(cursor: Any) -> list[str]:
    """Our tables, each after those that its foreign keys name."""
    cursor.execute(
        """SELECT t.relname, coalesce(array_agg(DISTINCT f.relname::text) FILTER (WHERE f.oid <> t.oid), '{}')
           FROM pg_class t JOIN pg_namespace n ON n.oid = t.relnamespace AND n.nspname = %s
           LEFT JOIN pg_constraint k ON k.conrelid = t.oid AND k.contype = 'f'
           LEFT JOIN pg_class f ON f.oid = k.confrelid
           WHERE t.relkind = 'r' AND t.relname LIKE 'whatsmeow\\_%%' GROUP BY t.relname ORDER BY t.relname""",
        (SCHEMA,),
    )
    waiting: dict[str, set[str]] = {table: set(after) for table, after in cursor.fetchall()}
    order: list[str] = []
    while waiting:
        free = sorted((name for name, after in waiting.items() if after <= set(order)), key=lambda n: n != DEVICES)
        if not free:
            raise CannotAdopt("Our own session store is not one of a library that we know: pair these devices again.")
        order += free
        for name in free:
            del waiting[name]
    return order
