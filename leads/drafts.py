"""From an uploaded file to an import that runs: what each column and row would become, and the owner's word to go."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO, cast

from django.db import transaction
from django.db.models import Q

from leads.columns import checked
from leads.imports import ColumnSeen, ImportRefused, LeadFileProblem, LeadRow, RowProblem, check_region, look_at
from leads.models import Lead, LeadImport, LeadImportProblem
from leads.services import COUNTS_AT_START

ROWS_SHOWN = 20
_KNOWN = {"merge": "merged", "skip": "skipped", "overwrite": "overwritten"}


@dataclass(frozen=True, slots=True)
class RowSeen:
    """One of the first rows and what it would become: ``new``, ``merged``, ``skipped``, ``overwritten`` or
    ``rejected`` with the reason in ``message``."""

    row_number: int
    outcome: str
    phone: str
    name: str
    message: str
    values: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Preview:
    """``problem`` says why the file has no leads as long as its columns are taken for what ``columns`` say."""

    columns: tuple[ColumnSeen, ...]
    rows: tuple[RowSeen, ...]
    problem: str


def preview(
    lead_import: LeadImport, *, mapping: Sequence[str] | None = None, region: str = "", duplicates: str = ""
) -> Preview:
    """The file's columns and first rows, by the import's own settings where none are given. Writes nothing.

    Raises :class:`~leads.imports.LeadFileProblem` for a file that is no table, and
    :class:`~leads.imports.ImportRefused` for a mapping or a region that cannot be.
    """
    entries = lead_import.mapping if mapping is None else list(mapping)
    country = check_region(region) if region else lead_import.region
    if not lead_import.file:
        raise _gone()
    try:
        with lead_import.file.open("rb") as file:
            columns, leads = look_at(cast("BinaryIO", file), mapping=entries)
            if isinstance(leads, LeadFileProblem):
                return Preview(tuple(columns), (), leads.text)
            rows = leads.first(ROWS_SHOWN, region=country)
    except FileNotFoundError:
        raise _gone() from None
    known = set(
        Lead.objects.filter(
            owner_id=lead_import.owner_id, phone__in=[row.phone for row, _ in rows if isinstance(row, LeadRow)]
        ).values_list("phone", flat=True)
    )
    return Preview(tuple(columns), tuple(_seen(rows, known, duplicates or lead_import.duplicates)), "")


def _seen(
    rows: Sequence[tuple[LeadRow | RowProblem, Mapping[str, str]]], known: set[str], policy: str
) -> list[RowSeen]:
    found = []
    for row, cells in rows:
        if isinstance(row, RowProblem):
            found.append(RowSeen(row.row_number, "rejected", "", "", row.message, cells))
        else:
            outcome = _KNOWN[policy] if row.phone in known else "new"
            found.append(RowSeen(row.row_number, outcome, row.phone, row.name, "", cells))
            known.add(row.phone)
    return found


def confirm(*, lead_import: LeadImport, dry_run: bool = False, **changes: Any) -> LeadImport:
    """Let a draft, or a file that a dry run has looked at, be imported; ``changes`` are its settings by name: mapping,
    region, consent_source, device, duplicates.

    One conditional update: whoever comes second is refused. Raises :class:`~leads.imports.ImportRefused`, also for a
    mapping that does not fit the file, and :class:`~leads.imports.LeadFileProblem`.
    """
    if "region" in changes:
        changes["region"] = check_region(changes["region"])
    device = changes.get("device")
    if device is not None and device.owner_id != lead_import.owner_id:
        raise ImportRefused("device_of_another", "This device belongs to somebody else.", "device")
    mapping = changes.get("mapping", lead_import.mapping)
    seen = preview(lead_import, mapping=mapping)
    if seen.problem:
        raise ImportRefused("mapping_invalid", seen.problem, "mapping")
    # What was agreed to is kept: were a title understood differently one day, the file would still be read like this.
    changes["mapping"] = checked(mapping or [column.field for column in seen.columns], [c.title for c in seen.columns])
    with transaction.atomic():
        moved = (
            LeadImport.objects.filter(pk=lead_import.pk)
            .filter(Q(state=LeadImport.State.DRAFT) | Q(state=LeadImport.State.FINISHED, dry_run=True))
            .exclude(file="")
            .update(
                state=LeadImport.State.WAITING, dry_run=dry_run, rows_total=None, finished_at=None, attempts=0,
                **COUNTS_AT_START, **changes,
            )
        )  # fmt: skip
        if not moved:
            raise ImportRefused(
                "import_not_a_draft", "This file is being imported, or was: upload it again to import it again.", ""
            )
        LeadImportProblem.objects.filter(lead_import=lead_import).delete()
    lead_import.refresh_from_db()
    return lead_import


def may_confirm(lead_import: LeadImport) -> bool:
    """Whether :func:`confirm` would take it."""
    looked_at = lead_import.state == LeadImport.State.FINISHED and lead_import.dry_run
    return bool(lead_import.file) and (lead_import.state == LeadImport.State.DRAFT or looked_at)


def _gone() -> LeadFileProblem:
    return LeadFileProblem("file_gone", "The uploaded file is gone: upload it again.")
