"""Connections that keep a total deadline and know whether any byte of a request has left.

`requests` and `urllib3` bound the time to connect and the time between two reads, but not the whole call: a gateway
that drips one byte every few seconds holds a thread for ever. Here every socket operation of a call is given what is
left of that call's own deadline, from the look-up of the name to the last byte of the body.

The same place counts the bytes the kernel took. That number, not the type of an exception, is what tells "certainly
not sent" (none) from "may have been sent" (any).
"""

from __future__ import annotations

import io
import ipaddress
import socket
import ssl
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Literal

from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import ConnectTimeoutError, NameResolutionError, NewConnectionError

WRITE_CHUNK_BYTES = 65_536
DEFAULT_CONNECT_SECONDS = 5.0

Stage = Literal["pool", "dns", "connect", "tls", "open"]
"""How far a call got before its first byte."""

_Resolved = tuple[socket.AddressFamily, socket.SocketKind, int, str, tuple[Any, ...]]


@dataclass(slots=True)
class Call:
    """One HTTP call while it runs. ``ends`` is on the monotonic clock; ``bytes_written`` is what the kernel took."""

    connect_seconds: float
    read_seconds: float
    ends: float
    bytes_written: int = 0
    stage: Stage = "pool"
    timed_out: bool = False
    stream_ended: bool = False

    def remaining(self) -> float:
        """Seconds left of the whole call. Raises TimeoutError when there are none."""
        left = self.ends - time.monotonic()
        if left <= 0:
            raise TimeoutError("the call's total deadline has passed")
        return left


current_call: ContextVar[Call | None] = ContextVar("current_call", default=None)
"""The call this thread is making. Pooled connections serve many calls, so the deadline cannot live on them."""


def _resolve(*, host: str, port: int, within_seconds: float) -> Sequence[_Resolved]:
    """Addresses of ``host``. getaddrinfo takes no timeout, so names are looked up in a thread that may stay behind."""
    try:
        ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        pass
    else:
        return socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)
    found: list[_Resolved] = []
    failed: list[OSError] = []

    def look_up() -> None:
        try:
            found.extend(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
        except OSError as error:
            failed.append(error)
        except UnicodeError as error:  # a name that cannot even be asked for
            failed.append(socket.gaierror(socket.EAI_NONAME, str(error)))

    thread = threading.Thread(target=look_up, name="resolve", daemon=True)
    thread.start()
    thread.join(within_seconds)
    if failed:
        raise failed[0]
    if not found:
        raise socket.gaierror(socket.EAI_AGAIN, "no answer in time")
    return found


class _Reader(io.RawIOBase):
    """The receiving side: every read gets the shorter of the read timeout and what is left of the call."""

    def __init__(self, sock: DeadlineSocket, raw: Any) -> None:
        self._sock = sock
        self._raw = raw

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        with self._sock.armed():
            count: int | None = self._raw.readinto(buffer)
        if count == 0 and (call := current_call.get()) is not None:
            call.stream_ended = True
        return count

    def close(self) -> None:
        self._raw.close()
        super().close()


class DeadlineSocket:
    """A connected socket, plain or TLS, whose operations obey the deadline of :data:`current_call`."""

    def __init__(self, sock: socket.socket | ssl.SSLSocket) -> None:
        self._sock = sock

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)

    @contextmanager
    def armed(self) -> Iterator[None]:
        """Give one operation its timeout. Raises TimeoutError, and notes it, when that or the whole call is over."""
        call = current_call.get()
        if call is None:
            yield
            return
        try:
            self._sock.settimeout(min(call.read_seconds, call.remaining()))
            yield
        except TimeoutError:
            call.timed_out = True
            raise

    def sendall(self, data: Any) -> None:
        """Send everything, chunk by chunk, counting what the kernel accepted.

        A chunk whose send fails was not accepted: on a plain socket it was never queued, under TLS its last record is
        incomplete and the peer cannot decrypt it.
        """
        call = current_call.get()
        with memoryview(data) as view, view.cast("B") as rest:
            offset = 0
            while offset < len(rest):
                with self.armed():
                    sent = self._sock.send(rest[offset : offset + WRITE_CHUNK_BYTES])
                offset += sent
                if call is not None:
                    call.bytes_written += sent

    def makefile(self, _mode: str = "rb", *_: Any, **__: Any) -> io.BufferedReader:
        """A buffered reader; like the socket's own, it keeps the descriptor open until it is closed."""
        return io.BufferedReader(_Reader(self, self._sock.makefile("rb", buffering=0)))


def _reach(stage: Stage) -> None:
    if (call := current_call.get()) is not None:
        call.stage = stage


def _connect(conn: HTTPConnection) -> socket.socket:
    """Open a TCP connection within the connect timeout, over all addresses together, not for each.

    What is left of that time stays set on the socket, so a TLS handshake gets the rest and no more.
    """
    call = current_call.get()
    budget = min(call.connect_seconds, call.remaining()) if call else DEFAULT_CONNECT_SECONDS
    ends = time.monotonic() + budget
    _reach("dns")
    try:
        addresses = _resolve(host=conn._dns_host, port=conn.port or conn.default_port, within_seconds=budget)  # noqa: SLF001
    except socket.gaierror as error:
        raise NameResolutionError(conn.host, conn, error) from error
    _reach("connect")
    problem: OSError = TimeoutError("no time left to connect")
    for family, kind, proto, _, address in addresses:
        left = ends - time.monotonic()
        if left <= 0:
            break
        sock = socket.socket(family, kind, proto)
        try:
            for option in conn.socket_options or ():
                sock.setsockopt(*option)
            sock.settimeout(left)
            sock.connect(address)
        except OSError as error:
            sock.close()
            problem = error
        else:
            sock.settimeout(max(ends - time.monotonic(), 0.001))
            return sock
    if isinstance(problem, TimeoutError):
        raise ConnectTimeoutError(conn, "connect timed out") from problem
    raise NewConnectionError(conn, "connect failed") from problem


class _InOnePiece:
    """Sends a request's headers and its (small) body together: one system call, one packet, one wake-up over there."""

    _held: bytearray | None = None

    def request(self, *args: Any, **kwargs: Any) -> None:
        """As urllib3 does, holding back what is sent until there is enough of it or the request is complete."""
        self._held = bytearray()
        try:
            super().request(*args, **kwargs)  # type: ignore[misc]
            self._flush()
        finally:
            self._held = None

    def send(self, data: Any) -> None:
        """Hold back, or send with what was held back."""
        if self._held is None or not isinstance(data, bytes | bytearray) or len(data) >= WRITE_CHUNK_BYTES:
            self._flush()
            super().send(data)  # type: ignore[misc]
            return
        self._held += data
        if len(self._held) >= WRITE_CHUNK_BYTES:
            self._flush()

    def _flush(self) -> None:
        if self._held:
            held, self._held = self._held, bytearray()
            super().send(held)  # type: ignore[misc]


class DeadlineHTTPConnection(_InOnePiece, HTTPConnection):
    """Plain HTTP within the deadlines of the current call."""

    def _new_conn(self) -> socket.socket:
        return _connect(self)

    def connect(self) -> None:
        """Connect, then put the deadline around the socket."""
        super().connect()
        self.sock = DeadlineSocket(self.sock)
        _reach("open")


class DeadlineHTTPSConnection(_InOnePiece, HTTPSConnection):
    """HTTPS within the deadlines of the current call. The handshake is part of connecting: no request byte is in it."""

    def _new_conn(self) -> socket.socket:
        sock = _connect(self)
        _reach("tls")
        return sock

    def connect(self) -> None:
        """Connect and shake hands, then put the deadline around the socket."""
        super().connect()
        self.sock = DeadlineSocket(self.sock)
        _reach("open")
