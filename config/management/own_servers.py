"""What commands share that destroy data: servers of their own below ``.local``, and a process of its own on them."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence

from django.conf import settings
from django.core.management.base import CommandError

from config.stack.errors import StackError
from config.stack.full import call, migrate
from config.stack.interrupts import Interrupted, Interrupts
from config.stack.local import LocalStack
from config.stack.places import CHECKOUT


def perform(work: Callable[[Interrupts], int]) -> None:
    """Do ``work``, which a signal interrupts in order, and exit with the status that it returns."""
    try:
        with Interrupts().installed() as interrupts:
            status = work(interrupts)
    except Interrupted as interrupted:
        status = 128 + interrupted.number
    except StackError as problem:
        raise CommandError(str(problem)) from None
    if status:
        sys.exit(status)


def _migrate(stack: LocalStack, environment: Mapping[str, str]) -> None:
    migrate(stack, environment=environment, say=lambda _: None)


def on_own_servers(
    stack: LocalStack,
    argv: Sequence[str],
    *,
    interrupts: Interrupts,
    told: Callable[[Mapping[str, str]], Mapping[str, str]] = lambda _: {},
    prepare: Callable[[LocalStack, Mapping[str, str]], None] = _migrate,
    heal: bool = True,
) -> int:
    """Start and migrate ``stack``, run ``manage.py argv`` against it and stop it again; the exit status.

    Servers that the environment names are left alone. ``told``: what it is told beside the stack's own environment,
    from that. ``prepare``: makes the tables, if not the present code does. ``heal``: servers that die start again.
    """

    def look_after() -> None:
        interrupts.check()
        if heal:
            stack.heal()

    for name in ("DATABASE_URL", "REDIS_URL"):
        os.environ.pop(name, None)
    try:
        stack.start()
        own = stack.environment()
        environment = {**own, **told(own)}
        prepare(stack, own)
        return call(
            [sys.executable, str(CHECKOUT / "manage.py"), *argv],
            children=stack.children,
            env=environment,
            meanwhile=look_after,
        )
    finally:
        interrupts.begin_ending()
        stack.stop(hurried=interrupts.hurried)


def refuse_other_servers(stack: str, *, option: str) -> None:
    """Raises CommandError unless this process was started by :func:`on_own_servers`, with this hidden option."""
    if settings.LOCAL_DIR.name != stack:
        raise CommandError(f"This would destroy the data of your stack: run it without {option}.")
