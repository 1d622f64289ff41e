"""``manage.py serve ROLE``: become one program of an installation; whoever supervises it sees that program itself."""

from __future__ import annotations

import os
import shlex
from argparse import ArgumentParser
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from config.serving import ROLES, ServingProblem, serving


class Command(BaseCommand):
    help = "Become the web application, a worker, beat or Flower, as the environment says (deploy/ENVIRONMENT.md)."
    requires_system_checks = ()

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("role", choices=ROLES)
        parser.add_argument("--print", action="store_true", dest="only_print", help="say what would be started")

    def handle(self, *_args: Any, role: str, only_print: bool, **_options: Any) -> None:
        try:
            found = serving(
                role=role,
                environment=os.environ,
                shards=settings.FLOTILLA_SHARDS,
                state_dir=str(settings.LOCAL_DIR),
            )
        except ServingProblem as problem:
            raise CommandError(str(problem)) from None
        if only_print:
            self.stdout.write(shlex.join(found.argv))
            return
        self.stdout.flush()
        os.execve(found.argv[0], found.argv, {**os.environ, **found.env})  # noqa: S606 - no shell, our own words
