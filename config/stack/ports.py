"""Finding ports on the loopback address."""

from __future__ import annotations

import contextlib
import socket

from config.stack.errors import StackError

LOOPBACK = "127.0.0.1"
_TRIES = 50


def is_free(port: int) -> bool:
    """Whether a server could listen on ``port`` now. Connections that are only timing out do not count."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


def any_free_port() -> int:
    """A port that the kernel says is free at this moment; its user must cope with losing the race for it."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind((LOOPBACK, 0))
        port: int = probe.getsockname()[1]
    return port


def answers(port: int) -> bool:
    """Whether something accepts connections on ``port``."""
    with contextlib.suppress(OSError), socket.create_connection((LOOPBACK, port), timeout=1):
        return True
    return False


def pick(*, name: str, preferred: int, asked: int | None = None, taken: frozenset[int] = frozenset()) -> int:
    """The port that was asked for, or the first free one from ``preferred`` on, outside ``taken``.

    Raises :class:`StackError` when the one asked for is in use: who names a port expects to find us there.
    """
    if asked is not None:
        if not 0 < asked < 65536:
            raise StackError(f"{asked} is not a port for {name}; ports go from 1 to 65535.")
        if asked in taken or not is_free(asked):
            raise StackError(f"Port {asked} for {name} is in use; choose another.")
        return asked
    for port in range(preferred, min(preferred + _TRIES, 65536)):
        if port not in taken and is_free(port):
            return port
    raise StackError(f"No free port for {name} between {preferred} and {preferred + _TRIES - 1}.")
