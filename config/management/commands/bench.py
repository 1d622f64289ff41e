"""``manage.py bench``: the benches of :mod:`config.bench`, on servers of their own below ``.local/bench-stack``."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.utils import timezone
from rich.console import Console

from config.bench import results
from config.bench.chart import draw
from config.bench.kind import Bench
from config.bench.registry import BENCHES, BY_NAME
from config.bench.results import BenchFailed, Line
from config.bench.stage import Stage
from config.management.own_servers import on_own_servers, perform, refuse_other_servers
from config.stack.children import Children
from config.stack.interrupts import Interrupts
from config.stack.local import LocalStack
from config.stack.places import CHECKOUT, local_root

STACK = "bench-stack"
CHART = CHECKOUT / "deploy" / "charts" / "queues.svg"


class Command(BaseCommand):
    help = "Measure against a baseline in the same run; exit 1 when a goal is missed. QUICK=1 for a short look."
    requires_system_checks = ()

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("names", nargs="*", metavar="NAME", help=f"one of: {', '.join(BY_NAME)}; all without")
        parser.add_argument("--chart", action="store_true", help=f"draw {CHART.relative_to(CHECKOUT)} (queues)")
        parser.add_argument("--into", type=Path, help="folder for the files (.local/bench)")
        parser.add_argument("--on-these-servers", action="store_true", help=argparse.SUPPRESS)

    def handle(
        self, *_args: Any, names: list[str], chart: bool, into: Path | None, on_these_servers: bool, **_options: Any
    ) -> None:
        unknown = [name for name in names if name not in BY_NAME]
        if unknown:
            raise CommandError(f"There is no bench {unknown[0]!r}. Known: {', '.join(BY_NAME)}.")
        if chart and names and "queues" not in names:
            raise CommandError("The chart is drawn from the bench “queues”: name it too, or none.")
        work = _measure if on_these_servers else _on_own_servers
        perform(lambda interrupts: work(interrupts, names=names, into=into or local_root() / "bench", chart=chart))


def _quick() -> bool:
    return os.environ.get("QUICK", "") not in {"", "0"}


def _on_own_servers(interrupts: Interrupts, *, names: list[str], into: Path, chart: bool) -> int:
    """Start servers whose data is ours to destroy, and measure there; one that dies ends it."""
    again = ["bench", "--on-these-servers", "--into", str(into), *names, *(["--chart"] if chart else [])]
    told = {"FLOTILLA_LOG_LEVEL": "INFO"}
    stack = LocalStack(local_root() / STACK)
    return on_own_servers(stack, again, interrupts=interrupts, told=lambda _: told, heal=False)


def _measure(interrupts: Interrupts, *, names: list[str], into: Path, chart: bool) -> int:
    """Run the benches one after the other; 1 when a goal is missed."""
    refuse_other_servers(STACK, option="--on-these-servers")
    console = Console(highlight=False, soft_wrap=True)
    children = Children()
    lines: list[Line] = []
    stage = Stage(
        folder=settings.LOCAL_DIR,
        environment=dict(os.environ),
        children=children,
        say=lambda text: console.print(f"[dim]{text}[/]"),
        check=interrupts.check,
        peers_python=os.environ.get("PEERS_PYTHON", ""),
    )
    try:
        console.print(f"{results.machine()}{', quick' if _quick() else ''}\n")
        for bench in [BY_NAME[name] for name in names] or BENCHES:
            found = _run(bench, stage=stage, console=console)
            results.write(folder=into, name=bench.name, lines=found, when=timezone.now().isoformat(), quick=_quick())
            lines += found
        if chart:
            draw(lines, path=CHART)
    finally:
        interrupts.begin_ending()
        children.close(hurried=interrupts.hurried)
    return _tell(lines, console=console, into=into)


def _run(bench: Bench, *, stage: Stage, console: Console) -> list[Line]:
    try:
        found = bench.run(stage, bench.quick if _quick() else bench.full)
    except BenchFailed as problem:
        found = [Line(name=bench.name, what="broke off", unit="", note=str(problem), failed=True)]
    console.print(results.table(found))
    console.print()
    return found


def _tell(lines: list[Line], *, console: Console, into: Path) -> int:
    missed = [line.name for line in lines if line.holds is False]
    held = sum(line.holds is True for line in lines)
    if missed:
        console.print(f"[bold red]Missed: {', '.join(missed)}.[/] {held} goals hold. Files: {into}")
        return 1
    console.print(f"[bold green]All {held} goals hold.[/] Files: {into}")
    return 0
