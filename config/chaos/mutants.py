"""Chaos against copies of the code, each without one guard. The code itself knows nothing of it."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from rich.table import Table

from config.chaos import saved
from config.chaos.mutations import DoesNotFit, Mutation, apply
from config.chaos.plan import KINDS
from config.chaos.run import HARMED
from config.stack.children import Children
from config.stack.errors import StackError
from config.stack.local import erase
from config.stack.places import CHECKOUT, local_root
from config.stack.processes import Ladder

SECONDS: Final = 30.0
"""How long harm is done in each run, unless told otherwise."""
PATIENCE_SECONDS: Final = 35.0
LEAST_REQUESTS: Final = 200
"""While harm was done: a run with fewer has tried nothing, and says nothing."""
LONGEST_SECONDS: Final = 240.0
"""For one run, beside the time in which harm is done."""
STOP_SECONDS: Final = 30.0
LOOK_SECONDS: Final = 0.2
WHOLE: Final = "nothing"
_LEFT_OUT: Final = (".git", ".venv", ".local", "__pycache__", ".*_cache", ".hypothesis", "staticfiles", "tests")


@dataclass(frozen=True, slots=True)
class Trial:
    """One run. ``rules`` counts the broken promises; None when there was no verdict, for the reason in ``words``."""

    name: str
    missed: str
    rules: Mapping[str, int] | None
    seconds: float
    words: str = ""

    @property
    def red(self) -> bool:
        """Whether the judge found anything."""
        return self.rules is not None and any(self.rules.values())

    @property
    def as_it_should_be(self) -> bool:
        """Red without a guard, green with all of them."""
        return self.rules is not None and self.red == (self.name != WHOLE)


def try_all(
    mutations: Sequence[Mutation], *, seconds: float, seed: int, check: Callable[[], None], say: Callable[[str], None]
) -> list[Trial]:
    """The code as it is, and then without each guard. ``check`` may raise to end it.

    Raises StackError when a patch does not fit, before anything is run.
    """
    with tempfile.TemporaryDirectory(prefix="flotilla-") as home:
        whole = Path(home) / "w"
        shutil.copytree(CHECKOUT, whole, ignore=shutil.ignore_patterns(*_LEFT_OUT))
        trees: list[tuple[str, str, Sequence[str], Path]] = [(WHOLE, "the code as it is", KINDS, whole)]
        for number, mutation in enumerate(mutations):
            tree = Path(home) / f"m{number}"
            shutil.copytree(whole, tree)
            try:
                apply(mutation, tree=tree)
            except DoesNotFit as problem:
                raise StackError(str(problem)) from None
            trees.append((mutation.name, mutation.missed, mutation.under, tree))
        trials = []
        for name, missed, under, tree in trees:
            argv = ["--seed", str(seed), "--seconds", f"{seconds:g}", "--patience", f"{PATIENCE_SECONDS:g}"]
            began = time.monotonic()
            found, words = _run(name, [*argv, "--only", *under], tree=tree, most=seconds + LONGEST_SECONDS, check=check)
            rules = found["rules"] if found else None
            tried = found["notes"][HARMED] if found else 0
            if rules is not None and tried < LEAST_REQUESTS and not any(rules.values()):
                rules, words = None, f"only {tried} requests while harm was done: the machine is too busy"
            trial = Trial(name, missed, rules, time.monotonic() - began, words)
            verdict = "no verdict" if trial.rules is None else "red" if trial.red else "green"
            say(f"without {name}: {verdict} {caught_by(trial)} ({trial.seconds:.0f} s)")
            trials.append(trial)
        return trials


def caught_by(trial: Trial) -> str:
    """The rules that were broken, most often broken first."""
    if trial.rules is None:
        return trial.words
    broken = sorted((-number, rule) for rule, number in trial.rules.items() if number)
    return ", ".join(f"{rule} {-number}" for number, rule in broken)


def table(trials: Sequence[Trial]) -> Table:
    """One line per guard: whether the judge missed it, and by which rule."""
    made = Table("guard taken out", "verdict", "caught by", "what is lost with it", box=None, padding=(0, 2, 0, 3))
    for trial in trials:
        verdict = "no verdict" if trial.rules is None else "red" if trial.red else "green"
        style = "green" if trial.as_it_should_be else "red"
        note = "as it should be" if trial.name == WHOLE and trial.as_it_should_be else trial.missed
        made.add_row(trial.name, f"[{style}]{verdict}[/]", caught_by(trial), note)
    return made


def _run(
    name: str, arguments: Sequence[str], *, tree: Path, most: float, check: Callable[[], None]
) -> tuple[dict[str, Any] | None, str]:
    """One run of the code in ``tree``: its verdict, if any, and its last words. What it started has ended then."""
    local, began = tree / ".local", time.monotonic()
    without = ("DATABASE_URL", "REDIS_URL", "PYTHONPATH")
    environment = {key: value for key, value in os.environ.items() if key not in without}
    children = Children()
    try:
        child = children.start(
            name=name,
            argv=[sys.executable, str(tree / "manage.py"), "chaos", *arguments],
            ladder=Ladder(steps=((signal.SIGTERM, STOP_SECONDS),), group=False),
            env={**environment, "FLOTILLA_LOCAL": str(local)},
            cwd=tree,
            log=tree / "chaos.log",
        )
        while child.exit_code() is None and time.monotonic() - began < most:
            check()
            time.sleep(LOOK_SECONDS)
        words = child.last_words()
    finally:
        children.close()
        found = _kept(name, local)
        erase(local)
    return found, words


def _kept(name: str, local: Path) -> dict[str, Any] | None:
    """The verdict of a run, kept in our own folder for whoever wants to read it."""
    for verdict in (local / "chaos").glob(saved.PATTERN):
        kept = local_root() / "chaos" / "mutations" / f"{name}.json"
        kept.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        shutil.copyfile(verdict, kept)
        return saved.read(verdict)
    return None
