"""The local stack: one owner per root, its two servers, and the file that tells others where they are."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO

from config.stack import postgres, processes, state, valkey
from config.stack.addresses import external
from config.stack.binaries import valkey_program
from config.stack.children import Child, Children
from config.stack.errors import AlreadyRunning, StackError
from config.stack.keys import local_secrets
from config.stack.places import forget_private_folder, local_root, make_root, pointed
from config.stack.processes import Identity, Ladder
from config.stack.state import State

_OTHERS_START_SECONDS = 180.0
_STOP_SECONDS = 90.0
_LEFTOVER = Ladder(steps=((signal.SIGTERM, 10.0),))


class LocalStack:
    """PostgreSQL and Valkey below ``root``, owned by this process from :meth:`start` to :meth:`stop`.

    With ``DATABASE_URL`` and ``REDIS_URL`` in the environment it starts no server and hands those on; it then only owns
    the root, for the programs on top. ``durable=False`` (tests only) lets PostgreSQL skip fsync. ``listen``: an address
    by which other hosts reach PostgreSQL, too.
    """

    def __init__(
        self,
        root: Path | None = None,
        *,
        durable: bool = True,
        appendonly: bool = False,
        children: Children | None = None,
        listen: str = "",
    ) -> None:
        self.root = (root or local_root()).absolute()
        self.children = children or Children()
        self.urls: dict[str, str] = {}
        self._durable = durable
        self._appendonly = appendonly
        self._listen = listen
        self._lock: IO[bytes] | None = None
        self._external: tuple[str, str] | None = None
        self._cluster: postgres.Cluster | None = None
        self._keyspace: valkey.Keyspace | None = None
        self._servers: dict[str, Child] = {}
        self._programs: dict[str, Identity] = {}
        self._running = False

    # -- Addresses ---------------------------------------------------------------------------------------------------

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    @property
    def servers(self) -> Mapping[str, Child]:
        """The server processes that this stack started, by name."""
        return self._servers

    def environment(self) -> dict[str, str]:
        """Our environment with the servers' addresses and this checkout's secrets: what every child gets.

        A secret that is set from outside stays as it is.
        """
        database_url, redis_url = self._addresses()
        return _environment(self.root, database_url=database_url, redis_url=redis_url)

    def _addresses(self) -> tuple[str, str]:
        if self._external:
            return self._external
        if self._cluster is None or self._keyspace is None:
            raise StackError("The local stack has not been started.")
        return self._cluster.url(), self._keyspace.url()

    # -- Life --------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Own the root, clear what an unclean stop left, and start both servers.

        Raises :class:`AlreadyRunning` when a live process owns the root and :class:`StackError` when a server cannot
        start; nothing is left running then.
        """
        self._external = external()
        make_root(self.root)
        self._take_lock()
        try:
            self._clear_leftovers()
            self.children.open()
            self._write_state()
            if self._external is None:
                self._cluster = postgres.locate(root=self.root, durable=self._durable, listen=self._listen)
                self._keyspace = valkey.locate(root=self.root, program=valkey_program(), appendonly=self._appendonly)
                postgres.clear_leftovers(self._cluster)
                valkey.clear_leftovers(self._keyspace)
                postgres.make(self._cluster, children=self.children, log=self.logs / "postgres.log")
                self._start_valkey()
                self._start_postgres()
            self._running = True
            self._write_state()
        except BaseException:
            self.stop()
            raise

    def stop(self, *, hurried: Callable[[], bool] = lambda: False) -> None:
        """Stop every process that was started through this stack, newest first, and let go of the root."""
        if self._lock is None:
            return
        self._running = False
        self.children.close(hurried=hurried)
        self._servers.clear()
        self._programs.clear()
        state.remove(self.root)
        self._lock.close()  # the lock goes with its descriptor
        self._lock = None

    def clear(self) -> bool:
        """End what an owner that is gone left running, also servers that no state file names; whether anything was.

        Raises :class:`AlreadyRunning` when the owner lives.
        """
        make_root(self.root)
        self._take_lock()
        try:
            found = state.read(self.root)
            left = [who for who in found.processes.values() if processes.is_alive(who)] if found else []
            self._clear_leftovers()
            home = pointed(self.root / "postgres.path") or self.root / "postgres"
            for folder, program, ladder in (
                (home / "data", "postgres", postgres.LADDER),
                (self.root / "valkey", "valkey-server", valkey.LADDER),
            ):
                for who in processes.identities_in(folder=folder, program=program):
                    processes.stop(who, ladder)
                    left.append(who)
        finally:
            self.stop()
        return bool(left)

    def heal(self) -> list[str]:
        """Start again, at the same address, a server that died. Returns the names of those; call it now and then."""
        self.children.open()
        dead = [name for name, child in self._servers.items() if child.exit_code() is not None]
        for name in dead:
            self.children.forget(self._servers.pop(name))
            if name == "valkey":
                self._start_valkey()
            else:
                if self._cluster is None:
                    raise StackError("The local stack has not been started.")
                postgres.clear_leftovers(self._cluster)
                self._start_postgres()
        if dead:
            self._write_state()
        return dead

    def note_programs(self, programs: Mapping[str, Identity]) -> None:
        """Write down which programs run on top, for ``status`` and for clearing up after an unclean stop."""
        self._programs = dict(programs)
        self._write_state()

    def note_urls(self, urls: Mapping[str, str]) -> None:
        self.urls = dict(urls)
        self._write_state()

    # -- Inside ------------------------------------------------------------------------------------------------------

    def _start_postgres(self) -> None:
        if self._cluster is None:
            raise StackError("The local stack has not been started.")
        log = self.logs / "postgres.log"
        child = postgres.start(self._cluster, children=self.children, log=log, started=self._note_server)
        self._note_server(child)

    def _start_valkey(self) -> None:
        if self._keyspace is None:
            raise StackError("The local stack has not been started.")
        log = self.logs / "valkey.log"
        self._note_server(valkey.start(self._keyspace, children=self.children, log=log, started=self._note_server))

    def _note_server(self, child: Child) -> None:
        self._servers[child.name] = child
        self._write_state()

    def _take_lock(self) -> None:
        descriptor = os.open(self.root / "stack.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        lock = os.fdopen(descriptor, "r+b")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.close()
            found = state.read(self.root)
            raise AlreadyRunning(pid=found.owner.pid if found else None, root=str(self.root)) from None
        self._lock = lock

    def _clear_leftovers(self) -> None:
        """End what an owner that was killed left behind, once its guard has had the time to do it properly."""
        found = state.read(self.root)
        if found is None:
            return
        if found.guard:
            processes.wait_gone(found.guard, seconds=_STOP_SECONDS)
        for name, who in reversed(list(found.processes.items())):
            ladder = {"postgres": postgres.LADDER, "valkey": valkey.LADDER}.get(name, _LEFTOVER)
            processes.stop(who, ladder)
        state.remove(self.root)

    def _write_state(self) -> None:
        database_url, redis_url = self._addresses() if self._running else ("", "")
        state.write(
            self.root,
            State(
                owner=state.ourselves(),
                running=self._running,
                guard=self.children.guard,
                processes={name: child.identity for name, child in self._servers.items()} | self._programs,
                urls=self.urls,
                database_url=database_url,
                redis_url=redis_url,
            ),
        )


def _environment(root: Path, *, database_url: str, redis_url: str) -> dict[str, str]:
    set_outside = {name: value for name, value in os.environ.items() if value}
    ours = {"DATABASE_URL": database_url, "REDIS_URL": redis_url, "FLOTILLA_LOCAL": str(root)}
    return {**local_secrets(root), **set_outside, **ours}


@contextlib.contextmanager
def servers_running(root: Path | None = None, *, children: Children | None = None) -> Iterator[dict[str, str]]:
    """An environment in which the servers answer: from outside, from the stack that runs below ``root``, or our own.

    A stack that another process owns is joined, and ends when that process ends it. ``children`` lets the caller keep
    its own processes under the same guard as the servers.
    """
    root = root or local_root()
    if external():
        yield dict(os.environ)
        return
    stack = LocalStack(root, children=children)
    joined = _start_or_join(stack)
    try:
        if joined:
            yield _environment(root, database_url=joined.database_url, redis_url=joined.redis_url)
        else:
            yield stack.environment()
    finally:
        stack.stop()


def _start_or_join(stack: LocalStack) -> State | None:
    """Start ``stack``, or return the state of the one that runs; one just starting or stopping is waited for."""
    deadline = time.monotonic() + _OTHERS_START_SECONDS
    while True:
        try:
            stack.start()
        except AlreadyRunning:
            found = state.read(stack.root)
            if found and found.is_live():
                return found
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)
        else:
            return None


def refuse_if_running(root: Path | None = None) -> None:
    """Raise :class:`AlreadyRunning` when a live process owns the stack below ``root``: before anything else is said."""
    root = root or local_root()
    found = state.read(root)
    if found and processes.is_alive(found.owner):
        raise AlreadyRunning(pid=found.owner.pid, root=str(root))


def end(root: Path | None = None) -> bool:
    """Stop the stack below ``root``, whoever owns it, and what an owner that is gone left. False when nothing ran."""
    root = root or local_root()
    if not root.is_dir():
        return False
    found = state.read(root)
    if found and processes.send(found.owner, signal.SIGTERM):
        if not processes.wait_gone(found.owner, seconds=_STOP_SECONDS):
            raise StackError(f"Process {found.owner.pid} runs the stack and does not stop.")
        return True
    return LocalStack(root).clear()


def erase(root: Path | None = None) -> None:
    """Stop the stack below ``root`` and remove everything it ever wrote, wherever it had to put it."""
    root = root or local_root()
    if not root.is_dir():
        return
    for nested in sorted(root.rglob("stack.lock")):
        end(nested.parent)
    for pointer in sorted((*root.rglob("postgres.path"), *root.rglob("socket.path"))):
        forget_private_folder(pointer)
    shutil.rmtree(root)
