"""``manage.py backup FOLDER``: everything, sealed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import OperationalError

from config.backup.problems import BackupProblem
from config.backup.taking import take, write_keys


class Command(BaseCommand):
    help = "Write database and files, encrypted, into a new folder, while everything goes on. The keys stay outside."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("folder", type=Path, help="a folder that does not exist yet, as backups/2026-11-21")
        parser.add_argument(
            "--keys", type=Path, metavar="FILE", help="write down the keys as well, in a file that is kept elsewhere"
        )

    def handle(self, *_args: Any, folder: Path, keys: Path | None, **_options: Any) -> None:
        folder = folder.absolute()
        try:
            if keys is not None:
                write_keys(keys.absolute(), backup=folder)
            taken = take(folder=folder)
        except BackupProblem as problem:
            raise CommandError(str(problem)) from None
        except OperationalError:
            raise CommandError(
                "The database does not answer. On the local stack: make up, in another window."
            ) from None
        told = taken.manifest
        self.stdout.write(
            f"{folder}: {taken.size / 1e6:,.1f} MB, as of {told.taken_at:%Y-%m-%d %H:%M:%S} UTC."
            f" {told.counts['messages']:,} messages ({told.counts['waiting']:,} wait), {told.counts['leads']:,} leads,"
            f" {told.counts['devices']:,} devices, {told.media_files:,} files.\n"
            + (
                f"The keys are in {keys}: keep that file where this backup is not.\n"
                if keys
                else "Nothing opens it without FLOTILLA_FIELD_KEYS, and without FLOTILLA_SUPPRESSION_KEYS nobody knows"
                " who has opted out: keep a copy of both where this backup is not (--keys FILE writes one).\n"
            )
            + "Valkey needs no backup: what it holds are wake-up calls."
        )
