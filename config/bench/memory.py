"""Peak memory of a process, as Linux keeps it."""

from __future__ import annotations

import os
from pathlib import Path

from config.bench.results import BenchFailed


def peak_bytes(pid: int) -> int:
    """The largest resident size so far (``VmHWM``, proc(5)). Raises BenchFailed where there is no such file."""
    try:
        for row in Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace").splitlines():
            if row.startswith("VmHWM:"):
                return int(row.split()[1]) * 1024
    except OSError:
        pass
    raise BenchFailed(f"The peak memory of process {pid} cannot be read (it needs /proc, as on Linux).")


def restart_peak() -> int:
    """Let our own peak start again from the present size, and return that. Raises BenchFailed."""
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # 5 resets VmHWM (proc(5))
    except OSError as problem:
        raise BenchFailed(f"The peak memory cannot be reset: {problem.strerror}.") from None
    return peak_bytes(os.getpid())
