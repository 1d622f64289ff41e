"""An early pytest plugin: real PostgreSQL and Valkey for the session, before Django's settings ask where they are.

Loaded by ``-p tests.servers``. With ``DATABASE_URL`` and ``REDIS_URL`` set it starts nothing. Each session owns a stack
of its own below ``.local/test``; a second session at the same time takes the next folder beside it, so neither sees the
other's data nor ends its servers. However pytest ends, the guard ends the servers.
"""

from __future__ import annotations

import atexit
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from config.stack.addresses import external
from config.stack.errors import AlreadyRunning, StackError
from config.stack.local import LocalStack
from config.stack.places import local_root

_SESSIONS_AT_ONCE = 16
_NO_SERVERS_NEEDED = {"--help", "-h", "--version", "-V", "--collect-only", "--co", "--markers", "--fixtures"}
_EXPORTED = ("DATABASE_URL", "REDIS_URL")

_stack: LocalStack | None = None


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_load_initial_conftests(args: list[str]) -> Iterator[None]:
    """A wrapper, so that it runs before pytest-django reads the settings in its own (plain) hook."""
    if not _NO_SERVERS_NEEDED.intersection(args):
        _start()
    yield


@pytest.hookimpl(trylast=True)
def pytest_unconfigure() -> None:
    """The end of the session, also after Ctrl-C; trylast, since others close their connections here."""
    _stop()


def pytest_report_header() -> str:
    return f"servers: {_stack.root if _stack else 'from the environment'}"


def _start() -> None:
    global _stack  # noqa: PLW0603 - pytest hooks share no object this early
    try:
        if external() or _stack:
            return
        _stack = _own_stack(local_root() / "test")
    except StackError as error:
        raise pytest.UsageError(str(error)) from None
    atexit.register(_stop)  # a usage error later on ends pytest without unconfiguring
    environment = _stack.environment()
    for name in _EXPORTED:
        os.environ[name] = environment[name]
    # a machine that is busy with other things may stand still for long, and takes nobody's transaction away for it
    os.environ.setdefault("FLOTILLA_IDLE_TRANSACTION_SECONDS", "80")


def _own_stack(root: Path) -> LocalStack:
    """The first of ``test``, ``test-2``, ``test-3`` … that no other session owns, started."""
    for number in range(1, _SESSIONS_AT_ONCE + 1):
        stack = LocalStack(root if number == 1 else root.with_name(f"{root.name}-{number}"), durable=False)
        try:
            stack.start()
        except AlreadyRunning:
            continue
        return stack
    raise StackError(f"{_SESSIONS_AT_ONCE} test sessions run already; their servers are below {root.parent}.")


def _stop() -> None:
    global _stack
    if _stack is None:
        return
    stack, _stack = _stack, None
    stack.stop()
    for name in _EXPORTED:
        os.environ.pop(name, None)
