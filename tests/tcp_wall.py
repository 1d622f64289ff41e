"""A TCP proxy that can be shut and opened again: what is behind it goes away for whoever comes through it."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator


class Wall:
    """Forwards connections from ``port`` on the loopback address to ``target`` while it is open."""

    def __init__(self, target: tuple[str, int]) -> None:
        self._target = target
        self._sockets: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._listener = self._listen(0)
        self.port: int = self._listener.getsockname()[1]
        self._start(self._accept)

    def shut(self) -> None:
        """Break every connection and take no more."""
        _end(self._listener)
        self._listener.close()
        for sock in self._sockets:
            _end(sock)
        for thread in self._threads:
            thread.join(10)
        for sock in self._sockets:
            sock.close()
        self._sockets, self._threads = [], []

    def open(self) -> None:
        """Take connections again."""
        self._listener = self._listen(self.port)
        self._start(self._accept)

    def _listen(self, port: int) -> socket.socket:
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", port))
        listener.listen()
        return listener

    def _start(self, work, *arguments) -> None:
        thread = threading.Thread(target=work, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client = self._listener.accept()[0]
                server = socket.create_connection(self._target)
                self._sockets += [client, server]
                self._start(_forward, client, server)
                self._start(_forward, server, client)


def _forward(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    _end(source)
    _end(target)


def _end(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def wall(target: tuple[str, int]) -> Iterator[Wall]:
    """An open wall, shut at the end."""
    made = Wall(target)
    try:
        yield made
    finally:
        made.shut()
