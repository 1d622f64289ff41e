"""``manage.py lint_migrations``: may new migrations run while everything goes on?"""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import OperationalError

from config.migration_lint import LintProblem, findings


class Command(BaseCommand):
    help = "Read the SQL of new migrations for long locks and for what breaks the version before; exit 1 on any."

    def handle(self, *_args: Any, **_options: Any) -> None:
        try:
            found = findings()
        except LintProblem as problem:
            raise CommandError(str(problem)) from None
        except OperationalError:
            raise CommandError("The database does not answer: python -m config.stack run -- …") from None
        for finding in found:
            self.stdout.write(str(finding))
        if found:
            raise CommandError(f"{len(found)} findings. deploy/UPGRADE.md says how each is done safely.")
        self.stdout.write("New migrations may run while everything goes on.")
