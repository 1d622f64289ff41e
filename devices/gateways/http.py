"""HTTP for gateway drivers: pooled keep-alive connections, deadlines that hold, and failures told apart.

A driver makes one :func:`call` and gets either a whole :class:`Answer`, whatever its status, or a failure that is
already an outcome. The dividing line is the request's first byte:

* none left (name, connect, TLS, no time left): :class:`~devices.gateways.base.Temporary`, certainly not sent;
* any left, and no whole answer came back (reset, time-out, truncated or oversized answer):
  :class:`~devices.gateways.base.Unknown`. That includes a kept-alive connection which the gateway closed just as it
  was used again: it almost certainly read nothing, but that cannot be proven, so it is not claimed.

Nothing is ever retried, redirected, proxied, or remembered between calls (no cookies, no netrc, no environment).
Errors are worded here, never copied from exceptions: an exception's text contains the URL, and some gateways want
their secret in it.
"""

from __future__ import annotations

import json as jsonlib
import logging
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import lru_cache
from http.client import HTTPException
from typing import Any, NamedTuple
from urllib.parse import quote, quote_plus, urlencode, urlsplit

import requests
from requests.utils import DEFAULT_CA_BUNDLE_PATH
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool, PoolManager
from urllib3.exceptions import HTTPError, LocationValueError
from urllib3.util import Timeout

from devices.gateways.base import Deadlines, SessionLost, Temporary, Throttled, Unknown
from devices.gateways.sockets import Call, DeadlineHTTPConnection, DeadlineHTTPSConnection, Stage, current_call

MAX_ANSWER_BYTES = 1_048_576
MAX_TEXT = 300
MIN_SECRET = 4  # blanking out "1" would leave nothing to read, and hide nothing
MIN_RETRY_AFTER_SECONDS, MAX_RETRY_AFTER_SECONDS = 1.0, 86_400.0
ALWAYS = {"Accept": "application/json", "Accept-Encoding": "identity", "User-Agent": "flotilla"}
POOL_HOSTS = 256
POOL_CONNECTIONS_PER_HOST = 256
ADDRESSES = 8192

Failure = Temporary | SessionLost | Unknown


class BrokenAnswer(ValueError):  # noqa: N818 - reads as a fact
    """The body is not the JSON object that this gateway promises."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole HTTP answer. ``headers`` have lower-case names; the body may hold people's data, so it has no repr."""

    status: int
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)

    def json(self) -> dict[str, Any]:
        """The body as a JSON object. Raises :class:`BrokenAnswer`."""
        try:
            value = jsonlib.loads(self.body)
        except (ValueError, RecursionError):
            raise BrokenAnswer("the answer is not JSON") from None
        if not isinstance(value, dict):
            raise BrokenAnswer("the answer is not a JSON object")
        return value

    def json_or_empty(self) -> dict[str, Any]:
        """The body as a JSON object, empty where it is none. The header does not count: JSON comes as text/html too."""
        try:
            return self.json()
        except BrokenAnswer:
            return {}


@dataclass(frozen=True, slots=True)
class Content:
    """A request body in pieces that go out one after the other: a large one is never copied to join them."""

    media_type: str
    pieces: tuple[bytes, ...] = field(repr=False)


class _Pool(HTTPConnectionPool):
    ConnectionCls = DeadlineHTTPConnection


class _TLSPool(HTTPSConnectionPool):
    ConnectionCls = DeadlineHTTPSConnection


def _new_pools() -> PoolManager:
    """Kept-alive connections for each host, shared by all threads and devices, obeying the current call's deadline."""
    pools = PoolManager(
        num_pools=POOL_HOSTS,
        maxsize=POOL_CONNECTIONS_PER_HOST,
        block=False,
        retries=False,
        cert_reqs="CERT_REQUIRED",
        ca_certs=DEFAULT_CA_BUNDLE_PATH,
    )
    pools.pool_classes_by_scheme = {"http": _Pool, "https": _TLSPool}
    return pools


_pools = _new_pools()


def _forget_connections() -> None:
    # A forked child shares the parent's sockets: two processes would interleave bytes on one connection.
    global _pools  # noqa: PLW0603
    _pools = _new_pools()


os.register_at_fork(after_in_child=_forget_connections)

# urllib3 logs request paths, and some gateways want their secret there. Silent only while a driver is calling.
logging.getLogger("urllib3.connectionpool").addFilter(lambda _: current_call.get() is None)


def call(
    *,
    method: str,
    url: str,
    deadlines: Deadlines,
    headers: Mapping[str, str] | None = None,
    json: Any = None,
    form: Mapping[str, str] | None = None,
    content: Content | None = None,
) -> Answer | Failure:
    """One request, at most once, over within ``deadlines.total_seconds``, its connection closed if it did not end well.

    Raises nothing for what the network or the gateway does.
    """
    sent_headers = {**ALWAYS, **(headers or {})}
    body: bytes | tuple[bytes, ...] | None = None
    if json is not None:
        body = jsonlib.dumps(json, separators=(",", ":")).encode()
        sent_headers["Content-Type"] = "application/json"
    elif form is not None:
        body = urlencode(form).encode()
        sent_headers["Content-Type"] = "application/x-www-form-urlencoded"
    try:
        address = _checked(method, url, tuple(sent_headers.items()))
    except (ValueError, requests.RequestException):
        return SessionLost("bad_address", "The address or a credential of this device does not fit in a request.")
    if content is not None:  # after the check, whose verdicts are kept by headers: every length and boundary is another
        body, sent_headers["Content-Type"] = content.pieces, content.media_type
        sent_headers["Content-Length"] = str(sum(map(len, content.pieces)))
    running = Call(
        connect_seconds=deadlines.connect_seconds,
        read_seconds=deadlines.read_seconds,
        ends=time.monotonic() + deadlines.total_seconds,
    )
    token = current_call.set(running)
    try:
        return _exchange(method, address, sent_headers, body, running)
    finally:
        current_call.reset(token)


class _Address(NamedTuple):
    """An address taken apart. It may hold a secret: never shown."""

    scheme: str
    host: str
    port: int | None
    target: str


@lru_cache(maxsize=ADDRESSES)
def _checked(method: str, url: str, headers: tuple[tuple[str, str], ...]) -> _Address:
    """Address and headers as requests checks and quotes them, once for every request of a device.

    Raises ValueError or requests.RequestException where they do not fit in a request.
    """
    request = requests.Request(method, url, headers=dict(headers)).prepare()
    parts = urlsplit(str(request.url))
    if not parts.hostname:
        raise ValueError("no host")
    return _Address(parts.scheme, parts.hostname, parts.port, request.path_url)


def _exchange(
    method: str, address: _Address, headers: Mapping[str, str], body: bytes | tuple[bytes, ...] | None, running: Call
) -> Answer | Failure:
    # urllib3 itself: what requests adds on the way (cookies, proxies, history) would only be thrown away, at a cost
    # of a third of the whole call.
    try:
        pool = _pools.connection_from_host(address.host, address.port, address.scheme)
        response = pool.urlopen(
            method,
            address.target,
            body=body,
            headers=headers,
            retries=False,
            redirect=False,
            assert_same_host=False,
            preload_content=False,
            decode_content=False,
            timeout=Timeout(connect=running.connect_seconds, read=running.read_seconds),
        )
    except LocationValueError:
        return SessionLost("bad_address", "The gateway address of this device is not valid.")
    except (HTTPError, HTTPException, OSError, ValueError):
        return _failure(running, address)
    whole = False
    try:
        if running.stream_ended:  # http.client takes headers cut short for whole ones
            return _failure(running, address)
        received = bytearray()
        while chunk := response.read(16_384, decode_content=False):
            received += chunk
            if len(received) > MAX_ANSWER_BYTES:
                return Unknown("answer_too_large", f"The gateway's answer is larger than {MAX_ANSWER_BYTES} bytes.")
        whole = True
    except (HTTPError, HTTPException, OSError, ValueError):
        return _failure(running, address)
    finally:
        if whole:
            response.release_conn()
        else:
            response.close()
    names = {name.lower(): value for name, value in response.headers.items()}
    return Answer(status=response.status, headers=names, body=bytes(received))


_BEFORE: dict[Stage, tuple[str, str]] = {
    "pool": ("not_started", "no connection to {host} could be had in time"),
    "dns": ("dns", "the name {host} could not be resolved"),
    "connect": ("connect", "no connection to {host}"),
    "tls": ("tls", "no trusted TLS connection to {host}"),
    "open": ("not_written", "the connection to {host} took nothing"),
}


def _failure(running: Call, address: _Address) -> Failure:
    host = address.host
    if running.bytes_written == 0:
        code, text = _BEFORE[running.stage]
        return Temporary(code, f"Not sent: {text.format(host=host)}.")
    if running.timed_out:
        return Unknown("timeout", f"The request went to {host}, but no whole answer came in time.")
    return Unknown("connection_lost", f"The request went to {host}, but the connection broke before the answer.")


def host_of(url: str) -> str:
    """The host in an address, for people: no user, no password, no path, whatever is wrong with the address."""
    try:
        return urlsplit(url).hostname or "the gateway"
    except ValueError:
        return "the gateway"


def unlisted(answer: Answer) -> Temporary | Throttled | SessionLost | Unknown:
    """The outcome of an answer that the gateway's own list does not name.

    Only what the status itself proves is claimed: 429 asks for a rest; 401 and 403 refuse us, and 404, 405 and 410 say
    that nothing lives at this address; everything else may have been sent.
    """
    status = answer.status
    if status == 429:
        return Throttled("http_429", "The gateway asked for a rest.", retry_after_seconds(answer))
    if status in {401, 403}:
        return SessionLost(f"http_{status}", "The gateway refuses this device's credentials.")
    if status in {404, 405, 410}:
        return SessionLost(f"http_{status}", "Nothing lives at this address: check the gateway address of the device.")
    return Unknown(f"http_{status}", f"The gateway answered HTTP {status}, which does not say whether it was sent.")


def retry_after_seconds(answer: Answer, *, default: float = 60.0, now: datetime | None = None) -> float:
    """Seconds of rest that ``Retry-After`` asks for (a number or an HTTP date, RFC 9110 10.2.3), within a day."""
    value = answer.headers.get("retry-after", "").strip()
    try:
        seconds = float(value)
    except ValueError:
        try:
            at = parsedate_to_datetime(value)
        except (ValueError, TypeError):
            return default
        if at.tzinfo is None:
            at = at.replace(tzinfo=UTC)
        seconds = (at - (now or datetime.now(UTC))).total_seconds()
    if seconds != seconds:  # noqa: PLR0124 - "nan" is a float to Python
        return default
    return min(max(seconds, MIN_RETRY_AFTER_SECONDS), MAX_RETRY_AFTER_SECONDS)


def clean(text: object, *, credentials: Mapping[str, str]) -> str:
    """Words of a gateway made fit to be stored and shown: one line, bounded, our own secrets blanked out."""
    line = str(text)
    for secret in sorted(credentials.values(), key=len, reverse=True):
        if len(secret) < MIN_SECRET:
            continue
        for form in (secret, quote(secret, safe=""), quote_plus(secret)):
            line = line.replace(form, "***")
        line = " ".join(line.split()).replace(" ".join(secret.split()) or secret, "***")
    line = " ".join(line.split())
    return line if len(line) <= MAX_TEXT else line[: MAX_TEXT - 1] + "…"
