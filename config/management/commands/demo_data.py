"""``manage.py demo_data add|remove``: something to show, and gone again."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from django.utils import timezone

from config.demo_data.adding import DemoThere, add
from config.demo_data.removing import CannotRemove, remove


class Command(BaseCommand):
    """Adds an owner with everything that belongs to one, or takes it away without a trace."""

    help = "Add or remove a small set of demo data: an owner, devices of the simulator, leads, a campaign, a sequence."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Django's hook."""
        parser.add_argument("what", choices=("add", "remove"))
        parser.add_argument("--yes", action="store_true", help="do it on a production installation as well")

    def handle(self, *args: Any, **options: Any) -> None:  # noqa: ARG002 - Django's signature
        """Django's hook."""
        if settings.PRODUCTION and not options["yes"]:
            raise CommandError("This is a production installation: repeat with --yes if you mean it.")
        try:
            if options["what"] == "add":
                added = add(now=timezone.now())
                self.stdout.write(
                    f"Added {added.devices} devices, {added.leads} leads, {added.messages} messages and {added.replies}"
                    f" replies, all of them of the user “{added.owner}”, who cannot log in. Admins see them."
                )
                return
            gone = remove()
        except (DemoThere, CannotRemove) as problem:
            raise CommandError(str(problem)) from None
        self.stdout.write(f"Removed {gone:,} rows." if gone else "There is no demo data.")
