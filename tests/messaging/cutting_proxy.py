"""Stands between a pool and PostgreSQL and cuts the connection that carries a certain command, at a chosen moment."""

from __future__ import annotations

import contextlib
import socket
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

from django.db import connection

CLAIM = b"EXECUTE flotilla_claim"


class CuttingProxy:
    """Forwards bytes. :meth:`arm` makes it cut the next connection that sends ``command``, once.

    ``swallow``: the server carries it out and its answer is lost. ``drop``: it never reaches the server.
    ``late``: the client sees the connection break, and the server gets it when :meth:`deliver` is called.
    """

    def __init__(self, folder: Path) -> None:
        params = connection.settings_dict
        self._host, self._port = params["HOST"], int(params.get("PORT") or 5432)
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(folder / f".s.PGSQL.{self._port}"))
        self._listener.listen()
        self._threads: list[threading.Thread] = []
        self._sockets: list[socket.socket] = []
        self._late: tuple[socket.socket, bytes] | None = None
        self._deaf: set[socket.socket] = set()
        self._answered = threading.Event()
        self._mode, self._command = "", b""
        self.folder = folder
        self._start(self._accept)

    def arm(self, mode: str, *, command: bytes = CLAIM) -> None:
        self._mode, self._command = mode, command

    def deliver(self) -> None:
        """Let the command that was held back reach the server, and wait for its answer."""
        assert self._late is not None
        server, data = self._late
        server.sendall(data)
        assert self._answered.wait(10)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for sock in self._sockets:
            _end(sock)
        for thread in self._threads:
            thread.join(10)
        for sock in self._sockets:
            sock.close()

    def _start(self, work, *arguments) -> None:
        thread = threading.Thread(target=work, args=arguments)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client = self._listener.accept()[0]
                unix = self._host.startswith("/")
                server = socket.socket(socket.AF_UNIX if unix else socket.AF_INET)
                self._sockets += [client, server]
                server.connect(f"{self._host}/.s.PGSQL.{self._port}" if unix else (self._host, self._port))
                self._start(self._up, client, server)
                self._start(self._down, server, client)

    def _up(self, client: socket.socket, server: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := client.recv(65536):
                if self._mode and self._command in data:
                    self._cut(client, server, data)
                    return
                server.sendall(data)
        _end(server)

    def _cut(self, client: socket.socket, server: socket.socket, data: bytes) -> None:
        mode, self._mode = self._mode, ""
        self._deaf.add(server)
        match mode:
            case "swallow":
                server.sendall(data)  # its answer ends the connection
            case "late":
                self._late = server, data
                _end(client)
            case _:
                _end(client)
                _end(server)

    def _down(self, server: socket.socket, client: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := server.recv(65536):
                if server in self._deaf:
                    self._answered.set()
                    break
                client.sendall(data)
        _end(client)
        _end(server)


def _end(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def cutting_proxy() -> Iterator[CuttingProxy]:
    """A running proxy; ``folder`` is the ``host`` that a connection goes to it by."""
    with tempfile.TemporaryDirectory(prefix="fl") as folder:
        proxy = CuttingProxy(Path(folder))
        try:
            yield proxy
        finally:
            proxy.close()
