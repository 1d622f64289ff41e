"""``manage.py hosts_trial``: several hosts on this machine, cut off, killed and added while a campaign runs."""

from __future__ import annotations

import argparse
import os
import secrets
from collections.abc import Callable, Mapping
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
from config.stack.postgres import DATABASE, PORT, USER
from config.trials.hosts import HARMS, Outcome, Trial, make_plan
from config.trials.network import Network, address, enter_new_network, missing
from config.trials.scene import VALKEY_PORT, Scene

STACK = "hosts"
REMOTE_DATABASE = "FLOTILLA_TRIAL_DATABASE_URL"


class Command(BaseCommand):
    help = "Three hosts in network namespaces: cut off, kill and add some under load; exit 1 when a promise is broken."
    requires_system_checks = ()

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--only", nargs="+", choices=list(HARMS), default=list(HARMS), help="do these, in this order"
        )
        parser.add_argument("--devices", type=int, default=48, help="half of them have sessions (48)")
        parser.add_argument("--quick", action="store_true", help="with shorter leases than installations have")
        parser.add_argument("--on-this-hub", action="store_true", help=argparse.SUPPRESS)

    def handle(
        self, *_args: Any, only: list[str], devices: int, quick: bool, on_this_hub: bool, **_options: Any
    ) -> None:
        if devices < 4:
            raise CommandError(f"--devices must be 4 or more, not {devices}.")
        work = _perform if on_this_hub else _on_own_network
        perform(lambda interrupts: work(interrupts, only=only, devices=devices, quick=quick))


def _on_own_network(interrupts: Interrupts, *, only: list[str], devices: int, quick: bool) -> int:
    """Make the network with PostgreSQL in its middle, and run the trial there in a process of its own."""
    if without := missing():
        raise CommandError(f"Several hosts cannot be made here: {without}.")
    plan = make_plan(harms=only, devices=devices, quick=quick)
    enter_new_network()
    again = ["hosts_trial", "--on-this-hub", "--devices", str(devices), "--only", *only]
    again += ["--quick"] if quick else []
    password = secrets.token_urlsafe(24)

    def told(own: Mapping[str, str]) -> Mapping[str, str]:
        return {
            **plan.settings(),
            "REDIS_URL": f"redis://:{password}@{address(2)}:{VALKEY_PORT}/0",
            REMOTE_DATABASE: _remote(own["DATABASE_URL"]),
        }

    stack = LocalStack(local_root() / STACK, durable=False, listen=address(1))
    return on_own_servers(stack, again, interrupts=interrupts, told=told)


def _remote(database_url: str) -> str:
    """The stack's address as other hosts reach it."""
    password = database_url.partition("://")[2].partition("@")[0].partition(":")[2]
    return f"postgresql://{USER}:{password}@{address(1)}:{PORT}/{DATABASE}"


def _perform(interrupts: Interrupts, *, only: list[str], devices: int, quick: bool) -> int:
    """The trial, on servers whose data is ours to destroy; 1 when a promise was broken."""
    refuse_other_servers(STACK, option="--on-this-hub")
    console = Console(highlight=False, soft_wrap=True)
    children = Children()
    say: Callable[[str], None] = lambda text: console.print(text, markup=False)  # noqa: E731
    root = settings.LOCAL_DIR
    scene = Scene(
        root=root,
        environment={**os.environ, "DATABASE_URL": os.environ[REMOTE_DATABASE], "FLOTILLA_LOG_LEVEL": "INFO"},
        children=children,
        network=Network(children=children, logs=root / "logs"),
        say=say,
        check=interrupts.check,
    )
    try:
        outcome = Trial(scene, make_plan(harms=only, devices=devices, quick=quick)).perform()
    finally:
        interrupts.begin_ending()
        scene.end()
        children.close(hurried=interrupts.hurried)
    console.print(_table(outcome))
    for finding in outcome.findings:
        console.print(f"broken: {finding}", markup=False)
    console.print(f"Logs: {root / 'logs'}", markup=False)
    return 1 if outcome.findings else 0


def _table(outcome: Outcome) -> Table:
    table = Table(title="Hosts cut off, killed and added under load")
    for column in (
        "what",
        "host",
        "noticed after",
        "sessions moved after",
        "well again after",
        "longest pause of a device",
    ):
        table.add_column(column)
    for passage in outcome.passages:
        noticed, moved = ("–" if each is None else f"{each:.1f} s" for each in (passage.noticed, passage.moved))
        well = "never" if passage.well is None else f"{passage.well:.1f} s"
        table.add_row(passage.harm, passage.host, noticed, moved, well, f"{passage.pause:.1f} s")
    verdict = outcome.evidence.verdict
    table.caption = (
        f"{verdict.delivered:,} messages delivered, {len(verdict.lost)} lost, {len(verdict.duplicated)} twice, "
        f"{outcome.unknown} unknown, {verdict.repeats_dropped} repeats dropped by the gateway; "
        f"{outcome.replaced} sessions taken over from a holder that had vanished, "
        f"{len(outcome.findings)} promises broken; the run paused itself {outcome.paused_itself} times"
    )
    return table
