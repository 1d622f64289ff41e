"""How much memory this process holds."""

from __future__ import annotations

import os
from pathlib import Path


def resident_mb() -> int:
    """Resident memory in MiB (proc(5)); 0 where there is no such file."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except OSError:
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE") >> 20
