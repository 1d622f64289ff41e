"""``manage.py simulator``: the gateway simulator, which otherwise knows nothing of Django."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from messaging.simulator import cli


class Command(BaseCommand):
    """Options are the simulator's own."""

    help = "Run the gateway simulator until stopped."
    requires_system_checks = []

    def add_arguments(self, parser: CommandParser) -> None:
        """The same as ``python -m messaging.simulator`` takes."""
        cli.add_arguments(parser)

    def handle(self, *args: Any, **options: Any) -> None:  # noqa: ARG002 - the signature is Django's
        """Run it, and exit with its status."""
        if status := cli.run(argparse.Namespace(**options)):
            sys.exit(status)
