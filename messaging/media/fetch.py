"""Files from addresses that people give us, without becoming their way into the network we stand in.

Every hop is checked alike: http or https, the ports those have, no user or password; the name is resolved once, *all*
its addresses must be public, and the connection goes to one of exactly these, so that a second answer of the name
server changes nothing. Redirects are followed by hand, at most five. Size is counted while it streams and time over
the whole, however slowly the other side drips. FLOTILLA_MEDIA_FETCH_ALLOW names hosts with ports that are allowed
although they are private.
"""

from __future__ import annotations

import http.client
import ipaddress
import socket
import ssl
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from urllib.parse import urljoin, urlsplit

from devices.gateways.sockets import Call, DeadlineSocket, current_call
from messaging.media.problems import MediaRefused

MAX_REDIRECTS = 5
MAX_ADDRESS = 2048
CONNECT_SECONDS = 5.0
READ_SECONDS = 10.0
PORTS = {"http": 80, "https": 443}
HEADERS = {"Accept": "*/*", "Accept-Encoding": "identity", "User-Agent": "flotilla", "Connection": "close"}

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
Resolve = Callable[[str, int], Sequence[str]]
"""Host and port → IP addresses. Raises OSError."""


@dataclass(frozen=True, slots=True)
class Fetched:
    """What was there, and what it is called there."""

    data: bytes
    name: str


@dataclass(frozen=True, slots=True)
class _Hop:
    """An address that passed the rules, and where to connect for it."""

    scheme: str
    host: str
    port: int
    target: str
    ip: str
    url: str


def fetch(
    url: str, *, max_bytes: int, seconds: float, allow: Sequence[str] = (), resolve: Resolve | None = None
) -> Fetched:
    """What is at ``url``. Raises MediaRefused; its texts never say what an address inside answered."""
    ends = time.monotonic() + seconds
    at = url
    for _ in range(MAX_REDIRECTS + 1):
        hop = _checked(at, allow=allow, resolve=resolve or _resolve, in_time=time.monotonic() < ends)
        found = _get(hop, max_bytes=max_bytes, ends=ends)
        if isinstance(found, Fetched):
            return found
        if hop.scheme == "https" and urlsplit(found).scheme.lower() == "http":
            raise MediaRefused("redirect_refused", "The address leads from https to http: give the last one itself.")
        at = found
    raise MediaRefused("too_many_redirects", f"The address leads on more than {MAX_REDIRECTS} times.")


# -- The guard ---------------------------------------------------------------------------------------------------------


def _checked(url: str, *, allow: Sequence[str], resolve: Resolve, in_time: bool) -> _Hop:
    if len(url) > MAX_ADDRESS or not url.isascii() or any(sign <= " " or sign == "\x7f" for sign in url):
        raise _not_an_address()
    try:
        parts = urlsplit(url)
        scheme, host, port = parts.scheme.lower(), (parts.hostname or "").rstrip("."), parts.port
    except ValueError:
        raise _not_an_address() from None
    if scheme not in PORTS or not host:
        raise MediaRefused("bad_url", "Only addresses that begin with https:// or http:// are fetched.")
    if parts.username is not None or parts.password is not None:
        raise MediaRefused("bad_url", "An address with a user name or password is not fetched: upload the file.")
    port = PORTS[scheme] if port is None else port
    allowed = f"{host}:{port}" in allow
    if not allowed and port not in PORTS.values():
        raise MediaRefused("port_refused", "Only the usual ports, 80 and 443, are fetched from.")
    try:
        addresses = resolve(host, port) if in_time else []
    except (OSError, UnicodeError):
        addresses = []
    if not addresses:
        raise MediaRefused("unknown_host", f"The name {host[:100]} is not known.")
    if not allowed and not all(is_public(address) for address in addresses):
        raise MediaRefused("private_address", "This address is not on the public Internet: upload the file instead.")
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return _Hop(scheme, host, port, target, addresses[0], url)


def _not_an_address() -> MediaRefused:
    return MediaRefused("bad_url", "This is not an address: copy it whole, as https://example.com/picture.jpg.")


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


def _resolve(host: str, port: int) -> Sequence[str]:
    """All addresses of a name. getaddrinfo takes no timeout, so it runs in a thread that may stay behind."""
    found: list[str] = []

    def look_up() -> None:
        try:
            found.extend(str(entry[4][0]) for entry in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
        except (OSError, UnicodeError):
            return

    thread = threading.Thread(target=look_up, name="resolve-media", daemon=True)
    thread.start()
    thread.join(CONNECT_SECONDS)
    return list(found)


# -- The call ----------------------------------------------------------------------------------------------------------


class _Pinned(http.client.HTTPConnection):
    """A connection to the IP address that was checked, under the name that was asked for, in the call's time."""

    def __init__(self, hop: _Hop) -> None:
        super().__init__(hop.host, hop.port)
        self._hop = hop

    def connect(self) -> None:
        call = current_call.get()
        left = min(CONNECT_SECONDS, call.remaining()) if call else CONNECT_SECONDS
        sock: socket.socket = socket.create_connection((self._hop.ip, self._hop.port), timeout=left)
        if self._hop.scheme == "https":
            try:
                sock = ssl.create_default_context().wrap_socket(sock, server_hostname=self._hop.host)
            except BaseException:
                sock.close()
                raise
        self.sock = DeadlineSocket(sock)


def _get(hop: _Hop, *, max_bytes: int, ends: float) -> Fetched | str:
    """The file, or the address that a redirect names."""
    token = current_call.set(Call(connect_seconds=CONNECT_SECONDS, read_seconds=READ_SECONDS, ends=ends))
    connection = _Pinned(hop)
    try:
        connection.request("GET", hop.target, headers=HEADERS)
        with connection.getresponse() as answer:
            if answer.status in {301, 302, 303, 307, 308} and (location := answer.getheader("Location")):
                return urljoin(hop.url, location)
            if answer.status != 200:
                raise MediaRefused("not_there", f"The address answered with HTTP {answer.status} instead of a file.")
            return Fetched(_body(answer, max_bytes=max_bytes), hop.target.split("?", 1)[0].rsplit("/", 1)[-1])
    except TimeoutError:
        raise MediaRefused("too_slow", "The file did not come in time: try again, or upload it.") from None
    except ssl.SSLError:
        raise MediaRefused("bad_certificate", "The address has no trusted TLS certificate.") from None
    except (OSError, http.client.HTTPException, ValueError):
        raise MediaRefused("unreachable", "The file could not be fetched: try again, or upload it.") from None
    finally:
        connection.close()
        current_call.reset(token)


def _body(answer: http.client.HTTPResponse, *, max_bytes: int) -> bytes:
    too_large = MediaRefused("too_large", f"The file is larger than {max_bytes / 1_048_576:g} MB.")
    if (answer.length or 0) > max_bytes:
        raise too_large
    received = bytearray()
    while chunk := answer.read1(65_536):
        received += chunk
        if len(received) > max_bytes:
            raise too_large
    if answer.length:  # what was promised is not all there
        raise http.client.IncompleteRead(b"", answer.length)
    return bytes(received)
