"""Backups on a schedule: a folder for each below one folder, when the next is due, and which of the old ones go."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import structlog

from config.backup.manifest import read
from config.backup.problems import BackupProblem
from config.backup.taking import Taken

log = structlog.get_logger(__name__)

_NAME: Final = re.compile(r"flotilla-\d{4}-\d{2}-\d{2}T\d{6}Z")
_UNFINISHED: Final = re.compile(r"\.flotilla-\d{4}-\d{2}-\d{2}T\d{6}Z\..+")
_ABANDONED_AFTER: Final = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Kept:
    """A whole backup, and of which moment it is."""

    folder: Path
    taken_at: datetime


def kept(parent: Path) -> list[Kept]:
    """The backups below ``parent`` that were made for keeping, the newest first. Others are nobody's to remove."""
    found = []
    for folder in parent.iterdir() if parent.is_dir() else ():
        if _NAME.fullmatch(folder.name) and folder.is_dir() and not folder.is_symlink():
            try:
                found.append(Kept(folder, read(folder).taken_at))
            except BackupProblem as problem:
                log.warning("backup.unreadable", folder=str(folder), reason=str(problem))
    return sorted(found, key=lambda each: each.taken_at, reverse=True)


def due_in(parent: Path, *, every: timedelta, now: datetime) -> timedelta:
    """How long until the next; nothing where there is none yet."""
    newest = next(iter(kept(parent)), None)
    return max(newest.taken_at + every - now, timedelta()) if newest else timedelta()


def take_and_keep(*, parent: Path, number: int, now: datetime, take: Callable[..., Taken]) -> tuple[Taken, list[Path]]:
    """Take one more, and only then remove what is more than ``number``; what was taken, and what was removed.

    Raises :class:`BackupProblem`; nothing is removed then.
    """
    taken = take(folder=parent / f"flotilla-{now.astimezone(UTC):%Y-%m-%dT%H%M%SZ}")
    removed = [each.folder for each in kept(parent)[number:]]
    removed += [path for path in parent.iterdir() if _UNFINISHED.fullmatch(path.name) and _abandoned(path, now)]
    for folder in removed:
        shutil.rmtree(folder, ignore_errors=True)
        log.info("backup.removed", folder=str(folder))
    return taken, removed


def _abandoned(path: Path, now: datetime) -> bool:
    """Whether whoever wrote it was killed long ago."""
    try:
        return datetime.fromtimestamp(path.stat().st_mtime, UTC) < now - _ABANDONED_AFTER
    except FileNotFoundError:
        return False
