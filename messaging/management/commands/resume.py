"""``manage.py resume``: go on after a halt."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.utils import timezone

from messaging import halting


class Command(BaseCommand):
    help = "End a halt. Says how many messages will start to move, and asks first (--yes: does not ask)."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--yes", action="store_true", help="do not ask")

    def handle(self, *_args: Any, yes: bool, **_options: Any) -> None:
        halt = halting.current()
        if halt is None:
            raise CommandError("Nothing is halted.")
        waiting = halting.backlog()
        self.stdout.write(
            f"Halted since {halt.started_at:%Y-%m-%d %H:%M:%S} UTC{f' ({halt.reason})' if halt.reason else ''}. "
            f"{waiting.messages:,} messages of {waiting.batches:,} batches will start to move on "
            f"{waiting.devices:,} devices."
        )
        if not yes and input("Go on? [y/N] ").strip().lower() not in {"y", "yes"}:
            raise CommandError("Still halted.")
        halting.resume(now=timezone.now())
        self.stdout.write("Resumed.")
