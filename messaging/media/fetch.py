"""Files from addresses that people give us; what keeps them out of our own network is :mod:`devices.outside`.

Every hop is checked alike, on the ports that http and https have. Redirects are followed by hand, at most five. Size is
counted while it streams and time over the whole, however slowly the other side drips. FLOTILLA_MEDIA_FETCH_ALLOW names
hosts with ports that are allowed although they are private.
"""

from __future__ import annotations

import http.client
import time
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urljoin, urlsplit

from devices import outside
from devices.outside import Hop, OutsideRefused, Resolve
from messaging.media.problems import MediaRefused

MAX_REDIRECTS = 5
HEADERS = {"Accept": "*/*", "Accept-Encoding": "identity", "User-Agent": "flotilla", "Connection": "close"}
_REMEDIES = {
    "private_address": "This address is not on the public Internet: upload the file instead.",
    "too_slow": "The file did not come in time: try again, or upload it.",
    "unreachable": "The file could not be fetched: try again, or upload it.",
}


@dataclass(frozen=True, slots=True)
class Fetched:
    """What was there, and what it is called there."""

    data: bytes
    name: str


def fetch(
    url: str, *, max_bytes: int, seconds: float, allow: Sequence[str] = (), resolve: Resolve | None = None
) -> Fetched:
    """What is at ``url``. Raises MediaRefused; its texts never say what an address inside answered."""
    ends = time.monotonic() + seconds
    at = url
    for _ in range(MAX_REDIRECTS + 1):
        try:
            place = outside.read_address(at, allow=allow)
            hop = outside.checked(place, resolve=resolve, in_time=time.monotonic() < ends)
            found = _get(hop, max_bytes=max_bytes, ends=ends)
        except OutsideRefused as problem:
            raise MediaRefused(problem.code, _REMEDIES.get(problem.code, problem.text)) from None
        if isinstance(found, Fetched):
            return found
        if place.scheme == "https" and urlsplit(found).scheme.lower() == "http":
            raise MediaRefused("redirect_refused", "The address leads from https to http: give the last one itself.")
        at = found
    raise MediaRefused("too_many_redirects", f"The address leads on more than {MAX_REDIRECTS} times.")


def _get(hop: Hop, *, max_bytes: int, ends: float) -> Fetched | str:
    """The file, or the address that a redirect names."""
    with outside.answer_of(hop, method="GET", headers=HEADERS, ends=ends) as answer:
        if answer.status in {301, 302, 303, 307, 308} and (location := answer.getheader("Location")):
            return urljoin(hop.place.url, location)
        if answer.status != 200:
            raise MediaRefused("not_there", f"The address answered with HTTP {answer.status} instead of a file.")
        name = hop.place.target.split("?", 1)[0].rsplit("/", 1)[-1]
        return Fetched(_body(answer, max_bytes=max_bytes), name)


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
