"""The ledger's file: JSON lines of one simulator at a time, each handed to the kernel before the answer leaves."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any


class LedgerUnusable(Exception):  # noqa: N818 - reads as a fact
    """The ledger's file cannot be used, with words that say why."""


class LedgerFile:
    """An open file that no other simulator has. Raises LedgerUnusable."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise LedgerUnusable(f"cannot open {path}: {error.strerror}") from None
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.close()
            raise LedgerUnusable(f"{path} is the ledger of a simulator that is running") from None

    def read_back(self, take: Callable[[dict[str, Any]], None]) -> None:
        """Hand every whole line to ``take``. A torn last one (its writer was killed) is cut off: its answer never left.

        Raises LedgerUnusable, and lets go of the file, for a line that is none of a ledger's.
        """
        whole = 0
        with self._path.open("rb") as lines:
            for position, line in enumerate(lines, start=1):
                if not line.endswith(b"\n"):
                    break
                try:
                    take(json.loads(line))
                except (ValueError, KeyError, TypeError, IndexError, AttributeError, OverflowError):
                    self.close()
                    text = f"{self._path}, line {position}: not a line of a simulator's ledger"
                    raise LedgerUnusable(text) from None
                whole += len(line)
        self.cut_to(whole)

    def append(self, line: dict[str, Any]) -> None:
        """Write one line, whole."""
        data = json.dumps(line, separators=(",", ":")).encode() + b"\n"
        while data:
            data = data[os.write(self._file, data) :]

    def cut_to(self, size: int) -> None:
        """Forget what is behind so many bytes."""
        os.ftruncate(self._file, size)

    def close(self) -> None:
        """Let go of the file."""
        os.close(self._file)
