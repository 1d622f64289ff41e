"""What can go wrong with the local stack, in words that fit on one line."""

from __future__ import annotations


class StackError(Exception):
    """The local stack cannot do what was asked. The text is one line for a person, without secrets."""


class AlreadyRunning(StackError):  # noqa: N818 - reads as a fact
    """Another live process owns this stack."""

    def __init__(self, *, pid: int | None, root: str) -> None:
        who = f"process {pid}" if pid else "another process"
        super().__init__(f"The local stack in {root} is already running ({who}); “manage.py stack stop” ends it.")
        self.pid = pid
