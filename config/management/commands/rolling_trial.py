"""``manage.py rolling_trial``: replace worker by worker under load, by the same code or from an earlier release."""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser
from rich.console import Console
from rich.table import Table

from config.management.own_servers import on_own_servers, perform, refuse_other_servers
from config.stack.children import Children
from config.stack.interrupts import Interrupts
from config.stack.local import LocalStack
from config.stack.places import local_root
from config.trials.rolling import Outcome, Plan, Trial, check_out, latest_release
from config.trials.scene import Scene

STACK = "rolling"
LATEST = "latest"
LEASE_SECONDS = 30.0
SETTINGS = {
    "FLOTILLA_SIMULATED_SESSIONS": "1",
    "FLOTILLA_LEASE_SECONDS": f"{LEASE_SECONDS:g}",
    "FLOTILLA_SESSION_SHARDS": "8",
    "FLOTILLA_POOL_SIZE": "6",
}


class Command(BaseCommand):
    help = "Restart worker by worker under a paced campaign; with --previous, from the workers of an earlier release."
    requires_system_checks = ()

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--previous",
            nargs="?",
            const=LATEST,
            default="",
            metavar="COMMIT",
            help="begin with the workers of this commit, or of the last tag before the present code",
        )
        parser.add_argument("--devices", type=int, default=40, help="half of them have sessions (40)")
        parser.add_argument("--code", type=Path, help=argparse.SUPPRESS)
        parser.add_argument("--on-these-servers", action="store_true", help=argparse.SUPPRESS)

    def handle(
        self, *_args: Any, previous: str, devices: int, code: Path | None, on_these_servers: bool, **_options: Any
    ) -> None:
        if devices < 4:
            raise CommandError(f"--devices must be 4 or more, not {devices}.")
        if on_these_servers:
            perform(lambda interrupts: _perform(interrupts, devices=devices, code=code))
        else:
            perform(lambda interrupts: _on_own_servers(interrupts, devices=devices, previous=previous))


def _on_own_servers(interrupts: Interrupts, *, devices: int, previous: str) -> int:
    """Servers that may be emptied, migrated by the present code; the trial in a process of its own."""
    again = ["rolling_trial", "--on-these-servers", "--devices", str(devices)]
    with tempfile.TemporaryDirectory(prefix="flotilla-previous-") as folder:
        if previous:
            commit = latest_release() if previous == LATEST else previous
            again += ["--code", str(check_out(commit, folder=Path(folder)))]
        stack = LocalStack(local_root() / STACK, durable=False)
        return on_own_servers(stack, again, interrupts=interrupts, told=lambda _: SETTINGS)


def _perform(interrupts: Interrupts, *, devices: int, code: Path | None) -> int:
    """The trial, on servers whose data is ours to destroy; 1 when a promise was broken."""
    refuse_other_servers(STACK, option="--on-these-servers")
    console = Console(highlight=False, soft_wrap=True)
    children = Children()
    scene = Scene(
        root=settings.LOCAL_DIR,
        environment={**os.environ, "FLOTILLA_LOG_LEVEL": "INFO"},
        children=children,
        network=None,
        say=lambda text: console.print(text, markup=False),
        check=interrupts.check,
    )
    plan = Plan(devices=devices, gap_seconds=(2.0, 3.0), lease_seconds=LEASE_SECONDS, previous=code)
    try:
        outcome = Trial(scene, plan).perform()
    finally:
        interrupts.begin_ending()
        scene.end()
        children.close(hurried=interrupts.hurried)
    console.print(_table(outcome, plan))
    for finding in outcome.findings:
        console.print(f"broken: {finding}", markup=False)
    console.print(f"Logs: {settings.LOCAL_DIR / 'logs'}", markup=False)
    return 1 if outcome.findings else 0


def _table(outcome: Outcome, plan: Plan) -> Table:
    before = "the earlier release's workers, then both, then the present ones" if plan.previous else "the same code"
    table = Table(title=f"Workers replaced under load: {before}")
    table.add_column("while")
    table.add_column(f"longest pause of a device (its gap is at most {plan.gap_seconds[1]:g} s)")
    for what, pause in outcome.pauses.items():
        table.add_row(what, f"{pause:.1f} s")
    verdict = outcome.evidence.verdict
    table.caption = (
        f"{verdict.delivered:,} messages delivered, {len(verdict.lost)} lost, {len(verdict.duplicated)} twice, "
        f"{outcome.unknown} unknown, {len(verdict.out_of_order)} devices out of order, "
        f"{outcome.replaced} sessions with two holders, {len(outcome.findings)} promises broken"
    )
    return table
