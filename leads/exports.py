"""Tables on their way out, line by line: leads in the columns that an import reads back, and an import's problems.

No cell begins like a formula (:func:`leads.cells.guarded`); the import takes that guard off again, so what was exported
comes back as it was. Memory stays flat: rows come through a server-side cursor.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from django.conf import settings
from django.core.exceptions import EmptyResultSet
from django.db import connection
from django.db.models import QuerySet

from leads.cells import guarded, tags_cell
from leads.columns import COLUMNS_MOST, PROBLEM_TITLES, is_title
from leads.models import Lead, LeadImport, LeadImportProblem
from leads.tabular import CONTROL

_TITLES = [
    "name",
    "phone",
    "niche",
    "target_status",
    "trigger",
    "notes",
    "consent_at",
    "consent_source",
    "opted_out_at",
]
_REST = "custom_json"
_FIELDS = (
    "name", "phone", "niches", "status", "triggers", "notes", "consent_at", "consent_source", "opted_out_at", "custom",
)  # fmt: skip
_AT_ONCE = 2000
_OWN_MOST = COLUMNS_MOST - len(_TITLES) - 1


def lead_lines(leads: QuerySet[Lead]) -> Iterator[str]:
    """``leads`` as CSV (UTF-8 with a mark, for spreadsheets), oldest first.

    Each of the users' own fields with a plain name has a column; what a column cannot carry (other names, numbers,
    lists, the rarest beyond 200 columns) stands together in ``custom_json``.
    """
    keys = _keys(leads)
    writer = csv.writer(_Echo())
    yield "\ufeff" + writer.writerow([*_TITLES, *keys, _REST])
    rows = leads.using(settings.FLOTILLA_OWN_CONNECTION).order_by("pk").values_list(*_FIELDS)
    for name, phone, niches, status, triggers, notes, agreed, source, refused, custom in rows.iterator(_AT_ONCE):
        own = [custom.pop(key) if _is_plain(custom.get(key)) else "" for key in keys]
        cells = [
            name, phone, tags_cell(niches), status, tags_cell(triggers), notes, _moment(agreed), source,
            _moment(refused), *own, json.dumps(custom, ensure_ascii=False) if custom else "",
        ]  # fmt: skip
        yield writer.writerow(map(guarded, cells))


def problem_lines(lead_import: LeadImport) -> Iterator[str]:
    """The rows that were not taken: the problem first, then the row as it came, to be mended and handed in again.

    Columns come from every row, because rows with surplus cells carry more; that is one pass over keys, kept small by
    the number of columns and not of rows.
    """
    problems = LeadImportProblem.objects.using(settings.FLOTILLA_OWN_CONNECTION)
    problems = problems.filter(lead_import=lead_import.pk).order_by("row_number")
    columns = _columns(problems.values_list("values", flat=True).iterator(_AT_ONCE))
    writer = csv.writer(_Echo())
    yield "\ufeff" + writer.writerow([*PROBLEM_TITLES, *map(guarded, columns)])
    for problem in problems.iterator(_AT_ONCE):
        values: Mapping[str, Any] = problem.values if isinstance(problem.values, dict) else {}
        cells = [problem.message, problem.field, *(str(values.get(column, "")) for column in columns)]
        yield writer.writerow([problem.row_number, *map(guarded, cells)])


class _Echo:
    """A file for :mod:`csv` that hands each line back."""

    def write(self, line: str) -> str:
        return line


def _keys(leads: QuerySet[Lead]) -> list[str]:
    """The own fields that get a column: the commonest, in alphabetical order. One pass over the rows."""
    try:
        statement, values = leads.order_by().values("custom").query.sql_with_params()
    except EmptyResultSet:
        return []
    with connection.cursor() as cursor:
        cursor.execute(
            f"""SELECT key FROM ({statement}) lead, jsonb_object_keys(lead.custom) key
                GROUP BY key ORDER BY count(*) DESC, key LIMIT %s""",  # noqa: S608 - the queryset's own statement
            [*values, _OWN_MOST],
        )
        return sorted(key for (key,) in cursor.fetchall() if is_title(key))


def _is_plain(value: Any) -> bool:
    """Whether a cell brings ``value`` back as it is."""
    return (
        isinstance(value, str)
        and value != ""
        and value.strip() == value
        and "\n" not in value
        and "\r" not in value
        and not CONTROL.search(value)
    )


def _moment(moment: datetime | None) -> str:
    return moment.isoformat() if moment else ""


def _columns(rows: Iterator[Any]) -> Sequence[str]:
    """Every key that occurs, in order of appearance."""
    seen: dict[str, None] = {}
    for values in rows:
        if isinstance(values, dict):
            seen.update(dict.fromkeys(values))
    return list(seen)
