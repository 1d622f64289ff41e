"""Ctrl-C, SIGTERM and a closed terminal: the first one ends the work, the next ones only hurry the ending."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from types import FrameType
from typing import Any

from config.stack import processes
from config.stack.processes import Identity

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupted(KeyboardInterrupt):
    """Somebody asked us to end. ``number`` is the signal."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


class Interrupts:
    """In the main thread, raises :class:`Interrupted` once; while ending, further signals set ``hurried``."""

    def __init__(self) -> None:
        self._ending = False
        self._hurried = False
        self._bound_to = _process_to_outlive()

    def begin_ending(self) -> None:
        """From here on nothing is raised any more: whatever runs now is the clearing up."""
        self._ending = True

    def hurried(self) -> bool:
        return self._hurried

    def check(self) -> None:
        """End as on SIGTERM when the process named in ``FLOTILLA_ENDS_WITH`` (the make that called us) is gone."""
        if self._bound_to and not self._ending and not processes.is_alive(self._bound_to):
            self._ending = True
            raise Interrupted(signal.SIGTERM)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        del frame
        if self._ending:
            self._hurried = True
            return
        self._ending = True
        raise Interrupted(number)

    @contextlib.contextmanager
    def installed(self) -> Iterator[Interrupts]:
        """Handle the signals inside. A hang-up that was ignored (nohup) stays ignored."""
        before: dict[int, Any] = {}
        for number in SIGNALS:
            found = signal.getsignal(number)
            if number == signal.SIGHUP and found == signal.SIG_IGN:
                continue
            before[number] = found
            signal.signal(number, self._handle)
        try:
            yield self
        finally:
            self._ending = True
            for installed, handler in before.items():
                signal.signal(installed, handler if handler is not None else signal.SIG_DFL)


def _process_to_outlive() -> Identity | None:
    pid = os.environ.get("FLOTILLA_ENDS_WITH", "")
    return processes.identify(int(pid)) if pid.isascii() and pid.isdigit() else None
