"""One private Valkey: loopback only, behind a password, on a port nobody else had."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from config.stack import processes
from config.stack.children import Child, Children
from config.stack.errors import StackError
from config.stack.ports import LOOPBACK, any_free_port, is_free
from config.stack.private_files import create_once, write_private
from config.stack.processes import Ladder

LADDER = Ladder(steps=((signal.SIGTERM, 10.0),))
START_SECONDS = 60.0
_ATTEMPTS = 5


@dataclass(frozen=True)
class Keyspace:
    """Where one Valkey lives. It is the wake-up, not the truth, so it keeps nothing on disk unless ``appendonly``."""

    home: Path
    program: Path
    appendonly: bool

    def password(self) -> str:
        return create_once(self.home / "password", secrets.token_urlsafe(32)).strip()

    def port(self) -> int | None:
        """The port of the last start: kept over a restart, so that addresses handed out stay true."""
        try:
            return int((self.home / "port").read_text())
        except (OSError, ValueError):
            return None

    def url(self) -> str:
        return f"redis://:{self.password()}@{LOOPBACK}:{self.port()}/0"


def locate(*, root: Path, program: Path, appendonly: bool) -> Keyspace:
    home = root / "valkey"
    home.mkdir(mode=0o700, exist_ok=True)
    if not os.access(home, os.R_OK | os.W_OK | os.X_OK):
        raise StackError(f"{home} belongs to somebody else. FLOTILLA_LOCAL names another place.")
    return Keyspace(home=home, program=program, appendonly=appendonly)


def clear_leftovers(keyspace: Keyspace) -> None:
    """End a Valkey that outlived its owner; the caller owns the stack's lock."""
    for who in processes.identities_in(folder=keyspace.home, program=keyspace.program.name):
        processes.stop(who, LADDER)


def start(
    keyspace: Keyspace, *, children: Children, log: Path, started: Callable[[Child], None] = lambda _child: None
) -> Child:
    """Start Valkey and wait until it takes our password. Another port is tried when somebody was faster."""
    last_words = ""
    for _ in range(_ATTEMPTS):
        remembered = keyspace.port()
        port = remembered if remembered and is_free(remembered) else any_free_port()
        write_private(keyspace.home / "port", str(port))
        write_private(keyspace.home / "valkey.conf", _configuration(keyspace, port=port))
        child = children.start(
            name="valkey",
            argv=[str(keyspace.program), str(keyspace.home / "valkey.conf")],
            ladder=LADDER,
            env={"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"},
            cwd=keyspace.home,
            log=log,
        )
        started(child)
        deadline = time.monotonic() + START_SECONDS
        while child.exit_code() is None:
            if answers(keyspace):
                return child
            if time.monotonic() > deadline:
                children.stop(child)
                raise StackError(f"Valkey does not answer after {START_SECONDS:.0f} seconds ({log})")
            time.sleep(0.02)
        last_words = child.last_words()
        children.forget(child)
        (keyspace.home / "port").unlink(missing_ok=True)
    raise StackError(f"Valkey did not start: {last_words} ({log})")


def answers(keyspace: Keyspace) -> bool:
    """Whether the server on our port is ours and ready: a stranger does not know the password."""
    port = keyspace.port()
    if port is None:
        return False
    with contextlib.suppress(OSError), socket.create_connection((LOOPBACK, port), timeout=2) as connection:
        connection.sendall(f"AUTH {keyspace.password()}\r\nPING\r\n".encode())
        answer = b""
        while answer.count(b"\r\n") < 2:
            received = connection.recv(256)
            if not received:
                return False
            answer += received
        return answer.startswith(b"+OK\r\n+PONG")
    return False


def _configuration(keyspace: Keyspace, *, port: int) -> str:
    """The password stays out of the command line, which every account on the machine may read."""
    lines = {
        "bind": LOOPBACK,
        "port": port,
        "protected-mode": "yes",
        "requirepass": keyspace.password(),
        "daemonize": "no",
        "save": '""',
        "appendonly": "yes" if keyspace.appendonly else "no",
        "appendfsync": "everysec",
        "maxmemory-policy": "noeviction",
        "tcp-keepalive": 60,
        "timeout": 0,
    }
    return "".join(f"{name} {value}\n" for name, value in lines.items())
