"""Counting what a worker process has done, alike in every worker that is compared.

``hit()`` adds one. From the first one on a thread appends ``<monotonic seconds> <count>`` to the file named by
``BENCH_PROGRESS`` ten times a second: no message, and no round trip, is spent on being measured.
"""

from __future__ import annotations

import os
import threading
import time

REPORT_SECONDS = 0.1

_lock = threading.Lock()
_count = 0


def hit() -> None:
    """One more is done."""
    global _count  # noqa: PLW0603 - one count for the process is what is measured
    with _lock:
        _count += 1
        first = _count == 1
    if first:
        threading.Thread(target=_report, name="bench-report", daemon=True).start()


def _report() -> None:
    with open(os.environ["BENCH_PROGRESS"], "a", buffering=1, encoding="utf-8") as file:  # noqa: PTH123 - also outside the project
        while True:
            file.write(f"{time.monotonic():.6f} {_count}\n")
            time.sleep(REPORT_SECONDS)
