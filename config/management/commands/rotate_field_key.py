"""``manage.py rotate_field_key``: encrypt everything by the newest field key, so that the older ones can go."""

from __future__ import annotations

from typing import Any

import structlog
from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser

from devices import rekeying

log = structlog.get_logger(__name__)


class Command(BaseCommand):
    """May be stopped and run again at any time, beside everything that runs."""

    help = (
        "Encrypt stored credentials, secrets and authenticator seeds by the first of FLOTILLA_FIELD_KEYS. Before: put "
        "the new key in front of the old and restart everything. After: the old key may go from there, but keep it for "
        "as long as you keep backups that were made with it."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        """Django's hook."""
        parser.add_argument("--dry-run", action="store_true", help="only say what would be encrypted anew")
        parser.add_argument("--batch", type=int, default=rekeying.BATCH, help="rows to read at a time (%(default)s)")

    def handle(self, *_args: Any, dry_run: bool, batch: int, **_options: Any) -> None:
        """Django's hook."""
        if batch < 1:
            raise CommandError("--batch: give a number of rows, 1 or more.")
        found = []
        for column in rekeying.rekey(dry_run=dry_run, batch=batch):
            found.append(column)
            self.stdout.write(_words(column, dry_run=dry_run))
        unreadable, changed = sum(each.unreadable for each in found), sum(each.changed for each in found)
        log.info("field_key.rotated", rows=sum(each.renewed for each in found), unreadable=unreadable, dry_run=dry_run)
        if unreadable:
            raise CommandError(
                f"{unreadable:,} rows fit none of the {len(settings.FIELD_KEYS)} keys and were left as they are. Put "
                "the key they were written with behind the newest in FLOTILLA_FIELD_KEYS and run this again; or enter "
                "these credentials anew."
            )
        if changed:
            raise CommandError(f"{changed:,} rows were changed meanwhile: run this again.")
        self.stdout.write("Nothing was written." if dry_run else "All are by the newest key: the older ones may go.")


def _words(column: rekeying.Rekeyed, *, dry_run: bool) -> str:
    verb = "to encrypt anew" if dry_run else "encrypted anew"
    more = f", {column.unreadable:,} unreadable" if column.unreadable else ""
    more += f", {column.changed:,} changed meanwhile" if column.changed else ""
    return f"{column.place}: {column.renewed:,} {verb}, {column.current:,} by the newest key{more}"
