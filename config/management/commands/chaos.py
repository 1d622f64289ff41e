"""``manage.py chaos``: kill and cut everything under load, on servers of its own below ``.local/chaos``, and judge."""

from __future__ import annotations

import argparse
import os
import sys
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser
from rich.console import Console

from config.chaos import report
from config.chaos.plan import Plan, make_plan
from config.chaos.run import PLAIN, SETTINGS, Outcome, Theatre, perform
from config.stack.children import Children
from config.stack.errors import StackError
from config.stack.full import call, migrate
from config.stack.interrupts import Interrupted, Interrupts
from config.stack.local import LocalStack
from config.stack.places import CHECKOUT, local_root

STACK = "chaos"
SHORTEST_SECONDS = 5


class Command(BaseCommand):
    help = (
        "Kill, freeze and cut everything at random under load; exit 1 when a message is lost, doubled or stuck. "
        f"{PLAIN}=1 treats the gateway as one that drops no repeats."
    )
    requires_system_checks = ()

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--seconds", type=float, default=60, help="how long harm is done (60)")
        parser.add_argument("--seed", type=int, default=1, help="the same seed is the same plan (1)")
        parser.add_argument("--on-these-servers", action="store_true", help=argparse.SUPPRESS)

    def handle(self, *_args: Any, seconds: float, seed: int, on_these_servers: bool, **_options: Any) -> None:
        if not SHORTEST_SECONDS <= seconds <= 86_400:
            raise CommandError(f"--seconds must be from {SHORTEST_SECONDS} to 86400, not {seconds:g}.")
        plan = make_plan(seed=seed, seconds=seconds)
        code = _perform(plan) if on_these_servers else _on_own_servers(plan)
        if code:
            sys.exit(code)


def _plain() -> bool:
    return os.environ.get(PLAIN, "") not in {"", "0"}


def _on_own_servers(plan: Plan) -> int:
    """Start servers whose data is ours to destroy, whatever the environment names, and start them again when harmed."""
    for name in ("DATABASE_URL", "REDIS_URL"):
        os.environ.pop(name, None)
    again = [sys.executable, str(CHECKOUT / "manage.py"), "chaos", "--on-these-servers"]
    again += ["--seconds", f"{plan.seconds:g}", "--seed", str(plan.seed)]
    stack = LocalStack(local_root() / STACK)
    try:
        with Interrupts().installed() as interrupts:

            def look_after() -> None:
                interrupts.check()
                stack.heal()

            try:
                stack.start()
                environment = {**stack.environment(), **SETTINGS, "FLOTILLA_LOG_LEVEL": "ERROR"}
                migrate(stack, environment=environment, say=lambda _: None)
                return call(again, children=stack.children, env=environment, meanwhile=look_after)
            finally:
                interrupts.begin_ending()
                stack.stop(hurried=interrupts.hurried)
    except Interrupted as interrupted:
        return 128 + interrupted.number
    except StackError as problem:
        raise CommandError(str(problem)) from None


def _perform(plan: Plan) -> int:
    """Run the plan on the servers of the environment; 1 when a promise was broken."""
    if settings.LOCAL_DIR.name != STACK:
        raise CommandError("This would destroy the data of your stack: run it without --on-these-servers.")
    console = Console(highlight=False, soft_wrap=True)
    children = Children()
    try:
        with Interrupts().installed() as interrupts:
            theatre = Theatre(
                root=settings.LOCAL_DIR,
                environment=dict(os.environ),
                children=children,
                say=lambda text: console.print(text, markup=False),
                check=interrupts.check,
            )
            console.print(
                f"[bold]Chaos[/], seed {plan.seed}: {plan.seconds:g} s, {len(plan.faults)} harms planned, "
                f"{sum(plan.groups):,} messages in {len(plan.groups)} campaigns; the gateway "
                f"{'counts as one that drops no repeats' if _plain() else 'drops repeats'}"
            )
            try:
                outcome = perform(theatre, plan, plain=_plain())
            finally:
                interrupts.begin_ending()
                children.close(hurried=interrupts.hurried)
    except Interrupted as interrupted:
        return 128 + interrupted.number
    except StackError as problem:
        raise CommandError(str(problem)) from None
    return _tell(outcome, plan=plan, console=console)


def _tell(outcome: Outcome, *, plan: Plan, console: Console) -> int:
    console.print()
    for line in report.lines(outcome.evidence, outcome.findings):
        console.print(line, markup=False)
    console.print(report.table(outcome.evidence, outcome.findings, copies=outcome.copies))
    if outcome.findings:
        plain = f"{PLAIN}=1 " if outcome.evidence.plain else ""
        console.print(
            f"[bold red]{len(outcome.findings)} promises broken.[/] The same plan again: "
            f"{plain}make chaos SECONDS={plan.seconds:g} SEED={plan.seed}. Logs: {settings.LOCAL_DIR / 'logs'}"
        )
        return 1
    console.print("[bold green]Nothing lost, nothing twice, nothing stuck.[/]")
    return 0
