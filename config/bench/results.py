"""What a bench has to say: lines with ours, the baseline, the goal, and whether it holds."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Literal

from rich.table import Table

UNEVEN = 1.25
"""Rounds that differ more than this were disturbed, or are too short: the table says so beside the verdict."""


class BenchFailed(Exception):  # noqa: N818 - reads as a fact
    """A bench that could not be run to its end, in one line for a person."""


@dataclass(frozen=True, slots=True)
class Goal:
    """A bound on the ratio to the baseline, or on our own figure."""

    bound: float
    at: Literal["least", "most"]
    of: Literal["ratio", "ours"] = "ratio"

    def __str__(self) -> str:
        return f"{'≥' if self.at == 'least' else '≤'} {self.bound:,g}{' ×' if self.of == 'ratio' else ''}"


@dataclass(frozen=True, slots=True)
class Line:
    """One figure. ``ours`` and ``baseline`` hold every round; the medians are compared.

    A line without ``goal`` is for information. One without ``ours`` could not be measured, and ``note`` says why.
    """

    name: str
    what: str
    unit: str
    ours: Sequence[float] = ()
    baseline: Sequence[float] = ()
    goal: Goal | None = None
    note: str = ""
    failed: bool = False
    """The bench broke off: that is never a goal met."""
    point: tuple[str, int] | None = None
    """Where it stands in the chart: series, number of device queues."""

    @property
    def our_median(self) -> float | None:
        """Median of our rounds."""
        return median(self.ours) if self.ours else None

    @property
    def baseline_median(self) -> float | None:
        """Median of the baseline's rounds."""
        return median(self.baseline) if self.baseline else None

    @property
    def unevenness(self) -> float:
        """The largest round by the smallest, on the side where they differ more; 1 for single or equal rounds."""
        sides = [side for side in (self.ours, self.baseline) if side and min(side) > 0]
        return max((max(side) / min(side) for side in sides), default=1.0)

    @property
    def ratio(self) -> float | None:
        """Ours by the baseline's; None where either is missing or the baseline is zero."""
        ours, baseline = self.our_median, self.baseline_median
        return None if ours is None or not baseline else ours / baseline

    @property
    def holds(self) -> bool | None:
        """Whether the goal is met; None without a goal. What was not measured does not hold."""
        if self.failed:
            return False
        if self.goal is None:
            return None
        figure = self.ratio if self.goal.of == "ratio" else self.our_median
        if figure is None:
            return False
        return figure >= self.goal.bound if self.goal.at == "least" else figure <= self.goal.bound

    def as_json(self, *, machine: str, when: str, quick: bool) -> dict[str, Any]:
        """The line for a file."""
        return {
            "name": self.name,
            "ours": self.our_median,
            "baseline": self.baseline_median,
            "ratio": self.ratio,
            "goal": self.goal.bound if self.goal else None,
            "goal_is": f"{self.goal.of} at {self.goal.at}" if self.goal else None,
            "holds": self.holds,
            "unit": self.unit,
            "machine": machine,
            "when": when,
            "what": self.what,
            "note": self.note,
            "quick": quick,
            "uneven": round(self.unevenness, 2),
            "rounds": {"ours": list(self.ours), "baseline": list(self.baseline)},
        }


def write(*, folder: Path, name: str, lines: Sequence[Line], when: str, quick: bool) -> Path:
    """``<folder>/<name>.json``, replaced whole."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    told = [line.as_json(machine=machine(), when=when, quick=quick) for line in lines]
    part = path.with_suffix(".part")
    part.write_text(json.dumps(told, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    part.replace(path)
    return path


def table(lines: Sequence[Line]) -> Table:
    """The lines for a terminal."""
    shown = Table("bench", "ours", "baseline", "ratio", "goal", "", box=None, padding=(0, 2, 0, 0))
    shown.columns[0].no_wrap = True
    for line in lines:
        verdict = {None: "", True: "[green]holds[/]", False: "[bold red]MISSED[/]"}[line.holds]
        if line.unevenness > UNEVEN:
            verdict += f" [yellow]rounds differ {line.unevenness:.1f} ×[/]"
        ratio = "–" if line.ratio is None else f"{line.ratio:.2f}"
        shown.add_row(
            line.name,
            f"[dim]{line.note}[/]" if line.our_median is None else f"{figure(line.our_median)} {line.unit}",
            "–" if line.baseline_median is None else figure(line.baseline_median),
            ratio,
            str(line.goal) if line.goal else "–",
            verdict,
        )
    return shown


def figure(value: float) -> str:
    """A number with as many digits as matter."""
    return f"{value:,.0f}" if abs(value) >= 100 or value == int(value) else f"{value:.3g}"


def machine() -> str:
    """Processor, cores, memory and versions: what a figure depends on."""
    model = platform.processor() or platform.machine()
    try:
        for row in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if row.startswith("model name"):
                model = row.split(":", 1)[1].strip()
                break
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    except (OSError, ValueError):
        return f"{model}, {os.cpu_count()} cores, Python {platform.python_version()}"
    return f"{model}, {os.cpu_count()} cores, {memory:.0f} GB, Python {platform.python_version()}"
