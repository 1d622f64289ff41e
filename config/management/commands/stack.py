"""``manage.py stack``: the local stack (see :mod:`config.stack`)."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from config.stack import cli


class Command(BaseCommand):
    help = "Run the local stack: up, run -- COMMAND, status, stop, clean."
    requires_system_checks = ()

    def add_arguments(self, parser: CommandParser) -> None:
        cli.add_arguments(parser)

    def handle(self, *_args: Any, **options: Any) -> None:
        code = cli.run(argparse.Namespace(**options))
        if code:
            sys.exit(code)
