"""The seam between the simulator and the wire format of one gateway.

A dialect reads requests and words answers and webhooks. It decides nothing: whether a message is accepted, what goes
wrong, and whether a device is linked to a phone, is the engine's business. A new dialect is one module here and one
line in the registry; it says only what differs from :class:`Dialect`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from aiohttp import web

Purpose = Literal["send", "check", "info", "look_up", "create", "pair", "log_out", "restart", "media"]
"""What a request is for.

``pair`` begins the linking of a device that is not linked (a picture or a code is asked for); the phone that would scan
it has done so by the second ``check`` after that. ``create`` makes a device known. ``info`` asks, and nothing comes of
it. ``media`` hands over a file ahead of its message.
"""

DeviceState = Literal["linked", "unlinked", "banned", "unknown"]
"""``unlinked``: known, but no phone is linked to it."""


@dataclass(frozen=True, slots=True)
class Reply:
    """One HTTP answer."""

    status: int
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Parsed:
    """A message as asked for. ``message`` is None where the format or the client gives no number.

    ``external_id`` is set where the client chooses the id that the gateway uses from then on. ``type`` is what the
    message is, ``media_bytes`` the size of an attachment that came along.
    """

    phone: str
    text: str
    reference: str | None = None
    message: int | None = None
    attempt: int = 1
    sender: str = ""
    external_id: str = ""
    type: str = "text"
    media_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Asked:
    """A question about a device, or an order to it, other than to send. ``body`` is what came with it."""

    purpose: Purpose
    device: str
    state: DeviceState
    request: web.Request = field(repr=False)
    body: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Posting:
    """One webhook request; ``suffix`` is put behind the path it is posted to."""

    body: bytes
    headers: Mapping[str, str]
    suffix: str = ""


class BadRequest(Exception):  # noqa: N818 - named after the HTTP status
    """The request makes no sense in this dialect; ``reply`` says so in its words."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(reply.status)
        self.reply = reply


@dataclass(frozen=True, slots=True)
class Route:
    """Where a dialect listens. Paths are aiohttp patterns."""

    method: str
    path: str
    purpose: Purpose


@dataclass(frozen=True, slots=True)
class Delivery:
    """A message that reached a phone: what receipts and replies are about."""

    dialect: Dialect
    device: str
    sender: str
    phone: str
    reference: str | None
    external_id: str


class Dialect:
    """One gateway's wire format. Phones are ``+`` and digits on this side of it."""

    name: str
    dedups: bool = False
    """Whether this gateway drops a second message with the same id."""

    def routes(self) -> tuple[Route, ...]:
        """Where it listens."""
        raise NotImplementedError

    def device(self, request: web.Request, body: bytes) -> str:
        """What names the device: its token, session or instance; empty if the request names none."""
        raise NotImplementedError

    def refuses(self, request: web.Request) -> Reply | None:
        """The answer to somebody without the server's own key, where there is one beside the device's name."""
        del request
        return None

    # -- messages --------------------------------------------------------------------------------------------------

    def parse(self, request: web.Request, body: bytes) -> Parsed:
        """The message in a request. Raises :class:`BadRequest`."""
        raise NotImplementedError

    def accepted(self, external_id: str, parsed: Parsed) -> Reply:
        """The message was taken."""
        raise NotImplementedError

    def rejected(self, code: str, text: str) -> Reply:
        """This message never will be taken."""
        raise NotImplementedError

    def throttled(self, retry_after_seconds: float | None) -> Reply:
        """Not now; ``retry_after_seconds`` None gives no hint. By default, what a proxy in front of it would say."""
        hint = {} if retry_after_seconds is None else {"Retry-After": f"{retry_after_seconds:g}"}
        return Reply(429, b"Too Many Requests\n", {"Content-Type": "text/plain", **hint})

    def refused(self, *, banned: bool) -> Reply:
        """There is no such device, or it is banned."""
        raise NotImplementedError

    def unlinked(self) -> Reply:
        """The device is known, and no phone is linked to it."""
        return self.refused(banned=False)

    def failed(self, status: int, *, taken: bool) -> Reply:
        """A server error, before or after the message was taken."""
        del taken
        return Reply(status, b"server error\n", {"Content-Type": "text/plain"})

    # -- questions -------------------------------------------------------------------------------------------------

    def asked(self, asked: Asked) -> Reply:
        """The answer to a question about the device, or to an order. By default ``check`` alone is understood."""
        if asked.state == "linked":
            return self.connected()
        return self.unlinked() if asked.state == "unlinked" else self.refused(banned=asked.state == "banned")

    def connected(self) -> Reply:
        """The device can send."""
        raise NotImplementedError

    def sought(self, request: web.Request) -> str:
        """The client's own id that a look-up asks for. Raises :class:`BadRequest`."""
        raise NotImplementedError

    def looked_up(self, reference: str, external_id: str | None) -> Reply:
        """Whether a message of this id was taken (None: not)."""
        raise NotImplementedError

    # -- webhooks --------------------------------------------------------------------------------------------------

    def receipt(self, delivery: Delivery, *, status: str, event_id: str, at: float) -> dict[str, Any] | None:
        """The webhook's event for delivered, read or failed; None where the gateway does not tell."""
        raise NotImplementedError

    def inbound(
        self, *, device: str, sender: str, phone: str, text: str, event_id: str, at: float
    ) -> dict[str, Any] | None:
        """The webhook's event for a message from a phone; None where the gateway does not tell."""
        raise NotImplementedError

    def device_news(self, *, device: str, state: DeviceState, event_id: str, at: float) -> dict[str, Any] | None:
        """The webhook's event for a device that was linked, unlinked or banned; None where the gateway is silent."""
        del device, state, event_id, at
        return None

    def signature(self, *, secret: str, body: bytes) -> dict[str, str]:
        """The webhook headers that prove where it comes from."""
        del secret, body
        return {}

    def posting(self, event: dict[str, Any], *, secret: str) -> Posting:
        """An event as it is posted. By default JSON, with :meth:`signature` over the raw body."""
        body = json.dumps(event, separators=(",", ":")).encode()
        return Posting(body, {"Content-Type": "application/json", **self.signature(secret=secret, body=body)})


_JSON = "json"


def json_body(request: web.Request, body: bytes) -> dict[str, Any]:
    """The body as a JSON object, parsed once for all who ask; empty if it is none."""
    known = request.get(_JSON)
    if known is None:
        try:
            value = json.loads(body)
        except (ValueError, RecursionError):
            value = {}
        known = request[_JSON] = value if isinstance(value, dict) else {}
    return known


def json_reply(status: int, value: Any, **headers: str) -> Reply:
    """An answer with a JSON body. Header names are given with underscores."""
    named = {name.replace("_", "-"): text for name, text in headers.items()}
    body = json.dumps(value, separators=(",", ":")).encode()
    return Reply(status, body, {"Content-Type": "application/json", **named})
