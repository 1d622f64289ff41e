"""``manage.py chaos``: kill and cut everything under load, on servers of its own below ``.local/chaos``, and judge."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser
from rich.console import Console

from config.chaos import report, run, saved
from config.chaos.gather import PATIENCE_SECONDS
from config.chaos.mutants import SECONDS, table, try_all
from config.chaos.mutations import MUTATIONS
from config.chaos.plan import KINDS, Plan, focused, make_plan
from config.chaos.run import SETTINGS, Outcome, Theatre
from config.management.own_servers import on_own_servers, perform, refuse_other_servers
from config.stack.children import Children
from config.stack.interrupts import Interrupts
from config.stack.local import LocalStack
from config.stack.places import local_root

STACK = "chaos"
SHORTEST_SECONDS = 5


class Command(BaseCommand):
    help = "Kill, freeze and cut everything at random under load; exit 1 when a message is lost, doubled or stuck."
    requires_system_checks = ()

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--seconds", type=float, help=f"how long harm is done (60; {SECONDS:g} for each mutation)")
        parser.add_argument("--seed", type=int, default=1, help="the same seed is the same plan (1)")
        parser.add_argument(
            "--patience",
            type=float,
            default=PATIENCE_SECONDS,
            help=f"most seconds of standstill ({PATIENCE_SECONDS:g})",
        )
        parser.add_argument(
            "--mutations",
            nargs="*",
            metavar="NAME",
            choices=[mutation.name for mutation in MUTATIONS],
            help="take guards out of a copy of the code, one by one (all, or those named), and see that it is noticed",
        )
        parser.add_argument(
            "--only", nargs="+", choices=KINDS, default=KINDS, help="do these kinds of harm and no others"
        )
        parser.add_argument("--on-these-servers", action="store_true", help=argparse.SUPPRESS)

    def handle(
        self,
        *_args: Any,
        seconds: float | None,
        seed: int,
        patience: float,
        only: Sequence[str],
        mutations: Sequence[str] | None,
        on_these_servers: bool,
        **_options: Any,
    ) -> None:
        seconds = seconds or (60.0 if mutations is None else SECONDS)
        if not SHORTEST_SECONDS <= seconds <= 86_400:
            raise CommandError(f"--seconds must be from {SHORTEST_SECONDS} to 86400, not {seconds:g}.")
        if not 1 <= patience <= 3600:
            raise CommandError(f"--patience must be from 1 to 3600, not {patience:g}.")
        if mutations is not None:
            perform(lambda interrupts: _mutate(interrupts, mutations, seconds=seconds, seed=seed))
            return
        plan = make_plan(seed=seed, seconds=seconds)
        if set(only) != set(KINDS):
            plan = focused(plan, kinds=only)
        work = _run if on_these_servers else _on_own_servers
        perform(lambda interrupts: work(interrupts, plan, patience=patience, only=only))


def _mutate(interrupts: Interrupts, names: Sequence[str], *, seconds: float, seed: int) -> int:
    """Chaos against copies of this checkout, each without one guard; 1 when one was not missed."""
    wanted = [mutation for mutation in MUTATIONS if not names or mutation.name in names]
    console = Console(highlight=False, soft_wrap=True)
    trials = try_all(
        wanted,
        seconds=seconds,
        seed=seed,
        check=interrupts.check,
        say=lambda text: console.print(text, markup=False),
    )
    console.print(table(trials))
    return 0 if all(trial.as_it_should_be for trial in trials) else 1


def _on_own_servers(interrupts: Interrupts, plan: Plan, *, patience: float, only: Sequence[str]) -> int:
    """Start servers whose data is ours to destroy, and start them again when harmed."""
    again = ["chaos", "--on-these-servers", "--seconds", f"{plan.seconds:g}", "--seed", str(plan.seed)]
    again += ["--patience", f"{patience:g}", "--only", *only]
    told = {**SETTINGS, "FLOTILLA_LOG_LEVEL": "ERROR"}
    return on_own_servers(LocalStack(local_root() / STACK), again, interrupts=interrupts, told=lambda _: told)


def _run(interrupts: Interrupts, plan: Plan, *, patience: float, only: Sequence[str]) -> int:
    """Run the plan on the servers of the environment; 1 when a promise was broken."""
    refuse_other_servers(STACK, option="--on-these-servers")
    console = Console(highlight=False, soft_wrap=True)
    children = Children()
    saved.path_of(settings.LOCAL_DIR, seed=plan.seed).unlink(missing_ok=True)
    theatre = Theatre(
        root=settings.LOCAL_DIR,
        environment=dict(os.environ),
        children=children,
        say=lambda text: console.print(text, markup=False),
        check=interrupts.check,
    )
    console.print(
        f"[bold]Chaos[/], seed {plan.seed}: {plan.seconds:g} s, {len(plan.faults)} harms planned, "
        f"{sum(plan.groups):,} messages in {len(plan.groups)} campaigns, half of the fleet at a gateway that "
        f"drops no repeats; clocks: {', '.join(f'{name} {by:+.0f} s' for name, by in plan.skews.items())}"
    )
    try:
        outcome = run.perform(theatre, plan, patience=patience)
    finally:
        interrupts.begin_ending()
        children.close(hurried=interrupts.hurried)
    return _tell(outcome, plan=plan, only=only, console=console)


def _tell(outcome: Outcome, *, plan: Plan, only: Sequence[str], console: Console) -> int:
    path = saved.save(settings.LOCAL_DIR, plan=plan, outcome=outcome)
    console.print()
    for line in report.lines(outcome.evidence, outcome.findings):
        console.print(line, markup=False)
    console.print(report.table(outcome.evidence, outcome.findings, notes=outcome.notes))
    console.print(f"All of it: {path}", markup=False)
    if outcome.findings:
        again = f"make chaos SECONDS={plan.seconds:g} SEED={plan.seed}"
        if set(only) != set(KINDS):
            again = f"manage.py chaos --seconds {plan.seconds:g} --seed {plan.seed} --only {' '.join(only)}"
        console.print(
            f"[bold red]{len(outcome.findings)} promises broken.[/] The same plan again: {again}. "
            f"Logs: {settings.LOCAL_DIR / 'logs'}"
        )
        return 1
    console.print("[bold green]Nothing lost, nothing twice, nothing stuck.[/]")
    return 0
