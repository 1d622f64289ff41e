"""``manage.py gateways``: what each gateway can do."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from devices.gateways import registry, table


class Command(BaseCommand):
    """Print the table that the drivers make."""

    help = "What each gateway carries, tells and does with our ids, and what a crash means for it."
    requires_system_checks = ()

    def add_arguments(self, parser: CommandParser) -> None:
        """``--markdown``: as it stands in the README."""
        parser.add_argument("--markdown", action="store_true", help="as a Markdown table, for the README")

    def handle(self, *_: Any, markdown: bool, **__: Any) -> None:
        """Print it."""
        drivers = registry.drivers()
        self.stdout.write(table.markdown(drivers) if markdown else table.plain(drivers))
