"""The programs on top of the servers: started in order, watched, started again when they die, stopped in reverse order.

Nothing here loops by itself for ever: :meth:`Supervisor.tick` does one round and returns, so that whoever has work of
its own (a progress bar, a chaos run) calls it now and then, from one thread.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from config.stack.children import Child, Children
from config.stack.errors import StackError
from config.stack.places import CHECKOUT
from config.stack.processes import Identity, Ladder

QUICK_SECONDS = 20.0  # a program that lived shorter than this counts as crashing
LOOP_DEATHS = 3
MAX_BACKOFF_SECONDS = 30.0


@dataclass(frozen=True)
class Program:
    """One program to keep running. ``ready`` is asked with what it has logged since it started (the last 64 KB)."""

    name: str
    argv: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    ready: Callable[[str], bool] | None = None
    stop_signal: int = signal.SIGTERM
    stop_seconds: float = 15.0
    url: str = ""


def backoff_seconds(*, deaths: int) -> float:
    """1, 2, 4 … 30 seconds before start number ``deaths + 1``."""
    return float(min(2.0 ** max(0, deaths - 1), MAX_BACKOFF_SECONDS))


@dataclass
class _Run:
    """What is known about one program now."""

    program: Program
    child: Child | None = None
    started: float = 0.0
    ready: bool = False
    deaths: int = 0
    due: float | None = None


class Supervisor:
    """Keeps ``programs`` running. ``say`` gets one line per fact, for a person."""

    def __init__(
        self,
        *,
        programs: Sequence[Program],
        children: Children,
        logs: Path,
        say: Callable[[str], None],
        noted: Callable[[Mapping[str, Identity]], None] = lambda _running: None,
        cwd: Path = CHECKOUT,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._runs = {program.name: _Run(program) for program in programs}
        self._children = children
        self._logs = logs
        self.say = say
        self._noted = noted
        self._cwd = cwd
        self._clock = clock

    def start(self) -> None:
        """Start every program, in order, without waiting for any."""
        for run in self._runs.values():
            self._launch(run)
        self._note()

    def tick(self) -> None:
        """One round: notice who died, who became ready, and whose time to start again has come."""
        changed = False
        for run in self._runs.values():
            if run.child is not None and run.child.exit_code() is not None:
                self._died(run, run.child)
                changed = True
            elif run.child is None and run.due is not None and self._clock() >= run.due:
                self._launch(run)
                changed = True
            elif run.child is not None and not run.ready:
                self._ask(run, run.child)
        if changed:
            self._note()

    def wait_ready(self, *, seconds: float, pause: Callable[[float], object] = time.sleep) -> None:
        """Tick until every program was ready. Raises :class:`StackError` for the first that cannot be brought up."""
        deadline = self._clock() + seconds
        while not self.all_ready():
            self.tick()
            for run in self._runs.values():
                if run.deaths >= LOOP_DEATHS:
                    raise StackError(f"{run.program.name} does not start; its log is {self._log(run)}.")
            if self._clock() > deadline:
                late = ", ".join(run.program.name for run in self._runs.values() if not run.ready)
                raise StackError(f"Not ready after {seconds:.0f} seconds: {late}; the logs are in {self._logs}.")
            pause(0.1)

    def stop(self, *, hurried: Callable[[], bool] = lambda: False) -> None:
        """Stop all, the last started first, each within its own grace; ``hurried`` shortens what is left of it."""
        for run in reversed(self._runs.values()):
            run.due = None
            child, run.child, run.ready = run.child, None, False
            if child is not None:
                self._children.stop(child, hurried=hurried)
                self.say(f"{run.program.name:<16} stopped")
        self._note()

    def all_ready(self) -> bool:
        return all(run.ready for run in self._runs.values())

    def pid(self, name: str) -> int | None:
        """The pid of a running program, for whoever wants to try what its death does."""
        child = self._runs[name].child
        return child.pid if child else None

    def _launch(self, run: _Run) -> None:
        program = run.program
        run.child = self._children.start(
            name=program.name,
            argv=program.argv,
            ladder=Ladder(steps=((program.stop_signal, program.stop_seconds),)),
            env=program.env,
            cwd=self._cwd,
            log=self._log(run),
        )
        run.started, run.ready, run.due = self._clock(), False, None
        if program.ready is None:
            self._ask(run, run.child)

    def _ask(self, run: _Run, child: Child) -> None:
        if run.program.ready is None or run.program.ready(child.logged()):
            run.ready = True
            self.say(f"{run.program.name:<16} running  {run.program.url}".rstrip())

    def _died(self, run: _Run, child: Child) -> None:
        """Clear up after it and plan the next start. Only lives cut short add up."""
        code, words = child.exit_code(), child.last_words()
        self._children.forget(child)
        quick = self._clock() - run.started < QUICK_SECONDS
        run.child, run.ready = None, False
        run.deaths = run.deaths + 1 if quick else 1
        wait = backoff_seconds(deaths=run.deaths)
        run.due = self._clock() + wait
        how = f"exit {code}" if code is not None and code >= 0 else f"signal {-(code or 0)}"
        if run.deaths < LOOP_DEATHS:
            self.say(f"{run.program.name:<16} died ({how}), starts again in {wait:.0f} s")
        else:
            self.say(
                f"{run.program.name:<16} keeps dying ({run.deaths} times, last {how}), next try in {wait:.0f} s; "
                f"its log ends: {words} ({self._log(run)})"
            )

    def _log(self, run: _Run) -> Path:
        return self._logs / f"{run.program.name}.log"

    def _note(self) -> None:
        self._noted({name: run.child.identity for name, run in self._runs.items() if run.child})
