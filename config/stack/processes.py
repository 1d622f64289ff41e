"""Who a process is, how it is stopped, and the guard that stops everything when its owner dies.

A pid alone proves nothing: it may belong to somebody else by now. A process is known by its pid *and* the moment it
started, and only a match is ever signalled.

This file is also a program. Run by its path (standard library only, so that it starts at once and imports none of the
project), it is the *guard*: it reads what to stop from its standard input and acts when that pipe closes, which happens
however the owner ends, SIGKILL included. It has a session of its own, so Ctrl-C does not reach it.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

PROC = Path("/proc")
ON_LINUX = sys.platform == "linux"
_POLL_SECONDS = 0.02


@dataclass(frozen=True)
class Identity:
    """One process for ever: ``started`` differs when the pid is used again."""

    pid: int
    started: str


@dataclass(frozen=True)
class Ladder:
    """How to stop a process: each signal in turn with its grace in seconds, and SIGKILL when none helped.

    ``group`` says that the process leads a group of its own, which SIGKILL then clears as a whole.
    """

    steps: tuple[tuple[int, float], ...]
    group: bool = True


@lru_cache(maxsize=1)
def _boot() -> str:
    """Start times count from boot, so the boot is part of the identity."""
    try:
        return (PROC / "sys/kernel/random/boot_id").read_text().strip()[:8]
    except OSError:
        return "boot"


def _linux_stat(pid: int) -> list[str]:
    """Fields of /proc/<pid>/stat from the state on (proc_pid_stat(5)); the command name before it may hold anything."""
    try:
        return (PROC / str(pid) / "stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return []


def identify(pid: int) -> Identity | None:
    """The identity of a live process; None when there is none (a zombie has ended)."""
    if ON_LINUX:
        fields = _linux_stat(pid)
        if not fields or fields[0] in "ZXx":
            return None
        return Identity(pid=pid, started=f"{fields[19]}@{_boot()}")
    answer = subprocess.run(["ps", "-o", "stat=,lstart=", "-p", str(pid)], capture_output=True, text=True, check=False)
    state, _, started = answer.stdout.strip().partition(" ")
    if not state or state.startswith("Z"):
        return None
    return Identity(pid=pid, started=" ".join(started.split()))


def is_alive(who: Identity) -> bool:
    return identify(who.pid) == who


def identity_from(value: object) -> Identity | None:
    """An identity read back from JSON; None for anything else."""
    if isinstance(value, Mapping) and isinstance(value.get("pid"), int) and isinstance(value.get("started"), str):
        return Identity(pid=value["pid"], started=value["started"])
    return None


def identities_in(*, folder: Path, program: str) -> list[Identity]:
    """Live processes of ``program`` whose working directory is ``folder``.

    PostgreSQL and Valkey both work in their data folder, so this finds every process of one cluster, also those whose
    parent was killed, and can never name a server of somebody else. Empty where there is no /proc.
    """
    if not ON_LINUX:
        return []
    wanted = folder.resolve()
    found = []
    for entry in PROC.iterdir():
        if not entry.name.isdigit():
            continue
        with contextlib.suppress(OSError):
            executable = Path(str((entry / "exe").readlink()).removesuffix(" (deleted)"))
            if executable.name == program and (entry / "cwd").readlink() == wanted:
                who = identify(int(entry.name))
                if who:
                    found.append(who)
    return found


def send(who: Identity, number: int) -> bool:
    """Signal exactly this process; False when it is gone."""
    if not is_alive(who):
        return False
    try:
        os.kill(who.pid, number)
    except ProcessLookupError:
        return False
    return True


def group_is_alive(who: Identity) -> bool:
    """Whether anything of the group that ``who`` leads (or led) still runs.

    A pid is not given out again while a group carries its number, so a group without its leader is still ours; a leader
    with another start time means that the group ended and the number went to a stranger.
    """
    present = identify(who.pid)
    if present and present != who:
        return False
    if not ON_LINUX:
        try:
            os.killpg(who.pid, 0)
        except (ProcessLookupError, PermissionError):
            return False
        return True
    for entry in PROC.iterdir():
        if entry.name.isdigit():
            fields = _linux_stat(int(entry.name))
            if fields and fields[0] not in "ZXx" and fields[2] == str(who.pid):
                return True
    return False


def kill_group(who: Identity) -> None:
    if group_is_alive(who):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(who.pid, signal.SIGKILL)


def wait_gone(
    who: Identity,
    *,
    seconds: float,
    reap: Callable[[], object] | None = None,
    hurried: Callable[[], bool] = lambda: False,
) -> bool:
    """Wait until ``who`` has ended. ``reap`` collects a child of ours; ``hurried`` cuts the wait to half a second."""
    begin = time.monotonic()
    while True:
        if reap:
            reap()
        if not is_alive(who):
            return True
        waited = time.monotonic() - begin
        if waited >= seconds or (waited >= 0.5 and hurried()):
            return False
        time.sleep(_POLL_SECONDS)


def stop(
    who: Identity,
    ladder: Ladder,
    *,
    reap: Callable[[], object] | None = None,
    hurried: Callable[[], bool] = lambda: False,
) -> None:
    """Stop one process, and with ``ladder.group`` whatever is left of its group. Returns when it is gone."""
    for number, seconds in ladder.steps:
        if not send(who, number) or wait_gone(who, seconds=seconds, reap=reap, hurried=hurried):
            break
    else:
        send(who, signal.SIGKILL)
        wait_gone(who, seconds=5, reap=reap)
    if ladder.group:
        kill_group(who)


def stop_all(processes: Iterable[Identity], *, number: int, seconds: float) -> bool:
    """Signal several processes at once; whether all of them ended in time."""
    processes = list(processes)
    for who in processes:
        send(who, number)
    deadline = time.monotonic() + seconds
    return all(wait_gone(who, seconds=max(0.0, deadline - time.monotonic())) for who in processes)


# -- The guard ---------------------------------------------------------------------------------------------------------


def watch_line(who: Identity, ladder: Ladder) -> str:
    """What the owner writes to the guard when it starts something."""
    return json.dumps({"watch": asdict(who), "steps": ladder.steps, "group": ladder.group}) + "\n"


def forget_line(who: Identity) -> str:
    """What the owner writes to the guard when that has ended."""
    return json.dumps({"forget": asdict(who)}) + "\n"


def _note(watched: dict[Identity, Ladder], line: str) -> None:
    order: dict[str, Any] = json.loads(line)
    gone = identity_from(order.get("forget"))
    if gone:
        watched.pop(gone, None)
    who = identity_from(order.get("watch"))
    if who:
        steps = tuple((int(number), float(seconds)) for number, seconds in order["steps"])
        watched[who] = Ladder(steps=steps, group=bool(order["group"]))


def guard(*, owner: int, orders: int) -> None:
    """Read orders from the descriptor ``orders`` until the owner is gone; then stop what it left, newest first.

    A forked child of the owner may hold the pipe open, so a change of our parent ends the watch as well.
    """
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    watched: dict[Identity, Ladder] = {}
    pending = b""
    while True:
        readable, _, _ = select.select([orders], [], [], 1.0)
        if readable:
            received = os.read(orders, 65536)
            if not received:
                break
            *lines, pending = (pending + received).split(b"\n")
            for line in lines:
                _note(watched, line.decode())
        elif os.getppid() != owner:
            break
    for who, ladder in reversed(watched.items()):
        stop(who, ladder)


if __name__ == "__main__":
    guard(owner=int(sys.argv[1]), orders=sys.stdin.fileno())
