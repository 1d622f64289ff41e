"""``manage.py halt``: STOP ALL."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandParser
from django.utils import timezone

from messaging import halting


class Command(BaseCommand):
    help = "STOP ALL: no message is released or claimed any more, until manage.py resume. Survives restarts."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--reason", default="", help="kept with the halt, for whoever wants to resume")

    def handle(self, *_args: Any, reason: str, **_options: Any) -> None:
        halt = halting.halt(now=timezone.now(), reason=reason)
        waiting = halting.backlog()
        self.stdout.write(
            f"Halted since {halt.started_at:%Y-%m-%d %H:%M:%S} UTC. {waiting.messages:,} messages of "
            f"{waiting.batches:,} batches wait on {waiting.devices:,} devices; go on with: manage.py resume"
        )
