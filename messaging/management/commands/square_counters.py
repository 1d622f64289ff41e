"""``manage.py square_counters``: do the counters agree with the rows?"""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from messaging import squaring


class Command(BaseCommand):
    help = "Compare every stream's counters with its messages and put right what differs (--check: only tell, exit 1)."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--check", action="store_true", help="change nothing; fail if anything differs")

    def handle(self, *_args: Any, check: bool, **_options: Any) -> None:
        number = 0
        for difference in squaring.square_all(correct=not check):
            number += 1
            self.stdout.write(str(difference))
        if number and check:
            raise CommandError(f"The counters of {number:,} streams differ from their messages.")
        self.stdout.write(f"Put right: {number:,} streams." if number else "Every counter agrees with its messages.")
