"""What makes a bench."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from config.bench.results import Line
from config.bench.stage import Stage


@dataclass(frozen=True, slots=True)
class Bench:
    """A name, and a run with its sizes: a full one and one for a short look."""

    name: str
    run: Callable[[Stage, Any], list[Line]]
    full: Any
    quick: Any
