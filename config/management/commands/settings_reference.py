"""``manage.py settings_reference``: what the environment may say."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from config.environment import ReferenceProblem, load, markdown


class Command(BaseCommand):
    help = "List the variables of the environment; --markdown prints deploy/ENVIRONMENT.md."
    requires_system_checks = ()

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--markdown", action="store_true", help="the whole of deploy/ENVIRONMENT.md")

    def handle(self, *_args: Any, **options: Any) -> None:
        try:
            known, legacy = load()
        except ReferenceProblem as problem:
            raise CommandError(str(problem)) from None
        if options["markdown"]:
            self.stdout.write(markdown(known=known, legacy=legacy), ending="")
            return
        for variable in known:
            self.stdout.write(f"{variable.name}={variable.default}  # {variable.meaning}")
