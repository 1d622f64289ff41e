"""Starting processes so that none of them can outlive us.

The order of things closes every gap: the guard runs first; a child is born waiting for one line on its standard input;
the guard learns its identity; only then the line is written and the child becomes its program. If we are killed in
between, the child reads the end of the pipe and ends by itself.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from config.stack import processes
from config.stack.errors import StackError
from config.stack.places import Account
from config.stack.processes import Identity, Ladder

_WAIT_THEN_BECOME = 'IFS= read -r go && exec "$@" </dev/null'
# The same for a command that keeps our terminal as its standard input: it waits on a descriptor of its own.
_WAIT_ON_THEN_BECOME = """
import os, sys
birth = int(sys.argv[1])
if not os.read(birth, 1):
    sys.exit(1)
os.close(birth)
try:
    os.execvp(sys.argv[2], sys.argv[2:])
except OSError as error:
    sys.exit(f"{sys.argv[2]} cannot be run: {error.strerror}.")
"""


@dataclass(frozen=True)
class Child:
    """One process that we started. ``log_offset`` is where its own lines begin in ``log``."""

    name: str
    identity: Identity
    ladder: Ladder
    popen: subprocess.Popen[bytes] = field(repr=False)
    log: Path | None = None
    log_offset: int = 0

    @property
    def pid(self) -> int:
        return self.identity.pid

    def exit_code(self) -> int | None:
        """None while it runs; negative for a signal, as in :mod:`subprocess`."""
        return self.popen.poll()

    def logged(self, *, limit_bytes: int = 65536) -> str:
        """The end of what this child has written so far."""
        if self.log is None:
            return ""
        try:
            with self.log.open("rb") as log:
                end = log.seek(0, os.SEEK_END)
                log.seek(max(self.log_offset, end - limit_bytes))
                return log.read(limit_bytes).decode(errors="replace")
        except OSError:
            return ""

    def last_words(self, *, limit: int = 200) -> str:
        """The last line of its log that says something."""
        lines = [line.strip() for line in self.logged(limit_bytes=8192).splitlines() if line.strip()]
        return lines[-1][:limit] if lines else "nothing was logged"


class Children:
    """Every process of one owner, under one guard. Used from one thread."""

    def __init__(self) -> None:
        self._guard: subprocess.Popen[bytes] | None = None
        self._watched: dict[Identity, Child] = {}

    @property
    def guard(self) -> Identity | None:
        return processes.identify(self._guard.pid) if self._guard else None

    def open(self) -> None:
        """Start the guard, also again after somebody killed it."""
        if self._guard and self._guard.poll() is None:
            return
        self._close_guard()
        self._guard = subprocess.Popen(
            [sys.executable, "-I", "-S", processes.__file__, str(os.getpid())],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            start_new_session=True,
        )
        for child in self._watched.values():
            self._tell(processes.watch_line(child.identity, child.ladder))

    def start(
        self,
        *,
        name: str,
        argv: Sequence[str],
        ladder: Ladder,
        env: Mapping[str, str],
        cwd: Path,
        log: Path,
        account: Account | None = None,
    ) -> Child:
        """Start ``argv`` in a session of its own, its output appended to ``log``, as ``account`` when we are root."""
        self.open()
        with open_log(log) as output:
            offset = output.seek(0, os.SEEK_END)
            popen = subprocess.Popen(
                ["/bin/sh", "-c", _WAIT_THEN_BECOME, "sh", *argv],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                cwd=cwd,
                env=dict(env),
                start_new_session=True,
                **(account.popen_options() if account else {}),
            )
        child = self._adopt(name=name, popen=popen, ladder=ladder, log=log, log_offset=offset)
        if popen.stdin is None:
            raise StackError(f"{name} has no standard input.")
        with contextlib.suppress(BrokenPipeError), popen.stdin as birth:
            birth.write(b"go\n")
        return child

    def start_in_foreground(self, *, name: str, argv: Sequence[str], ladder: Ladder, env: Mapping[str, str]) -> Child:
        """Start ``argv`` in our own session and group, with our terminal."""
        if shutil.which(argv[0], path=env.get("PATH")) is None:
            raise StackError(f"{argv[0]} cannot be run: there is no such command.")
        self.open()
        waits, birth = os.pipe()
        # Closed unused when we are interrupted before the end of this block: then the child ends by itself.
        with os.fdopen(birth, "wb", buffering=0) as release:
            try:
                popen = subprocess.Popen(
                    [sys.executable, "-I", "-S", "-c", _WAIT_ON_THEN_BECOME, str(waits), *argv],
                    env=dict(env),
                    pass_fds=[waits],
                )
            finally:
                os.close(waits)
            child = self._adopt(name=name, popen=popen, ladder=ladder)
            with contextlib.suppress(BrokenPipeError):
                release.write(b"g")
        return child

    def _adopt(
        self, *, name: str, popen: subprocess.Popen[bytes], ladder: Ladder, log: Path | None = None, log_offset: int = 0
    ) -> Child:
        """Put a process that was just started, and waits for its release, under the guard."""
        # A child that has ended already is a zombie until it is reaped; its pid is still ours.
        identity = processes.identify(popen.pid) or Identity(pid=popen.pid, started="ended")
        child = Child(name=name, identity=identity, ladder=ladder, popen=popen, log=log, log_offset=log_offset)
        self._watched[identity] = child
        self._tell(processes.watch_line(identity, ladder))
        return child

    def stop(self, child: Child, *, hurried: Callable[[], bool] = lambda: False) -> None:
        """Stop ``child`` by its ladder and collect it."""
        processes.stop(child.identity, child.ladder, reap=child.popen.poll, hurried=hurried)
        self.forget(child)

    def forget(self, child: Child) -> None:
        """``child`` has ended: clear what is left of its group, collect it, and tell the guard."""
        if child.ladder.group:
            processes.kill_group(child.identity)
        child.popen.wait()
        if self._watched.pop(child.identity, None):
            self._tell(processes.forget_line(child.identity))

    def close(self, *, hurried: Callable[[], bool] = lambda: False) -> None:
        """Stop every child that is left, newest first, and the guard."""
        for child in reversed(list(self._watched.values())):
            self.stop(child, hurried=hurried)
        self._close_guard()

    def _close_guard(self) -> None:
        if self._guard is None:
            return
        if self._guard.stdin:
            with contextlib.suppress(BrokenPipeError):
                self._guard.stdin.close()
        self._guard.wait()
        self._guard = None

    def _tell(self, line: str) -> None:
        if self._guard and self._guard.stdin:
            with contextlib.suppress(BrokenPipeError):  # killed: open() starts the next one and tells it everything
                self._guard.stdin.write(line.encode())
                self._guard.stdin.flush()


def open_log(path: Path, *, limit_bytes: int = 20_000_000) -> IO[bytes]:
    """A private log to append to; a large one is put aside first, so that at most two of them are kept."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with contextlib.suppress(FileNotFoundError):
        if path.stat().st_size > limit_bytes:
            path.replace(path.with_suffix(".old.log"))
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab")
