"""What the tests of the local stack share: roots of their own, owners that can be killed, and waiting with a limit."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from config.stack import processes
from config.stack.local import erase
from config.stack.places import CHECKOUT, Account, database_account
from config.stack.processes import Identity

OWNER = """
import json, sys
from pathlib import Path
from config.stack.local import LocalStack

stack = LocalStack(Path(sys.argv[1]), durable=False)
stack.start()
told = {name: child.pid for name, child in stack.servers.items()}
told["guard"] = stack.children.guard.pid
told["url"] = stack.environment()["DATABASE_URL"]
print(json.dumps(told), flush=True)
sys.stdin.read()
stack.stop()
"""


def wait_for(condition: Callable[[], object], *, what: str, seconds: float = 60.0) -> None:
    """Wait until ``condition`` holds; fail with ``what`` when it does not in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds:.0f} s: {what}"
        time.sleep(0.02)


def wait_gone(*pids: Identity) -> None:
    wait_for(
        lambda: not any(map(processes.is_alive, pids)), what=f"the end of {[(w, processes.is_alive(w)) for w in pids]}"
    )


def identity(pid: int) -> Identity:
    who = processes.identify(pid)
    assert who is not None, f"process {pid} does not run"
    return who


def environment_without_servers(**more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name not in {"DATABASE_URL", "REDIS_URL"}}
    return {**kept, **more}


@contextlib.contextmanager
def fresh_root(*, mode: int = 0o711, inside: str = "local") -> Iterator[Path]:
    """A root in a folder of ``mode``; everything the stack made for it is removed afterwards, wherever it is."""
    parent = Path(tempfile.mkdtemp(prefix="flotilla-test-"))
    parent.chmod(mode)
    try:
        yield parent / inside
    finally:
        erase(parent / inside)
        shutil.rmtree(parent)


class Owner:
    """A process of its own that owns a stack until it is told to end, or killed."""

    def __init__(self, root: Path, *, env: Mapping[str, str] | None = None) -> None:
        self.popen = subprocess.Popen(
            [sys.executable, "-c", OWNER, str(root)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=CHECKOUT,
            env=env or environment_without_servers(),
        )
        self.identity = identity(self.popen.pid)
        self.started: dict[str, Identity] = {}
        self.database_url = ""

    def wait_started(self) -> None:
        assert self.popen.stdout
        line = self.popen.stdout.readline()
        assert line, f"the owner ended with {self.popen.wait()}"
        told = json.loads(line)
        self.database_url = told.pop("url")
        self.started = {name: identity(pid) for name, pid in told.items()}

    def kill(self) -> None:
        self.popen.kill()
        self.popen.wait()

    def end(self) -> None:
        """Let it end by itself."""
        assert self.popen.stdin
        self.popen.stdin.close()
        assert self.popen.wait(timeout=60) == 0

    def close(self) -> None:
        if self.popen.poll() is None:
            self.kill()
        for stream in (self.popen.stdin, self.popen.stdout):
            if stream:
                stream.close()


@contextlib.contextmanager
def owner_of(root: Path, *, wait: bool = True) -> Iterator[Owner]:
    owner = Owner(root)
    try:
        if wait:
            owner.wait_started()
        yield owner
    finally:
        owner.close()
        for who in owner.started.values():
            processes.wait_gone(who, seconds=60)


@contextlib.contextmanager
def bystander(account: Account | None = None) -> Iterator[Identity]:
    """A process that has nothing to do with us, as ``account`` when we are root."""
    popen = subprocess.Popen(["/bin/sleep", "600"], cwd="/", **(account.popen_options() if account else {}))
    try:
        yield identity(popen.pid)
    finally:
        popen.kill()
        popen.wait()


__all__ = [
    "CHECKOUT",
    "Owner",
    "bystander",
    "database_account",
    "environment_without_servers",
    "fresh_root",
    "identity",
    "owner_of",
    "wait_for",
    "wait_gone",
]
