"""Processor time by program, as Linux counts it."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")


def seconds_by_program(*, names: Mapping[int, str]) -> dict[str, float]:
    """Seconds of processor time used so far by programs and all processes below them (proc(5): utime to cstime).

    ``names`` says what to call the programs, by process id. Empty where there is no /proc.
    """
    parents: dict[int, int] = {}
    used: dict[int, float] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        if fields := _stat(folder.name):
            pid = int(folder.name)
            parents[pid] = int(fields[1])
            used[pid] = sum(map(int, fields[11:15])) / TICKS
    found: defaultdict[str, float] = defaultdict(float)
    for pid, seconds in used.items():
        name = next((names[each] for each in _upwards(pid, parents) if each in names), None)
        if name is not None:
            found[name] += seconds
    return dict(found)


def parent_of(pid: int) -> int:
    """The process above one of ours that runs; 0 if it cannot be told."""
    fields = _stat(str(pid))
    return int(fields[1]) if fields else 0


def _stat(pid: str) -> list[str]:
    """What follows the command in a process's ``stat``; empty if it has ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
    except OSError:
        return []


def _upwards(pid: int, parents: Mapping[int, int]) -> list[int]:
    """The process and those above it."""
    line = [pid]
    while (above := parents.get(line[-1])) is not None and above not in line:
        line.append(above)
    return line
