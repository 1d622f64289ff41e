"""``manage.py demo``: the whole stack, a campaign through it, and where to look at the result."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from rich.console import Console

from config.stack.errors import StackError
from config.stack.full import FullStack, full_stack
from config.stack.interrupts import Interrupted, Interrupts
from config.stack.places import CHECKOUT

SAMPLE = CHECKOUT / "deploy" / "sample" / "leads.csv"
MAX_DEVICES = 5000
RETRY_MINUTES = "0.05,0.1,0.2,0.5,1"
"""The demo retries after seconds rather than minutes, so that a newcomer sees it happen."""


class Command(BaseCommand):
    help = "Start everything, run a campaign to its end, stay until Ctrl-C. ONCE=1, LEADS=file.csv, DEVICES=50."
    requires_system_checks = ()

    def handle(self, *_args: Any, **_options: Any) -> None:
        source, devices = _source(), _devices()
        console = Console(highlight=False, soft_wrap=True)
        code, arrived = 0, False
        try:
            with (
                Interrupts().installed() as interrupts,
                full_stack(
                    interrupts=interrupts, say=console.print, env={"FLOTILLA_RETRY_MINUTES": RETRY_MINUTES}
                ) as stack,
            ):
                code = _sail(stack, source=source, devices=devices)
                arrived = True
                if not code:
                    _where(console, stack)
                if not code and not _once():
                    console.print("\nStays up until Ctrl-C.")
                    stack.wait()
        except Interrupted as interrupted:
            if not arrived:
                code = 128 + interrupted.number
        except StackError as problem:
            raise CommandError(str(problem)) from None
        if code:
            sys.exit(code)


def _sail(stack: FullStack, *, source: Path, devices: int) -> int:
    manage = [sys.executable, str(CHECKOUT / "manage.py"), "voyage"]
    return stack.call([*manage, "--leads", str(source), "--devices", str(devices)], env={"FLOTILLA_LOG_LEVEL": "ERROR"})


def _where(console: Console, stack: FullStack) -> None:
    admin_password = stack.environment["FLOTILLA_ADMIN_PASSWORD"]
    flower_user, flower_password = stack.flower_login
    console.print("\n[bold]5. Look around[/]")
    console.print(f"   admin     {stack.urls['web']}/admin/      log in as [bold]admin[/] / [bold]{admin_password}[/]")
    console.print(f"   API docs  {stack.urls['web']}/api/docs    the same log-in")
    console.print(f"   Flower    {stack.urls['flower']}          {flower_user} / {flower_password}")


def _once() -> bool:
    return os.environ.get("ONCE", "") not in {"", "0"}


def _source() -> Path:
    path = Path(os.environ.get("LEADS") or SAMPLE).expanduser()
    try:
        with path.open("rb") as file:
            file.read(1)
    except OSError as problem:
        raise CommandError(f"LEADS={path} cannot be read: {problem.strerror}.") from None
    return path.resolve()


def _devices() -> int:
    value = os.environ.get("DEVICES") or "50"
    if not (value.isascii() and value.isdigit() and 1 <= int(value) <= MAX_DEVICES):
        raise CommandError(f"DEVICES must be a number from 1 to {MAX_DEVICES}, not “{value}”.")
    return int(value)
