"""Uploaded files go once nobody needs them: they hold names and numbers of people."""

from __future__ import annotations

from datetime import datetime, timedelta

import structlog
from django.core.files.storage import default_storage
from django.db import transaction
from django.db.models import Q

from leads.models import LeadImport

log = structlog.get_logger(__name__)

FOLDER = "imports"
_ENDED = (LeadImport.State.FINISHED, LeadImport.State.FAILED)
_UNWANTED = Q(file_unwanted_at__isnull=False)
_MANY = 200
_ORPHAN_AFTER = timedelta(days=1)
"""A file is stored before its row is committed; after a day no row will come any more."""


def remove_old(*, now: datetime, keep_days: float) -> int:
    """Remove files of imports that ended, and of drafts that were made, more than ``keep_days`` ago or that are
    unwanted, and files that no import knows. Such a draft ends as failed. Returns how many were removed."""
    before = now - timedelta(days=keep_days)
    ended = Q(state__in=_ENDED) & (Q(finished_at__lt=before) | _UNWANTED)
    forgotten = Q(state=LeadImport.State.DRAFT) & (Q(created_at__lt=before) | _UNWANTED)
    removed = _remove(ended | forgotten, now=now) + _remove_orphans(
        before=now - max(timedelta(days=keep_days), _ORPHAN_AFTER)
    )
    if removed:
        log.info("import.files_removed", files=removed)
    return removed


def remove_unwanted(*, owner_id: int, now: datetime) -> tuple[int, int]:
    """Remove the owner's unwanted files that nothing reads; how many, and how many go when their import has ended."""
    mine = Q(owner_id=owner_id) & _UNWANTED
    removed = _remove(mine & Q(state__in=[*_ENDED, LeadImport.State.DRAFT]), now=now)
    return removed, LeadImport.objects.filter(mine).exclude(file="").count()


def _remove(condition: Q, *, now: datetime) -> int:
    """Remove the files of imports for which ``condition`` holds, a good many at a time."""
    removed = 0
    for pk in LeadImport.objects.exclude(file="").filter(condition).values_list("pk", flat=True)[:_MANY]:
        with transaction.atomic():
            # Locked and asked again: somebody may just have said that the file is to be imported after all.
            locked = LeadImport.objects.select_for_update(no_key=True)
            lead_import = locked.exclude(file="").filter(condition, pk=pk).first()
            if lead_import is None:
                continue
            # First the file: a crash in between leaves a row whose file is missing, and the next call repeats it.
            lead_import.file.delete(save=False)
            changes = {}
            if lead_import.state == LeadImport.State.DRAFT:
                why = "It was never confirmed" if lead_import.file_unwanted_at is None else "Somebody was erased"
                changes = {
                    "state": LeadImport.State.FAILED,
                    "finished_at": now,
                    "error": f"{why}, and the file was removed: upload it again.",
                }
            LeadImport.objects.filter(pk=pk).update(file="", **changes)
            removed += 1
    return removed


def _remove_orphans(*, before: datetime) -> int:
    """Files below the imports' folder (year, month) that no row names."""
    removed = 0
    for folder in _folders(f"{FOLDER}/", depth=2):
        names = [f"{folder}{name}" for name in default_storage.listdir(folder)[1]]
        for start in range(0, len(names), _MANY):
            part = names[start : start + _MANY]
            known = set(LeadImport.objects.filter(file__in=part).values_list("file", flat=True))
            for name in part:
                if name not in known and default_storage.get_modified_time(name) < before:
                    default_storage.delete(name)
                    removed += 1
    return removed


def _folders(folder: str, *, depth: int) -> list[str]:
    try:
        inside = [f"{folder}{name}/" for name in default_storage.listdir(folder)[0]]
    except FileNotFoundError:
        return []
    return inside if depth == 1 else [below for each in inside for below in _folders(each, depth=depth - 1)]
