"""``manage.py backup FOLDER``: everything, sealed; once, or again and again with the last few kept."""

from __future__ import annotations

import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import structlog
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import OperationalError, connection
from django.utils import timezone

from config.backup.keeping import due_in, take_and_keep
from config.backup.problems import BackupProblem
from config.backup.taking import Taken, take, write_keys

log = structlog.get_logger(__name__)

AGAIN_SECONDS = 600.0
"""After one that failed, where nobody else calls it again."""


class Command(BaseCommand):
    help = "Write database and files, encrypted, into a new folder, while everything goes on. The keys stay outside."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("folder", type=Path, help="a folder that does not exist yet, as backups/2026-11-21")
        parser.add_argument(
            "--keys", type=Path, metavar="FILE", help="write down the keys as well, in a file that is kept elsewhere"
        )
        parser.add_argument(
            "--keep",
            type=int,
            metavar="N",
            help="make a folder of its own below FOLDER, named by the time, and keep the newest N of such",
        )
        parser.add_argument(
            "--every-hours",
            type=float,
            metavar="H",
            help="with --keep: go on for ever, and take one whenever the newest is that old",
        )

    def handle(
        self, *_args: Any, folder: Path, keys: Path | None, keep: int | None, every_hours: float | None, **_options: Any
    ) -> None:
        if keep is not None and keep < 1:
            raise CommandError(f"--keep must be 1 or more, not {keep}: how many backups are to be there.")
        if every_hours is not None and (keep is None or every_hours <= 0):
            raise CommandError("--every-hours takes a number above 0, and --keep beside it.")
        folder = folder.absolute()
        try:
            if keys is not None:
                write_keys(keys.absolute(), backup=folder)
        except BackupProblem as problem:
            raise CommandError(str(problem)) from None
        if every_hours is None:
            self._one(folder, keys=keys, keep=keep)
            return
        while True:
            self._when_due(folder, keys=keys, keep=keep, every=timedelta(hours=every_hours))

    def _when_due(self, folder: Path, *, keys: Path | None, keep: int | None, every: timedelta) -> None:
        wait = due_in(folder, every=every, now=timezone.now()).total_seconds()
        connection.close()  # none is held for a day
        time.sleep(wait)
        try:
            self._one(folder, keys=keys, keep=keep)
        except CommandError as problem:
            log.error("backup.failed", reason=str(problem))  # noqa: TRY400 - the reason is all there is to say
            time.sleep(AGAIN_SECONDS)

    def _one(self, folder: Path, *, keys: Path | None, keep: int | None) -> None:
        removed: list[Path] = []
        try:
            if keep is None:
                taken = take(folder=folder)
            else:
                taken, removed = take_and_keep(parent=folder, number=keep, now=timezone.now(), take=take)
        except BackupProblem as problem:
            raise CommandError(str(problem)) from None
        except OperationalError:
            raise CommandError(
                "The database does not answer. On the local stack: make up, in another window."
            ) from None
        self._tell(taken, keys=keys, removed=removed)

    def _tell(self, taken: Taken, *, keys: Path | None, removed: list[Path]) -> None:
        told = taken.manifest
        self.stdout.write(
            f"{taken.folder}: {taken.size / 1e6:,.1f} MB, as of {told.taken_at:%Y-%m-%d %H:%M:%S} UTC."
            f" {told.counts['messages']:,} messages ({told.counts['waiting']:,} wait), {told.counts['leads']:,} leads,"
            f" {told.counts['devices']:,} devices, {told.media_files:,} files.\n"
            + "".join(f"Removed: {path}\n" for path in removed)
            + (
                f"The keys are in {keys}: keep that file where this backup is not.\n"
                if keys
                else "Nothing opens it without FLOTILLA_FIELD_KEYS, and without FLOTILLA_SUPPRESSION_KEYS nobody knows"
                " who has opted out: keep a copy of both where this backup is not (--keys FILE writes one).\n"
            )
            + "Valkey needs no backup: what it holds are wake-up calls."
        )
        self.stdout.flush()
