"""How leads get into PostgreSQL: many at a time, merged into those that are there, and one writer per import.

Merging never takes anything away: empty fields are filled, tags are united, a prospect may become a customer but not
the other way round, and an opt-out stays. Consent is noted on leads that have none and have not refused.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any

from django.conf import settings
from django.db import connection, connections, transaction
from django.db.backends.base.base import BaseDatabaseWrapper

from leads.changes import LONGEST
from leads.imports import LeadRow, RowProblem
from leads.models import LeadImport

Duplicates = LeadImport.Duplicates

_IMPORT_LOCK = "flotilla.leads.import"
_SLOT_LOCK = "flotilla.leads.import_slot"
_OWNER_LOCK = "flotilla.leads.owner"


@dataclass(frozen=True, slots=True)
class Source:
    """Which import it is, if any, and what the history of leads says of it: a word, and whose it is."""

    import_id: int | None
    note: str
    by_id: int


class ImportBusy(Exception):  # noqa: N818 - reads as a fact
    """Somebody else works on this import, or as many imports as may run at once are running."""


# -- Merging -----------------------------------------------------------------------------------------------------------

_INSERT = """
INSERT INTO leads_lead AS lead (owner_id, phone, name, status, niches, triggers, notes, custom, device_id,
                                consent_at, consent_source, opted_out_at, first_import_id, created_at, updated_at)
SELECT %(owner)s, phone, name, coalesce(nullif(status, ''), 'prospect'), niches, triggers, notes, custom,
       %(device)s::bigint, row_consent_at, row_consent_source, opted_out_at, %(import)s::bigint, %(now)s, %(now)s
FROM (SELECT *,
             -- consent by row goes before that of the whole file; whoever refused in the file gets none from it
             CASE WHEN consent_at IS NOT NULL THEN consent_at WHEN consent_source <> '' THEN %(now)s::timestamptz
                  WHEN opted_out_at IS NULL THEN %(consent_at)s::timestamptz END AS row_consent_at,
             CASE WHEN consent_source <> '' THEN consent_source
                  WHEN opted_out_at IS NULL OR consent_at IS NOT NULL THEN %(consent_source)s
                  ELSE '' END AS row_consent_source
      FROM {source}) source
ORDER BY position
ON CONFLICT (owner_id, phone) DO UPDATE SET
"""
_MERGE = """
    name = CASE WHEN lead.name = '' THEN excluded.name ELSE lead.name END,
    status = CASE WHEN excluded.status = 'customer' THEN 'customer' ELSE lead.status END,
    niches = lead.niches || ARRAY(SELECT tag FROM unnest(excluded.niches) WITH ORDINALITY AS t (tag, place)
                                  WHERE tag <> ALL (lead.niches) ORDER BY place),
    triggers = lead.triggers || ARRAY(SELECT tag FROM unnest(excluded.triggers) WITH ORDINALITY AS t (tag, place)
                                      WHERE tag <> ALL (lead.triggers) ORDER BY place),
    notes = CASE WHEN lead.notes = '' THEN excluded.notes ELSE lead.notes END,
    custom = excluded.custom || lead.custom,
    device_id = coalesce(lead.device_id, excluded.device_id),
    consent_at = CASE WHEN lead.opted_out_at IS NULL THEN coalesce(lead.consent_at, excluded.consent_at)
                      ELSE lead.consent_at END,
    consent_source = CASE WHEN lead.consent_at IS NULL AND lead.opted_out_at IS NULL
                               AND excluded.consent_at IS NOT NULL
                          THEN excluded.consent_source ELSE lead.consent_source END,
    opted_out_at = coalesce(lead.opted_out_at, excluded.opted_out_at),
    updated_at = excluded.updated_at
-- a row that says nothing new is not written again
WHERE (lead.name = '' AND excluded.name <> '')
   OR (lead.status <> 'customer' AND excluded.status = 'customer')
   OR NOT lead.niches @> excluded.niches
   OR NOT lead.triggers @> excluded.triggers
   OR (lead.notes = '' AND excluded.notes <> '')
   OR (excluded.custom || lead.custom) <> lead.custom
   OR (lead.device_id IS NULL AND excluded.device_id IS NOT NULL)
   OR (lead.consent_at IS NULL AND lead.opted_out_at IS NULL AND excluded.consent_at IS NOT NULL)
   OR (lead.opted_out_at IS NULL AND excluded.opted_out_at IS NOT NULL)
"""
# What the file says wins; what it leaves empty it does not say. "excluded" holds 'prospect' for an empty status, so the
# row's own word is looked up where it came from.
_OVERWRITE = """
    name = coalesce(nullif(excluded.name, ''), lead.name),
    status = coalesce((SELECT nullif(said.status, '') FROM {source} WHERE said.phone = excluded.phone), lead.status),
    niches = CASE WHEN excluded.niches = '{{}}' THEN lead.niches ELSE excluded.niches END,
    triggers = CASE WHEN excluded.triggers = '{{}}' THEN lead.triggers ELSE excluded.triggers END,
    notes = coalesce(nullif(excluded.notes, ''), lead.notes),
    custom = lead.custom || excluded.custom,
    device_id = coalesce(excluded.device_id, lead.device_id),
    consent_at = CASE WHEN lead.opted_out_at IS NULL THEN coalesce(excluded.consent_at, lead.consent_at)
                      ELSE lead.consent_at END,
    consent_source = CASE WHEN lead.opted_out_at IS NULL AND excluded.consent_at IS NOT NULL
                          THEN excluded.consent_source ELSE lead.consent_source END,
    opted_out_at = coalesce(lead.opted_out_at, excluded.opted_out_at),
    updated_at = excluded.updated_at
"""
_SKIP = """
    opted_out_at = excluded.opted_out_at, updated_at = excluded.updated_at
-- whoever is there stays as they are, but a refusal is never passed over
WHERE lead.opted_out_at IS NULL AND excluded.opted_out_at IS NOT NULL
"""
_RETURNING = " RETURNING xmax = 0 AS fresh"  # true: inserted; an update leaves its own transaction there
_COLUMNS = ("name", "status", "niches", "triggers", "notes", "custom", "device_id")
# What the import changed of those who were there, in their history (leads.changes.difference). The statement's own
# snapshot still has each row as it was; those who are new cost nothing here.
_CHANGES = """
INSERT INTO leads_leadchange (lead_id, kind, channel, "values", note, by_id, changed_at)
SELECT id, 'edited', 'import', changes, %(note)s, %(by)s, %(now)s
FROM (SELECT now_is.id, {changes} AS changes
      FROM (SELECT * FROM merged WHERE NOT fresh) now_is
      CROSS JOIN LATERAL (SELECT {columns} FROM leads_lead WHERE id = now_is.id OFFSET 0) was) found
WHERE changes <> '{{}}'
"""


def _change(column: str) -> str:
    """``{"column": [before, after]}`` where it changed, else nothing; notes are cut."""
    before, after = f"was.{column}", f"now_is.{column}"
    pair = f"left({before}, %(kept)s), left({after}, %(kept)s)" if column == "notes" else f"{before}, {after}"
    changed = f"jsonb_build_object('{column.removesuffix('_id')}', jsonb_build_array({pair}))"
    return f"CASE WHEN {before} IS DISTINCT FROM {after} THEN {changed} ELSE '{{}}' END"


def _many(rule: str) -> str:
    columns = ", ".join(f"lead.{name}" for name in ("id", *_COLUMNS))
    statement = (_INSERT + rule).format(source="lead_chunk AS said") + f"{_RETURNING}, {columns}"
    told = _CHANGES.format(changes=" || ".join(map(_change, _COLUMNS)), columns=", ".join(_COLUMNS))
    return f"""WITH merged AS ({statement}), told AS ({told})
               SELECT count(*) FILTER (WHERE fresh) FROM merged"""  # noqa: S608 - constants only


_MANY = {
    Duplicates.MERGE: _many(_MERGE),
    Duplicates.OVERWRITE: _many(_OVERWRITE),
    Duplicates.SKIP: _many(_SKIP),
}
_ONE = (_INSERT + _MERGE).format(
    source="""(VALUES (1, %(phone)s::varchar, %(name)s::varchar, %(status)s::varchar, %(niches)s::varchar[],
                       %(triggers)s::varchar[], %(notes)s::text, %(custom)s::jsonb, NULL::timestamptz, ''::varchar,
                       NULL::timestamptz))
              AS said (position, phone, name, status, niches, triggers, notes, custom, consent_at, consent_source,
                       opted_out_at)"""
) + _RETURNING
# Phones that this session's dry run has met, so that it counts as the import would.
_MEET = """
WITH met AS (INSERT INTO lead_met SELECT phone FROM lead_chunk ON CONFLICT DO NOTHING RETURNING phone)
SELECT count(*) FROM met WHERE NOT EXISTS (
    SELECT FROM leads_lead lead WHERE lead.owner_id = %(owner)s AND lead.phone = met.phone)
"""


def merge_rows(
    *,
    owner_id: int,
    rows: Sequence[LeadRow],
    device_id: int | None,
    consent_at: datetime | None,
    consent_source: str,
    now: datetime,
    source: Source,
    duplicates: Duplicates = Duplicates.MERGE,
) -> int:
    """Put ``rows``, each phone once among them, into the owner's leads; returns how many leads are new.

    Call it in a transaction. Imports of one owner take turns, since two that know the same people in different order
    would wait for each other crosswise; the rows keep the file's order, which is the order campaigns send in.
    """
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(hashtext(%s), %s)", [_OWNER_LOCK, owner_id])
        _stage(cursor, rows)
        if duplicates == Duplicates.OVERWRITE:
            cursor.execute("CREATE INDEX ON lead_chunk (phone)")  # each row of the conflict looks its own word up
        cursor.execute(
            _MANY[duplicates],
            {
                "owner": owner_id,
                "device": device_id,
                "consent_at": consent_at,
                "consent_source": consent_source if consent_at else "",
                "now": now,
                "import": source.import_id,
                "note": source.note,
                "by": source.by_id,
                "kept": LONGEST,
            },
        )
        fresh = int(cursor.fetchone()[0])
        cursor.execute("DROP TABLE lead_chunk")
    return fresh


def _own_connection() -> BaseDatabaseWrapper:
    """The connection whose server session stays the same from one transaction to the next, with a pooler too."""
    return connections[settings.FLOTILLA_OWN_CONNECTION]


def begin_counting() -> None:
    """Begin a dry run: no phone has been met yet. The table is this database session's own, and goes with it."""
    with _own_connection().cursor() as cursor:
        cursor.execute("CREATE TEMPORARY TABLE IF NOT EXISTS lead_met (phone varchar PRIMARY KEY)")
        cursor.execute("TRUNCATE lead_met")


def count_rows(*, owner_id: int, rows: Sequence[LeadRow]) -> int:
    """How many new leads :func:`merge_rows` would make of ``rows`` after those that were counted before. Writes none.

    Call it in a transaction, after :func:`begin_counting`.
    """
    with transaction.atomic(using=settings.FLOTILLA_OWN_CONNECTION), _own_connection().cursor() as cursor:
        _stage(cursor, rows)
        cursor.execute(_MEET, {"owner": owner_id})
        fresh = int(cursor.fetchone()[0])
        cursor.execute("DROP TABLE lead_chunk")
    return fresh


def _stage(cursor: Any, rows: Sequence[LeadRow]) -> None:
    """``rows`` into the temporary table ``lead_chunk``."""
    cursor.execute(
        """CREATE TEMPORARY TABLE lead_chunk (position int, phone varchar, name varchar, status varchar,
               niches varchar[], triggers varchar[], notes text, custom jsonb, consent_at timestamptz,
               consent_source varchar, opted_out_at timestamptz) ON COMMIT DROP"""
    )
    _copy(
        cursor,
        "COPY lead_chunk FROM STDIN (FORMAT csv, FORCE_NULL (consent_at, opted_out_at))",
        (
            (
                position, row.phone, row.name, row.status, _array(row.niches), _array(row.triggers), row.notes,
                _json(row.custom), row.consent_at or "", row.consent_source, row.opted_out_at or "",
            )
            for position, row in enumerate(rows)
        ),
    )  # fmt: skip


def merge_one(
    *,
    owner_id: int,
    row: LeadRow,
    device_id: int | None,
    consent_at: datetime | None,
    consent_source: str,
    now: datetime,
) -> bool:
    """Merge one row into the owner's leads; returns whether the lead is new."""
    with connection.cursor() as cursor:
        cursor.execute(
            _ONE,
            {
                "phone": row.phone,
                "name": row.name,
                "status": row.status,
                "niches": list(row.niches),
                "triggers": list(row.triggers),
                "notes": row.notes,
                "custom": _json(row.custom),
                "owner": owner_id,
                "device": device_id,
                "consent_at": consent_at,
                "consent_source": consent_source if consent_at else "",
                "now": now,
                "import": None,
            },
        )
        written = cursor.fetchone()
    return bool(written and written[0])


def hold_device(device_id: int | None) -> int | None:
    """The device's id, kept from going away until the transaction ends; None if it went already.

    KEY SHARE, as the foreign key's own check takes: the release, which locks devices too, does not pass it over.
    """
    with connection.cursor() as cursor:
        cursor.execute("SELECT id FROM devices_device WHERE id = %s FOR KEY SHARE", [device_id])
        row = cursor.fetchone()
    return row[0] if row else None


def store_problems(*, import_id: int, problems: Iterable[RowProblem]) -> None:
    """Keep the rows that could not be taken."""
    with connection.cursor() as cursor:
        _copy(
            cursor,
            'COPY leads_leadimportproblem (lead_import_id, row_number, field, code, message, "values")'
            " FROM STDIN (FORMAT csv)",
            ((import_id, p.row_number, p.field, p.code, p.message, _json(p.values)) for p in problems),
        )


def _copy(cursor: Any, statement: str, rows: Iterable[tuple[Any, ...]]) -> None:
    """COPY ``rows`` in with whichever driver Django uses. Every cell is quoted, so none of them reads as NULL
    by accident."""
    buffer = io.StringIO(newline="")
    csv.writer(buffer, quoting=csv.QUOTE_ALL, lineterminator="\n").writerows(rows)
    driver = cursor.cursor
    if hasattr(driver, "copy_expert"):  # psycopg2
        buffer.seek(0)
        driver.copy_expert(statement, buffer)
    else:  # psycopg 3
        with driver.copy(statement) as copy:
            copy.write(buffer.getvalue())


@lru_cache(maxsize=4096)
def _array(tags: tuple[str, ...]) -> str:
    """A text array as PostgreSQL reads it (manual, "Array Input and Output Syntax")."""
    escaped = (tag.replace("\\", "\\\\").replace('"', '\\"') for tag in tags)
    return "{" + ",".join(f'"{tag}"' for tag in escaped) + "}"


def _json(values: Mapping[str, Any]) -> str:
    return json.dumps(dict(values), ensure_ascii=False) if values else "{}"


# -- One writer per import ---------------------------------------------------------------------------------------------


@contextmanager
def working_on(*, import_id: int, at_once: int | None = None) -> Iterator[None]:
    """Be the only one who works on this import, in the whole fleet; with ``at_once``, one of so many importers.

    The locks belong to the database session, so a killed process leaves none behind. Raises :class:`ImportBusy`.
    """
    with _own_connection().cursor() as cursor:
        if not _try_lock(cursor, _IMPORT_LOCK, import_id):
            raise ImportBusy(f"import {import_id} is being worked on by another process")
        slot = None
        try:
            if at_once is not None:
                slot = next((number for number in range(at_once) if _try_lock(cursor, _SLOT_LOCK, number)), None)
                if slot is None:
                    raise ImportBusy(f"the limit of imports at once ({at_once}) is reached")
            yield
        finally:
            if slot is not None:
                _unlock(_SLOT_LOCK, slot)
            _unlock(_IMPORT_LOCK, import_id)


def worked_on() -> set[int]:
    """Ids of the imports that somebody works on now."""
    with _own_connection().cursor() as cursor:
        cursor.execute(
            """SELECT objid::bigint FROM pg_locks
               WHERE locktype = 'advisory' AND objsubid = 2 AND granted
                 AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
                 AND classid::bigint = (hashtext(%s)::bigint & 4294967295)""",
            [_IMPORT_LOCK],
        )
        return {row[0] for row in cursor.fetchall()}


def _try_lock(cursor: Any, name: str, number: int) -> bool:
    cursor.execute("SELECT pg_try_advisory_lock(hashtext(%s), %s)", [name, number])
    return bool(cursor.fetchone()[0])


def _unlock(name: str, number: int) -> None:
    """Nothing to do on a connection that is gone: the lock went with it."""
    own = _own_connection()
    if own.connection is None or not own.is_usable():
        return
    with own.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_unlock(hashtext(%s), %s)", [name, number])
