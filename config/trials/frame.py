"""The frame of every trial: its scene from the first host to the last, and what is told when it is over."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, TypeVar

from django.conf import settings
from rich.console import Console
from rich.table import Table

from config.stack.children import Children
from config.stack.interrupts import Interrupts
from config.trials.network import Network
from config.trials.scene import Scene


class Outcome(Protocol):
    """What a trial came to. ``findings``: the promises that were broken, in words."""

    @property
    def findings(self) -> Sequence[str]: ...


_O = TypeVar("_O", bound=Outcome)


def play(
    interrupts: Interrupts,
    *,
    environment: Mapping[str, str],
    networked: bool,
    perform: Callable[[Scene], _O],
    table: Callable[[_O], Table],
) -> int:
    """One trial, on servers whose data is ours to destroy; 1 when a promise was broken.

    ``environment`` names the servers as the workers reach them; ``networked``: hosts get networks of their own.
    """
    console = Console(highlight=False, soft_wrap=True)
    children = Children()
    logs = settings.LOCAL_DIR / "logs"
    scene = Scene(
        root=settings.LOCAL_DIR,
        environment={**environment, "FLOTILLA_LOG_LEVEL": "INFO"},
        children=children,
        network=Network(children=children, logs=logs) if networked else None,
        say=lambda text: console.print(text, markup=False),
        check=interrupts.check,
    )
    try:
        outcome = perform(scene)
    finally:
        interrupts.begin_ending()
        scene.end()
        children.close(hurried=interrupts.hurried)
    console.print(table(outcome))
    for finding in outcome.findings:
        console.print(f"broken: {finding}", markup=False)
    console.print(f"Logs: {logs}", markup=False)
    return 1 if outcome.findings else 0
