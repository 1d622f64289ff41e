"""What may be asked of leads: take in a file, say how that went, and find or make one lead."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import islice
from pathlib import PurePath
from typing import IO, Any, BinaryIO, cast

import structlog
from django.contrib.auth.models import User
from django.core.files import File
from django.db import DataError, IntegrityError, InterfaceError, OperationalError, transaction
from django.db.models import Count, F, Min, Q
from django.utils import timezone

from devices.models import Device
from leads import consent, storing, suppression
from leads.cells import clean_tags
from leads.duplicates import united
from leads.imports import ImportRefused, LeadFileProblem, LeadRow, RowProblem, check_region, open_leads
from leads.models import ConsentEvent, Lead, LeadImport, LeadImportProblem, LeadStatus
from leads.phones import parse_phone
from leads.storing import ImportBusy

__all__ = [
    "ImportBusy", "ImportRefused", "ImportSummary", "Reason", "create_import", "idle_imports", "run_import", "summary",
    "upsert_lead",
]  # fmt: skip

log = structlog.get_logger(__name__)

CHUNK_ROWS = 5000
"""Rows per transaction: few enough to hold no lock for long, enough to make the statements' cost small."""
ATTEMPTS_MOST = 5
"""Starts without a single row more that went in, after which an import is given up: it takes its process down."""
_FRESH = timedelta(seconds=30)
_EXAMPLES = 3
_OPEN = (LeadImport.State.WAITING, LeadImport.State.RUNNING)

COUNTS_AT_START = {"rows_done": 0, "accepted": 0, "merged": 0, "skipped": 0, "rejected": 0}

Progress = Callable[[LeadImport], None]


# -- Imports -----------------------------------------------------------------------------------------------------------


def create_import(
    *,
    owner: User,
    file: IO[bytes] | File[Any],
    filename: str,
    region: str,
    consent_source: str,
    device: Device | None = None,
    duplicates: str = LeadImport.Duplicates.MERGE,
    mapping: Sequence[str] = (),
    dry_run: bool = False,
    draft: bool = False,
) -> LeadImport:
    """Store the file and note what to do with it; :func:`run_import` does it, for a ``draft`` after
    :func:`leads.drafts.confirm`.

    The file's content is judged when it is read. Raises :class:`~leads.imports.ImportRefused` for a region that does
    not exist or somebody else's device.
    """
    code = check_region(region)
    if device is not None and device.owner_id != owner.pk:
        raise ImportRefused("device_of_another", "This device belongs to somebody else.", "device")
    name = PurePath(filename.replace("\\", "/")).name or "leads.csv"
    content = file if isinstance(file, File) else File(file)
    content.seek(0)
    lead_import = LeadImport(
        owner=owner, filename=name[-255:], region=code, consent_source=consent_source.strip()[:200], device=device,
        duplicates=LeadImport.Duplicates(duplicates), mapping=list(mapping), dry_run=dry_run,
        state=LeadImport.State.DRAFT if draft else LeadImport.State.WAITING,
    )  # fmt: skip
    lead_import.file.save(name[-60:], content, save=False)
    lead_import.save()
    return lead_import


def run_import(
    *, import_id: int, on_progress: Progress | None = None, chunk_rows: int = CHUNK_ROWS, at_once: int | None = None
) -> LeadImport:
    """Take the import's file in from where it stands, chunk by chunk, and return the import at its end.

    A chunk's leads, problems, counts and cursor commit together: killed anywhere, the import goes on with the first
    row that is not in yet. ``on_progress`` is called after each chunk; with ``at_once`` no more imports than that run
    in the fleet. A file that cannot be read ends as FAILED with the reason, and so does one whose process died too
    often at the same row. Raises :class:`ImportBusy` when somebody else works on it, and database errors, after which
    it can be resumed.
    """
    with storing.working_on(import_id=import_id, at_once=at_once):
        started = LeadImport.objects.filter(pk=import_id, state__in=_OPEN).update(attempts=F("attempts") + 1)
        lead_import = LeadImport.objects.select_related("owner").get(pk=import_id)
        if not started:
            return lead_import
        if lead_import.attempts > ATTEMPTS_MOST:
            return _end(lead_import, error=_given_up(lead_import))
        try:
            return _read(lead_import, on_progress, chunk_rows)
        except (LeadFileProblem, ImportRefused) as problem:
            return _end(lead_import, error=problem.text)
        except FileNotFoundError:
            return _end(lead_import, error="The uploaded file is gone: upload it again.")
        except (ImportBusy, LeadImport.DoesNotExist, OperationalError, InterfaceError):
            raise
        except Exception:
            # Tried again it would fail again, every half minute.
            log.exception("import.broken", import_id=import_id)
            _end(lead_import, error="The import stopped on an error inside Flotilla: the server's log says which.")
            raise


def _given_up(lead_import: LeadImport) -> str:
    return (
        f"The import was started {ATTEMPTS_MOST} times after {lead_import.rows_done:,} rows, and each time its process"
        " ended before any more went in: look at the rows that follow and at the workers' log, then upload the rest."
    )


def _read(lead_import: LeadImport, on_progress: Progress | None, chunk_rows: int) -> LeadImport:
    if not lead_import.file:
        raise FileNotFoundError
    with lead_import.file.open("rb") as file:
        leads = open_leads(cast("BinaryIO", file), mapping=lead_import.mapping)
        total = lead_import.rows_total or leads.count()
        LeadImport.objects.filter(pk=lead_import.pk, state__in=_OPEN).update(
            state=LeadImport.State.RUNNING, rows_total=total
        )
        done = _begin_counting(lead_import) if lead_import.dry_run else lead_import.rows_done
        for chunk in _chunks(leads.rows(region=lead_import.region, skip=done), chunk_rows):
            lead_import = _take(lead_import.pk, chunk, expected_done=done, now=timezone.now())
            done = lead_import.rows_done
            if on_progress:
                on_progress(lead_import)
    # of a workbook the total was an estimate
    LeadImport.objects.filter(pk=lead_import.pk, state=LeadImport.State.RUNNING).update(rows_total=F("rows_done"))
    return _end(lead_import)


def _begin_counting(lead_import: LeadImport) -> int:
    """A dry run knows the phones it has met only as long as its process lives: each one begins with the first row."""
    storing.begin_counting()
    with transaction.atomic():
        LeadImportProblem.objects.filter(lead_import=lead_import).delete()
        LeadImport.objects.filter(pk=lead_import.pk).update(**COUNTS_AT_START)
    return 0


def _chunks(rows: Iterator[LeadRow | RowProblem], size: int) -> Iterator[list[LeadRow | RowProblem]]:
    while chunk := list(islice(rows, size)):
        yield chunk


def _take(import_id: int, chunk: Sequence[LeadRow | RowProblem], *, expected_done: int, now: datetime) -> LeadImport:
    """One chunk, in one transaction. The cursor is the fence: whoever finds it moved has lost the import.

    A row that PostgreSQL refuses although it looked right must not cost the others: the chunk is halved until that row
    is alone, and becomes a problem. Each part is a chunk of its own then.
    """
    try:
        with transaction.atomic():
            return _store(import_id, chunk, expected_done=expected_done, now=now)
    except (DataError, IntegrityError) as refusal:
        log.warning("import.refused", import_id=import_id, rows=len(chunk), kind=type(refusal).__name__)
        if len(chunk) > 1:
            half = len(chunk) // 2
            first = _take(import_id, chunk[:half], expected_done=expected_done, now=now)
            return _take(import_id, chunk[half:], expected_done=first.rows_done, now=now)
        row = chunk[0]
        if isinstance(row, RowProblem):
            raise
    return _take(import_id, [_unstorable(row)], expected_done=expected_done, now=now)


def _unstorable(row: LeadRow) -> RowProblem:
    return RowProblem(
        row.row_number, "", "not_storable", "The database does not take this row: look for unusual characters in it.",
        {"name": row.name, "phone": row.phone},
    )  # fmt: skip


def _store(import_id: int, chunk: Sequence[LeadRow | RowProblem], *, expected_done: int, now: datetime) -> LeadImport:
    """A chunk's leads, problems, counts and cursor. Call it in a transaction. Raises ImportBusy."""
    problems = [row for row in chunk if isinstance(row, RowProblem)]
    people = [row for row in chunk if isinstance(row, LeadRow)]
    lead_import = LeadImport.objects.select_for_update(no_key=True).get(pk=import_id)
    if lead_import.state != LeadImport.State.RUNNING or lead_import.rows_done != expected_done:
        raise ImportBusy(f"import {import_id} was moved on by another process")
    rows = united(people, policy=lead_import.duplicates)
    if lead_import.dry_run:
        fresh = storing.count_rows(owner_id=lead_import.owner_id, rows=rows)
    else:
        fresh = _merge(lead_import, rows, now=now)
    storing.store_problems(import_id=import_id, problems=problems)
    known = len(people) - fresh
    skips = lead_import.duplicates == LeadImport.Duplicates.SKIP
    lead_import.rows_done += len(chunk)
    lead_import.accepted += fresh
    lead_import.merged += 0 if skips else known
    lead_import.skipped += known if skips else 0
    lead_import.rejected += len(problems)
    if not lead_import.dry_run:  # which begins again with the first row, so that this is no progress
        lead_import.attempts = 0
    lead_import.save(update_fields=["rows_done", "accepted", "merged", "skipped", "rejected", "attempts"])
    return lead_import


def _merge(lead_import: LeadImport, rows: Sequence[LeadRow], *, now: datetime) -> int:
    """Rows of a file into its owner's leads; returns how many leads are new."""
    consent_at = now if lead_import.consent_source else None
    duplicates = LeadImport.Duplicates(lead_import.duplicates)
    with _taking(
        owner_id=lead_import.owner_id,
        phones=[row.phone for row in rows],
        agreements=consent.agreements_in(rows, source=lead_import.consent_source, now=now),
        channel=ConsentEvent.Channel.IMPORT,
        now=now,
        replaces=duplicates == LeadImport.Duplicates.OVERWRITE,
    ):
        return storing.merge_rows(
            owner_id=lead_import.owner_id,
            rows=rows,
            device_id=storing.hold_device(lead_import.device_id),
            consent_at=consent_at,
            consent_source=lead_import.consent_source,
            now=now,
            duplicates=duplicates,
            source=storing.Source(
                import_id=lead_import.pk, note=lead_import.filename[:300], by_id=lead_import.owner_id
            ),
        )


@contextmanager
def _taking(
    *,
    owner_id: int,
    phones: Sequence[str],
    agreements: Sequence[consent.Agreement],
    channel: ConsentEvent.Channel,
    now: datetime,
    by: User | None = None,
    replaces: bool = False,
) -> Iterator[None]:
    """Merge leads inside: those whose number is suppressed come out opted out, and no consent is forgotten."""
    with suppression.admitting(owner_id=owner_id, phones=phones, now=now):
        consent.note_again(owner_id=owner_id, agreements=agreements, channel=channel, now=now, by=by, replaces=replaces)
        yield


def _end(lead_import: LeadImport, *, error: str = "") -> LeadImport:
    """Finished, or failed with a reason; returns the row as it then is."""
    state = LeadImport.State.FAILED if error else LeadImport.State.FINISHED
    LeadImport.objects.filter(pk=lead_import.pk).filter(state__in=_OPEN).update(
        state=state, error=error, finished_at=timezone.now()
    )
    lead_import.refresh_from_db()
    log.info(
        "import.ended", import_id=lead_import.pk, state=lead_import.state, accepted=lead_import.accepted,
        merged=lead_import.merged, skipped=lead_import.skipped, rejected=lead_import.rejected,
        dry_run=lead_import.dry_run,
    )  # fmt: skip
    return lead_import


def idle_imports(*, now: datetime) -> list[int]:
    """Imports that wait or were interrupted and that nobody works on, oldest first. Brand-new ones are on their way."""
    unfinished = LeadImport.objects.filter(
        Q(state=LeadImport.State.RUNNING) | Q(state=LeadImport.State.WAITING, created_at__lt=now - _FRESH)
    )
    busy = storing.worked_on()
    return [pk for pk in unfinished.order_by("pk").values_list("pk", flat=True)[:100] if pk not in busy]


# -- How it went -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Reason:
    """Why rows were rejected: how many, and the first of them as (row number, message)."""

    code: str
    count: int
    examples: tuple[tuple[int, str], ...]


@dataclass(frozen=True, slots=True)
class ImportSummary:
    """``accepted`` are new leads, ``merged`` rows went into leads that were there, ``skipped`` ones left those alone,
    ``rejected`` were not taken."""

    state: str
    error: str
    rows_total: int
    rows_done: int
    accepted: int
    merged: int
    skipped: int
    rejected: int
    reasons: tuple[Reason, ...]


def summary(lead_import: LeadImport) -> ImportSummary:
    """How an import went so far; reasons by frequency."""
    problems = LeadImportProblem.objects.filter(lead_import=lead_import)
    grouped = problems.values("code").annotate(number=Count("pk"), first=Min("row_number")).order_by("-number", "first")
    return ImportSummary(
        state=lead_import.state,
        error=lead_import.error,
        rows_total=lead_import.rows_total or 0,
        rows_done=lead_import.rows_done,
        accepted=lead_import.accepted,
        merged=lead_import.merged,
        skipped=lead_import.skipped,
        rejected=lead_import.rejected,
        reasons=tuple(
            Reason(
                code=group["code"],
                count=group["number"],
                examples=tuple(
                    problems.filter(code=group["code"])
                    .order_by("row_number")
                    .values_list("row_number", "message")[:_EXAMPLES]
                ),
            )
            for group in grouped
        ),
    )


# -- One lead ----------------------------------------------------------------------------------------------------------


def upsert_lead(
    *,
    owner: User,
    phone: str,
    region: str,
    name: str = "",
    status: str = "",
    niches: Sequence[str] = (),
    triggers: Sequence[str] = (),
    notes: str = "",
    custom: Mapping[str, Any] | None = None,
    device: Device | None = None,
    consent_at: datetime | None = None,
    consent_source: str = "",
    time_zone: str = "",
) -> tuple[Lead, bool]:
    """The owner's lead with this phone, made or merged by the rules of :mod:`leads.storing`; and whether it is new.

    Safe to call at once from anywhere. A consent source without a time counts from now. Raises
    :class:`~leads.phones.PhoneProblem`, and ``ValueError`` for a status that does not exist.
    """
    if status and status not in LeadStatus.values:
        raise ValueError(f"“{status}” is no status of a lead")
    now = timezone.now()
    row = LeadRow(
        row_number=1,
        phone=parse_phone(phone, region=region),
        name=" ".join(name.split()),
        status=status,
        niches=clean_tags(tuple(niches)),
        triggers=clean_tags(tuple(triggers)),
        notes=notes,
        custom=custom or {},
    )
    agreed_at = consent_at or (now if consent_source else None)
    with _taking(
        owner_id=owner.pk,
        phones=[row.phone],
        agreements=[consent.Agreement(row.phone, agreed_at, consent_source)] if agreed_at else [],
        channel=ConsentEvent.Channel.API,
        now=now,
        by=owner,
    ):
        created = storing.merge_one(
            owner_id=owner.pk,
            row=row,
            device_id=device.pk if device else None,
            consent_at=agreed_at,
            consent_source=consent_source,
            now=now,
        )
        if time_zone:
            Lead.objects.filter(owner=owner, phone=row.phone, time_zone="").update(time_zone=time_zone)
    return Lead.objects.get(owner=owner, phone=row.phone), created
