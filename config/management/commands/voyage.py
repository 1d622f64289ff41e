"""``manage.py voyage``: the demo's campaign, against a stack that runs already."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from rich.console import Console

from config.demo.voyage import VoyageFailed, sail


class Command(BaseCommand):
    help = "Run the demo campaign against the running stack and hold it against the simulator's ledger."
    requires_system_checks = ()

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--leads", type=Path, required=True, help="CSV of leads")
        parser.add_argument("--devices", type=int, default=50, help="simulated devices")

    def handle(self, *_args: Any, leads: Path, devices: int, **_options: Any) -> None:
        try:
            verdict = sail(
                console=Console(highlight=False),
                source=leads,
                devices=devices,
                judge_url=os.environ["FLOTILLA_SIMULATOR_URL"],
                judge_token=os.environ["SIMULATOR_CONTROL_TOKEN"],
                web_url=os.environ.get("FLOTILLA_URL", ""),
            )
        except VoyageFailed as problem:
            raise CommandError(str(problem)) from None
        if not verdict.clean:
            sys.exit(1)
