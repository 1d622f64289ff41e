"""Stands between a pool and PostgreSQL and cuts the connection that carries a certain command, at a chosen moment."""

from __future__ import annotations

import contextlib
import socket
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

from django.db import connection

from tests.proxy import Proxy, end

CLAIM = b"EXECUTE flotilla_claim"


class CuttingProxy(Proxy):
    """Forwards bytes. :meth:`arm` makes it cut the next connection that sends ``command``, once.

    ``swallow``: the server carries it out and its answer is lost. ``drop``: it never reaches the server.
    ``late``: the client sees the connection break, and the server gets it when :meth:`deliver` is called.
    """

    def __init__(self, folder: Path) -> None:
        params = connection.settings_dict
        host, port = params["HOST"], int(params.get("PORT") or 5432)
        name = f".s.PGSQL.{port}"
        self._late: tuple[socket.socket, bytes] | None = None
        self._deaf: set[socket.socket] = set()
        self._answered = threading.Event()
        self._mode, self._command = "", b""
        self.folder = folder
        super().__init__(f"{host}/{name}" if host.startswith("/") else (host, port), at=str(folder / name))

    def arm(self, mode: str, *, command: bytes = CLAIM) -> None:
        self._mode, self._command = mode, command

    def deliver(self) -> None:
        """Let the command that was held back reach the server, and wait for its answer."""
        assert self._late is not None
        server, data = self._late
        server.sendall(data)
        assert self._answered.wait(10)

    def up(self, client: socket.socket, server: socket.socket) -> None:
        """Until the command comes, everything."""
        with contextlib.suppress(OSError):
            while data := client.recv(65536):
                if self._mode and self._command in data:
                    self._cut(client, server, data)
                    return
                server.sendall(data)
        end(server)

    def _cut(self, client: socket.socket, server: socket.socket, data: bytes) -> None:
        mode, self._mode = self._mode, ""
        self._deaf.add(server)
        match mode:
            case "swallow":
                server.sendall(data)  # its answer ends the connection
            case "late":
                self._late = server, data
                end(client)
            case _:
                end(client)
                end(server)

    def down(self, server: socket.socket, client: socket.socket) -> None:
        """Everything but the answer to the command."""
        with contextlib.suppress(OSError):
            while data := server.recv(65536):
                if server in self._deaf:
                    self._answered.set()
                    break
                client.sendall(data)
        end(client)
        end(server)


@contextlib.contextmanager
def cutting_proxy() -> Iterator[CuttingProxy]:
    """A running proxy; ``folder`` is the ``host`` that a connection goes to it by."""
    with tempfile.TemporaryDirectory(prefix="fl") as folder:
        proxy = CuttingProxy(Path(folder))
        try:
            yield proxy
        finally:
            proxy.shut()
