"""Calls to addresses that people give us, without becoming their way into the network we stand in.

Every address is checked alike: http or https, ports that calls usually go to, no user or password; the name is resolved
once, *all* its addresses must be public, and the connection goes to one of exactly these, so that a second answer of
the name server changes nothing. Size is counted while it streams and time over the whole, however slowly the other side
drips. ``allow`` names hosts with ports ("127.0.0.1:8030") that are reached although they are private.
"""

from __future__ import annotations

import http.client
import ipaddress
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit

from devices.gateways.http import Answer
from devices.gateways.sockets import Call, DeadlineSocket, current_call

MAX_ADDRESS = 2048
CONNECT_SECONDS = 5.0
READ_SECONDS = 10.0
PORTS = {"http": 80, "https": 443}

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
Resolve = Callable[[str, int], Sequence[str]]
"""Host and port → IP addresses. Raises OSError."""


class OutsideRefused(Exception):  # noqa: N818 - reads as a fact
    """An address that is not called, or a call that came to nothing; ``code`` is stable.

    The text never says what an address inside answered.
    """

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = text


@dataclass(frozen=True, slots=True)
class Place:
    """An address that reads well: what is known of it without asking anybody."""

    scheme: str
    host: str
    port: int
    target: str
    allowed: bool
    url: str


@dataclass(frozen=True, slots=True)
class Hop:
    """An address that passed the rules, and where to connect for it."""

    place: Place
    ip: str


def read_address(url: str, *, allow: Sequence[str] = (), high_ports: bool = False) -> Place:
    """The parts of ``url``. Nothing is asked of the network. Raises OutsideRefused.

    ``high_ports`` allows the ports above 1023 as well.
    """
    if len(url) > MAX_ADDRESS or not url.isascii() or any(sign <= " " or sign == "\x7f" for sign in url):
        raise _not_an_address()
    try:
        parts = urlsplit(url)
        scheme, host, port = parts.scheme.lower(), (parts.hostname or "").rstrip("."), parts.port
    except ValueError:
        raise _not_an_address() from None
    if scheme not in PORTS or not host:
        raise OutsideRefused("bad_url", "Only addresses that begin with https:// or http:// are called.")
    if parts.username is not None or parts.password is not None:
        raise OutsideRefused("bad_url", "An address with a user name or password is not called.")
    port = PORTS[scheme] if port is None else port
    allowed = f"{host}:{port}" in allow
    if not allowed and port not in PORTS.values() and not (high_ports and port > 1023):
        usual = "80, 443 and those above 1023" if high_ports else "80 and 443"
        raise OutsideRefused("port_refused", f"Only the usual ports, {usual}, are called.")
    if not allowed and _is_inside(host):
        raise _private()
    return Place(scheme, host, port, (parts.path or "/") + (f"?{parts.query}" if parts.query else ""), allowed, url)


def checked(place: Place, *, resolve: Resolve | None = None, in_time: bool = True) -> Hop:
    """Where to connect for ``place``. Raises OutsideRefused where any of its addresses is not public."""
    try:
        addresses = (resolve or look_up)(place.host, place.port) if in_time else []
    except (OSError, UnicodeError):
        addresses = []
    if not addresses:
        raise OutsideRefused("unknown_host", f"The name {place.host[:100]} is not known.")
    if not place.allowed and not all(is_public(address) for address in addresses):
        raise _private()
    return Hop(place, addresses[0])


def _not_an_address() -> OutsideRefused:
    return OutsideRefused("bad_url", "This is not an address: copy it whole, as https://example.com/here.")


def _private() -> OutsideRefused:
    return OutsideRefused("private_address", "This address is not on the public Internet.")


def _is_inside(host: str) -> bool:
    """Whether the name itself says so; most ways of writing an address are understood by the resolver only."""
    try:
        ipaddress.ip_address(host.split("%", 1)[0])
    except ValueError:
        return False
    return not is_public(host)


def is_public(address: str) -> bool:
    """Whether an IP address is one of the public Internet, also if it is wrapped in another."""
    try:
        ip: IPAddress = ipaddress.ip_address(address.split("%", 1)[0])
    except ValueError:
        return False
    inner = _inner(ip)
    if inner is not None:
        return is_public(str(inner))
    return ip.is_global and not (
        ip.is_multicast or ip.is_private or ip.is_reserved or ip.is_loopback or ip.is_link_local or ip.is_unspecified
    )


_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_NAT64_LOCAL = ipaddress.ip_network("64:ff9b:1::/48")


def _inner(ip: IPAddress) -> ipaddress.IPv4Address | None:
    """The IPv4 address that an IPv6 one stands for: mapped, 6to4, Teredo, NAT64, or the old compatible form."""
    if isinstance(ip, ipaddress.IPv4Address):
        return None
    if ip.teredo:
        return ip.teredo[1]
    if ip in _NAT64 or ip in _NAT64_LOCAL or 1 < int(ip) < 2**32:
        return ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
    return ip.ipv4_mapped or ip.sixtofour


def look_up(host: str, port: int) -> Sequence[str]:
    """All addresses of a name. getaddrinfo takes no timeout, so it runs in a thread that may stay behind."""
    found: list[str] = []

    def ask() -> None:
        try:
            found.extend(str(entry[4][0]) for entry in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
        except (OSError, UnicodeError):
            return

    thread = threading.Thread(target=ask, name="resolve-outside", daemon=True)
    thread.start()
    thread.join(CONNECT_SECONDS)
    return list(found)


class _Pinned(http.client.HTTPConnection):
    """A connection to the IP address that was checked, under the name that was asked for, in the call's time."""

    def __init__(self, hop: Hop) -> None:
        super().__init__(hop.place.host, hop.place.port)
        self._hop = hop
        if hop.place.scheme == "https":
            self.default_port = PORTS["https"]  # so that the Host header leaves it out

    def connect(self) -> None:
        call = current_call.get()
        left = min(CONNECT_SECONDS, call.remaining()) if call else CONNECT_SECONDS
        sock: socket.socket = socket.create_connection((self._hop.ip, self._hop.place.port), timeout=left)
        if self._hop.place.scheme == "https":
            try:
                sock = ssl.create_default_context().wrap_socket(sock, server_hostname=self._hop.place.host)
            except BaseException:
                sock.close()
                raise
        self.sock = DeadlineSocket(sock)


@contextmanager
def answer_of(
    hop: Hop, *, method: str, headers: Mapping[str, str], ends: float, body: bytes | None = None
) -> Iterator[http.client.HTTPResponse]:
    """One request to where ``hop`` leads; ``ends`` is on the monotonic clock. Redirects are answers like any other.

    Raises OutsideRefused for a call that came to nothing, also while the body of the answer is read.
    """
    token = current_call.set(Call(connect_seconds=CONNECT_SECONDS, read_seconds=READ_SECONDS, ends=ends))
    connection = _Pinned(hop)
    try:
        connection.request(method, hop.place.target, body=body, headers=dict(headers))
        with connection.getresponse() as answer:
            yield answer
    except TimeoutError:
        raise OutsideRefused("too_slow", "There was no whole answer in time.") from None
    except ssl.SSLError:
        raise OutsideRefused("bad_certificate", "The address has no trusted TLS certificate.") from None
    except (OSError, http.client.HTTPException, ValueError):
        raise OutsideRefused("unreachable", "Nobody could be reached there.") from None
    finally:
        connection.close()
        current_call.reset(token)


def send(
    hop: Hop, *, body: bytes, headers: Mapping[str, str], seconds: float, most_answer_bytes: int = 2_000
) -> Answer:
    """POST ``body``; the answer, of its body the beginning. Raises OutsideRefused."""
    with answer_of(hop, method="POST", headers=headers, ends=time.monotonic() + seconds, body=body) as answer:
        told = {name.lower(): value for name, value in answer.headers.items()}
        return Answer(answer.status, told, answer.read(most_answer_bytes))
