"""The whole stack as one context manager: servers, migrations, programs; and nothing of it afterwards."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from config.stack.children import Children
from config.stack.errors import StackError
from config.stack.interrupts import Interrupted, Interrupts
from config.stack.local import LocalStack, refuse_if_running
from config.stack.places import CHECKOUT
from config.stack.processes import Ladder
from config.stack.programs import FLOWER_USER, Ports, choose_ports, device_bells, phones, programs
from config.stack.supervisor import Supervisor

READY_SECONDS = 120.0
_TICK_SECONDS = 0.2


@dataclass(frozen=True)
class FullStack:
    """Everything running. ``environment`` is what a child needs to talk to it; ``urls`` is for people."""

    stack: LocalStack
    supervisor: Supervisor
    interrupts: Interrupts
    ports: Ports
    environment: Mapping[str, str] = field(repr=False)

    @property
    def urls(self) -> Mapping[str, str]:
        return self.ports.urls()

    @property
    def flower_login(self) -> tuple[str, str]:
        return FLOWER_USER, self.environment["FLOTILLA_FLOWER_PASSWORD"]

    def tick(self) -> None:
        """One round of care, wanted every second or so. Raises :class:`Interrupted` when it is time to end."""
        self.interrupts.check()
        for name in self.stack.heal():
            self.supervisor.say(f"{name:<16} died and runs again")
        self.supervisor.tick()

    def wait(self) -> None:
        """Look after everything until somebody interrupts (raises :class:`Interrupted`)."""
        while True:
            self.tick()
            time.sleep(_TICK_SECONDS)

    def call(self, argv: Sequence[str], *, env: Mapping[str, str] | None = None) -> int:
        """Run a command in the foreground against the stack, looking after the stack meanwhile; its exit code."""
        return call(argv, children=self.stack.children, env={**self.environment, **(env or {})}, meanwhile=self.tick)


@contextlib.contextmanager
def full_stack(
    *,
    interrupts: Interrupts,
    say: Callable[[str], None],
    root: Path | None = None,
    web_port: int | None = None,
    flower_port: int | None = None,
    simulator_port: int | None = None,
    shards: int = 4,
    env: Mapping[str, str] | None = None,
) -> Iterator[FullStack]:
    """Servers, migrated database and every program ready. ``env`` adds to what the programs get.

    A port that is given must be free; without one the usual port or the next free one is taken (see ``choose_ports``).

    ``interrupts`` must be installed. On leaving, everything is stopped in reverse order; a further signal hurries it.
    """
    refuse_if_running(root)
    ports = choose_ports(say=say, web=web_port, flower=flower_port, simulator=simulator_port)
    stack = LocalStack(root)
    say("Starting PostgreSQL and Valkey …")
    stack.start()
    try:
        environment = {**stack.environment(), **(env or {}), "FLOTILLA_SHARDS": str(shards)}
        stack.note_urls(ports.urls())
        migrate(stack, environment=environment, say=say)
        manage(stack, "first_admin", environment=environment)
        supervisor = Supervisor(
            programs=programs(
                root=stack.root,
                ports=ports,
                environment=environment,
                bells=device_bells(shards=shards),
                simulator=phones(ports=ports, environment=environment),
            ),
            children=stack.children,
            logs=stack.logs,
            say=say,
            noted=stack.note_programs,
        )
        environment["FLOTILLA_SIMULATOR_URL"] = ports.urls()["simulator"]
        full = FullStack(
            stack=stack, supervisor=supervisor, interrupts=interrupts, ports=ports, environment=environment
        )

        def pause(seconds: float) -> None:
            interrupts.check()
            time.sleep(seconds)

        try:
            supervisor.start()
            supervisor.wait_ready(seconds=READY_SECONDS, pause=pause)
            yield full
        finally:
            interrupts.begin_ending()
            supervisor.stop(hurried=interrupts.hurried)
    finally:
        interrupts.begin_ending()
        stack.stop(hurried=interrupts.hurried)
        say("Everything is stopped.")


def migrate(stack: LocalStack, *, environment: Mapping[str, str], say: Callable[[str], None]) -> None:
    """Bring the database to the present schema; the output is in ``migrate.log``."""
    say("Migrating the database …")
    manage(stack, "migrate", "--no-input", environment=environment)


def manage(stack: LocalStack, command: str, *arguments: str, environment: Mapping[str, str]) -> None:
    """Run a management command to its end; its output is in ``COMMAND.log``. Raises :class:`StackError` if it fails."""
    argv = [sys.executable, str(CHECKOUT / "manage.py"), command, *arguments]
    log = stack.logs / f"{command}.log"
    ladder = Ladder(steps=((signal.SIGTERM, 10.0),))
    child = stack.children.start(name=command, argv=argv, ladder=ladder, env=environment, cwd=CHECKOUT, log=log)
    try:
        code = child.popen.wait()
    finally:
        stack.children.stop(child)
    if code != 0:
        raise StackError(f"manage.py {command} failed: {child.last_words()} ({log})")


def call(
    argv: Sequence[str],
    *,
    children: Children,
    env: Mapping[str, str],
    meanwhile: Callable[[], object] = lambda: None,
) -> int:
    """Run ``argv`` on our terminal, with ``meanwhile`` now and then; its exit code, or 128 + n for signal n.

    An interruption is passed on and its end awaited before it is raised again; from a terminal Ctrl-C reaches the
    command without our help, and twice would be once too often.
    """
    ladder = Ladder(steps=((signal.SIGTERM, 15.0),), group=False)
    child = children.start_in_foreground(name="command", argv=argv, ladder=ladder, env=env)
    try:
        while child.exit_code() is None:
            meanwhile()
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.popen.wait(timeout=_TICK_SECONDS)
    except Interrupted as interrupted:
        if interrupted.number != signal.SIGINT or not _terminal_sends_to_us():
            child.popen.send_signal(interrupted.number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.popen.wait(timeout=15)
        raise
    finally:
        children.stop(child)
    code = child.exit_code() or 0
    return code if code >= 0 else 128 - code


def _terminal_sends_to_us() -> bool:
    """Whether Ctrl-C goes to our whole group: we are in the foreground of the terminal on standard input."""
    try:
        return os.tcgetpgrp(0) == os.getpgrp()
    except OSError:
        return False
