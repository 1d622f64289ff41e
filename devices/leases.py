"""Leases of session shards, in PostgreSQL: who houses which sessions now. Every function is one committed step.

A host's one lease covers all its shards. It is renewed only while it lasts; a lapsed one is never renewed, because
whoever frees a host's shards deletes its row first, and both lock that row. So of two hosts at most one holds a shard
by the database's clock; :mod:`devices.keeper` sees to it that each stops earlier by its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

from django.db import connection, transaction

_REGISTER = """
INSERT INTO devices_sessionhost (id, name, lease_until, leaving, started_at, sessions, connects, memory_mb)
VALUES (%s, left(%s, 200), clock_timestamp() + make_interval(secs => %s), false, clock_timestamp(), 0, 0, 0)
"""
_RENEW = """
UPDATE devices_sessionhost
SET lease_until = clock_timestamp() + make_interval(secs => %s), leaving = %s, sessions = %s, connects = %s,
    memory_mb = %s
WHERE id = %s AND lease_until > clock_timestamp()
RETURNING id
"""
# The delete waits for a renewal that is under way, and then finds the lease in force; a renewal that waits for the
# delete finds no row. The foreign key is checked at commit.
_BURY = """
WITH gone AS (
    DELETE FROM devices_sessionhost WHERE lease_until <= clock_timestamp() RETURNING id, name
), freed AS (
    UPDATE devices_sessionshard SET host_id = NULL WHERE host_id IN (SELECT id FROM gone)
)
SELECT name FROM gone
"""
# Shards are taken whole or not at all: rows of another number of shards mean that two hosts are configured apart.
_SHARDS = """
INSERT INTO devices_sessionshard (shard, total, fencing)
SELECT n, %(total)s, 0 FROM generate_series(0, %(total)s - 1) AS n
WHERE NOT EXISTS (SELECT FROM devices_sessionshard WHERE total <> %(total)s)
ON CONFLICT (shard) DO NOTHING
"""
_OTHERWISE = """
DELETE FROM devices_sessionshard WHERE total <> %(total)s
AND NOT EXISTS (SELECT FROM devices_sessionshard WHERE host_id IS NOT NULL)
"""
_LIVE = """
SELECT id FROM devices_sessionhost WHERE lease_until > clock_timestamp() AND NOT leaving ORDER BY started_at, id
"""
_HELD = "SELECT shard, fencing FROM devices_sessionshard WHERE host_id = %s"
_TAKE = """
UPDATE devices_sessionshard SET host_id = %(host)s, fencing = fencing + 1, taken_at = clock_timestamp()
WHERE shard IN (SELECT shard FROM devices_sessionshard WHERE host_id IS NULL AND total = %(total)s
                ORDER BY shard LIMIT %(most)s FOR UPDATE SKIP LOCKED)
  AND EXISTS (SELECT FROM devices_sessionhost WHERE id = %(host)s AND lease_until > clock_timestamp() FOR SHARE)
RETURNING shard, fencing
"""
_GIVE_BACK = "UPDATE devices_sessionshard SET host_id = NULL WHERE host_id = %s AND shard = ANY(%s)"
_LEAVE = """
WITH freed AS (UPDATE devices_sessionshard SET host_id = NULL WHERE host_id = %(host)s)
DELETE FROM devices_sessionhost WHERE id = %(host)s
"""


@dataclass(frozen=True, slots=True)
class Status:
    """What a host tells about itself with each renewal. ``deaf``: nobody can give it anything to do just now."""

    sessions: int = 0
    connects: int = 0
    memory_mb: int = 0
    leaving: bool = False
    deaf: bool = False


@dataclass(frozen=True, slots=True)
class Share:
    """A host's part: the shards it holds, by fencing number, and how many it should; how many ``others`` take some."""

    held: dict[int, int]
    target: int
    others: int = 0


def register(*, name: str, seconds: float) -> UUID:
    """A new host with a lease of so many seconds."""
    host = uuid4()
    with connection.cursor() as cursor:
        cursor.execute(_REGISTER, [host, name, seconds])
    return host


def renew(*, host: UUID, seconds: float, status: Status) -> bool:
    """Whether the lease was still in force; if so it lasts ``seconds`` from now on."""
    with connection.cursor() as cursor:
        leaving = status.leaving or status.deaf
        values: list[Any] = [seconds, leaving, status.sessions, status.connects, status.memory_mb, host]
        cursor.execute(_RENEW, values)
        return cursor.fetchone() is not None


def bury() -> list[str]:
    """Free the shards of hosts whose lease has lapsed; returns their names."""
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(_BURY)
        return [name for (name,) in cursor.fetchall()]


def share(*, host: UUID, total: int) -> Share:
    """What this host holds, and its fair part of ``total`` shards among the hosts that live."""
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(_OTHERWISE, {"total": total})
        cursor.execute(_SHARDS, {"total": total})
        cursor.execute(_HELD, [host])
        held = dict(cursor.fetchall())
        cursor.execute(_LIVE)
        live = [row[0] for row in cursor.fetchall()]
    if host not in live:
        return Share(held, 0, others=len(live))
    return Share(held, fair_share(total=total, hosts=len(live), place=live.index(host)), others=len(live) - 1)


def fair_share(*, total: int, hosts: int, place: int) -> int:
    """How many of ``total`` shards the host at ``place`` (from 0) has among ``hosts``: they differ by one at most."""
    return total // hosts + (place < total % hosts)


def take(*, host: UUID, total: int, most: int) -> dict[int, int]:
    """Take up to ``most`` free shards; their fencing numbers by shard."""
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(_TAKE, {"host": host, "total": total, "most": most})
        return dict(cursor.fetchall())


def give_back(*, host: UUID, shards: Sequence[int]) -> None:
    """Free these shards, whose sessions are closed by now."""
    with connection.cursor() as cursor:
        cursor.execute(_GIVE_BACK, [host, list(shards)])


def leave(*, host: UUID) -> None:
    """Free all and be gone."""
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(_LEAVE, {"host": host})
