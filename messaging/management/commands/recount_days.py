"""``manage.py recount_days``: the counts per day, once more from the messages."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.utils import timezone

from messaging import days as counting


class Command(BaseCommand):
    help = "Count what happened on the last days again from the messages. What was deleted since is not found."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--days", type=int, default=30, help="how many days, today included (30)")

    def handle(self, *_args: Any, days: int, **_options: Any) -> None:
        if days < 1:
            raise CommandError("--days must be 1 or more.")
        counting.recount(days=days, now=timezone.now())
        self.stdout.write(f"Counted again: {days} days.")
