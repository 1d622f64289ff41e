"""``manage.py doctor``: look at everything, name the remedy; exit code 1 if something is broken."""

from __future__ import annotations

import sys
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand

from config.doctor import examine

SIGNS = {"ok": "ok     ", "warning": "warning", "error": "ERROR  "}


class Command(BaseCommand):
    help = "Check clocks, servers, keys, workers, beat, gateways, webhooks and disk, and say what to do."
    requires_system_checks = ()

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--strict", action="store_true", help="exit code 1 for warnings too")
        parser.add_argument("--quiet", action="store_true", help="only what is not ok")

    def handle(self, *_args: Any, strict: bool, quiet: bool, **_options: Any) -> None:
        levels = set()
        for finding in examine():
            levels.add(finding.level)
            if quiet and finding.level == "ok":
                continue
            self.stdout.write(f"{SIGNS[finding.level]}  {finding.topic}: {finding.text}")
            if finding.remedy:
                self.stdout.write(f"           → {finding.remedy}")
            self.stdout.flush()
        if "error" in levels or (strict and "warning" in levels):
            sys.exit(1)
