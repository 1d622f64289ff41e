"""What our programs logged: moves, and errors, some of which are to be expected while their servers are away."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

_RAISED = re.compile(r"raised unexpected: (\w+)\((.{0,120})")
_MOVED = re.compile(r"event='failover\.moved'.*message_ids=\[([\d, ]*)\]")
_DRIVER_RAISED = re.compile(r"event='(send\.driver_raised)'")
_BELT: Final = "message_one_in_flight"
"""The rogue releaser takes lanes under the eyes of a release that had found them free: that one starts again."""
EXPECTED: Final = frozenset(
    {
        # PostgreSQL away: what it says, and what psycopg2 says for it; a bare DatabaseError is a connection that broke
        *("OperationalError", "InterfaceError", "DatabaseError", "PoolExhausted", "AdminShutdown", "CrashShutdown"),
        *("CannotConnectNow", "TooManyConnections"),
        # … and when a process that was frozen in a transaction wakes up: the transaction is gone
        *("IdleInTransactionSessionTimeout", "InternalError"),
        # Valkey away
        *("ConnectionError", "TimeoutError", "ConnectionResetError", "BrokenPipeError"),
    }
)


def unexpected(logs: Iterable[Path]) -> list[str]:
    """One line per error in these files that is not the absence of a server, with the name of its file."""
    return [f"{log.stem}: {line}" for log in logs for line in _in_file(log)]


def _in_file(log: Path) -> Iterator[str]:
    try:
        lines = log.open(errors="replace")
    except FileNotFoundError:
        return
    with lines:
        for line in lines:
            found = _RAISED.search(line)
            if found and found[1] not in EXPECTED and _BELT not in found[2]:
                # Without its numbers, so that a thousand of one kind are one finding.
                yield re.sub(r"\d+", "N", f"{found[1]}({found[2]})")
            elif driver := _DRIVER_RAISED.search(line):
                yield driver[1]


def moved(logs: Iterable[Path]) -> frozenset[int]:
    """Messages that went over to another device's stream, where they stand behind some that are younger."""
    found: set[int] = set()
    for log in logs:
        if log.exists():
            with log.open(errors="replace") as lines:
                found.update(int(n) for line in lines if (told := _MOVED.search(line)) for n in told[1].split(",") if n)
    return frozenset(found)
