"""A proxy that can be shut and opened again: what is behind it goes away for whoever comes through it."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator

Address = tuple[str, int] | str
"""Host and port, or the path of a UNIX socket."""


class Proxy:
    """Forwards bytes from ``address`` to ``target`` while it is open. Subclasses look at what passes."""

    def __init__(self, target: Address, *, at: Address = ("127.0.0.1", 0)) -> None:
        self._target = target
        self._sockets: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self.address = at
        self.open()

    @property
    def port(self) -> int:
        return int(self.address[1])

    def open(self) -> None:
        """Take connections, again at the same address."""
        self._listener = socket.socket(_family(self.address))
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._listener.bind(self.address)
        self._listener.listen()
        self.address = self._listener.getsockname()
        self._start(self._accept)

    def shut(self) -> None:
        """Break every connection and take no more."""
        end(self._listener)
        self._listener.close()
        for sock in self._sockets:
            end(sock)
        for thread in self._threads:
            thread.join(10)
        for sock in self._sockets:
            sock.close()
        self._sockets, self._threads = [], []

    def up(self, client: socket.socket, server: socket.socket) -> None:
        """Forward what the client sends."""
        _forward(client, server)

    def down(self, server: socket.socket, client: socket.socket) -> None:
        """Forward what the server answers."""
        _forward(server, client)

    def _start(self, work, *arguments) -> None:
        thread = threading.Thread(target=work, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client = self._listener.accept()[0]
                server = socket.socket(_family(self._target))
                self._sockets += [client, server]
                server.connect(self._target)
                self._start(self.up, client, server)
                self._start(self.down, server, client)


def end(sock: socket.socket) -> None:
    """Break a connection, or a listener's wait, for all threads."""
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)


def _family(address: Address) -> socket.AddressFamily:
    return socket.AF_UNIX if isinstance(address, str) else socket.AF_INET


def _forward(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    end(source)
    end(target)


@contextlib.contextmanager
def proxy(target: Address) -> Iterator[Proxy]:
    """An open one on a free port, shut at the end."""
    made = Proxy(target)
    try:
        yield made
    finally:
        made.shut()
