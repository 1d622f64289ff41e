"""A TCP server that does exactly what a test says, byte by byte: for what no well-behaved HTTP server would do."""

from __future__ import annotations

import json
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

STOP_SECONDS = 10.0


@dataclass(frozen=True)
class RawRequest:
    """One request as it arrived."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


class Connection:
    """The server's end of one connection."""

    def __init__(self, sock: socket.socket, server: RawServer) -> None:
        self.sock = sock
        self._server = server
        self._buffer = b""

    def request(self) -> RawRequest | None:
        """The next whole request; None if the client closed instead."""
        while b"\r\n\r\n" not in self._buffer:
            if not self._more():
                return None
        head, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        method, path, _ = first.split(" ")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        length = int(headers.get("content-length", "0"))
        while len(self._buffer) < length:
            if not self._more():
                return None
        body, self._buffer = self._buffer[:length], self._buffer[length:]
        request = RawRequest(method, path, headers, body)
        self._server.requests.append(request)
        return request

    def _more(self) -> bool:
        data = self.sock.recv(65_536)
        self._buffer += data
        return bool(data)

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def answer(self, status: int, body: bytes, *headers: str) -> None:
        lines = [f"HTTP/1.1 {status} X", f"Content-Length: {len(body)}", *headers]
        self.send("\r\n".join(lines).encode() + b"\r\n\r\n" + body)

    def drip(self, data: bytes, *, pause_seconds: float) -> None:
        """Send byte by byte until the client has had enough, or the test is over."""
        for position in range(len(data)):
            if self._server.stopping.wait(pause_seconds):
                return
            self.send(data[position : position + 1])

    def reset(self) -> None:
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    def wait_for_close(self) -> None:
        """Until the client closes its end (or the test is over)."""
        with suppress(OSError):
            while self.sock.recv(65_536):
                pass
        self._server.closed_by_client.set()


@dataclass
class RawServer:
    """What arrived, and where to send to."""

    url: str
    stopping: threading.Event = field(default_factory=threading.Event)
    closed_by_client: threading.Event = field(default_factory=threading.Event)
    requests: list[RawRequest] = field(default_factory=list)
    connections: int = 0


@contextmanager
def raw_server(script: Callable[[Connection], None], *, tls: ssl.SSLContext | None = None) -> Iterator[RawServer]:
    """Run ``script`` for each connection, each in a thread of its own, until the with block ends."""
    listening = socket.create_server(("127.0.0.1", 0))
    server = RawServer(f"{'https' if tls else 'http'}://127.0.0.1:{listening.getsockname()[1]}")
    open_sockets: list[socket.socket] = []
    threads: list[threading.Thread] = []

    def serve(sock: socket.socket) -> None:
        with suppress(OSError):  # the client may go at any time: that is often the point
            if tls is not None:
                sock = tls.wrap_socket(sock, server_side=True)
                open_sockets.append(sock)
            with sock:
                script(Connection(sock, server))

    def accept() -> None:
        while True:
            try:
                sock, _ = listening.accept()
            except OSError:
                return
            server.connections += 1
            open_sockets.append(sock)
            thread = threading.Thread(target=serve, args=(sock,))
            threads.append(thread)
            thread.start()

    acceptor = threading.Thread(target=accept)
    acceptor.start()
    try:
        yield server
    finally:
        server.stopping.set()
        with suppress(OSError):
            listening.shutdown(socket.SHUT_RDWR)  # wakes accept, which close alone does not
        listening.close()
        acceptor.join(STOP_SECONDS)
        for sock in open_sockets:
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()
        for thread in threads:
            thread.join(STOP_SECONDS)
