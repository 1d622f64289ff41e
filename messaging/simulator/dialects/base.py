"""The seam between the simulator and the wire format of one gateway.

A dialect reads requests and words answers and webhooks. It decides nothing: whether a message is accepted, and what
goes wrong, is the engine's business. A new dialect is one module here and one line in the registry.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from aiohttp import web

Purpose = Literal["send", "check", "look_up"]


@dataclass(frozen=True, slots=True)
class Reply:
    """One HTTP answer."""

    status: int
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Parsed:
    """A message as asked for. ``message`` is None where the format or the client gives no number."""

    phone: str
    text: str
    reference: str | None = None
    message: int | None = None
    attempt: int = 1
    sender: str = ""


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


class Dialect(Protocol):
    """One gateway's wire format."""

    name: str
    dedups: bool
    """Whether this gateway drops a second message with the same id."""

    def routes(self) -> tuple[Route, ...]:
        """Where it listens."""
        ...

    def device(self, request: web.Request) -> str:
        """The credential that names the device; empty if the request has none."""
        ...

    def parse(self, request: web.Request, body: bytes) -> Parsed:
        """The message in a request. Raises :class:`BadRequest`."""
        ...

    def accepted(self, external_id: str) -> Reply:
        """The message was taken."""
        ...

    def connected(self) -> Reply:
        """The device can send."""
        ...

    def sought(self, request: web.Request) -> str:
        """The client's own id that a look-up asks for. Raises :class:`BadRequest`."""
        ...

    def looked_up(self, reference: str, external_id: str | None) -> Reply:
        """Whether a message of this id was taken (None: not)."""
        ...

    def rejected(self, code: str, text: str) -> Reply:
        """This message never will be taken."""
        ...

    def throttled(self, retry_after_seconds: float | None) -> Reply:
        """Not now; ``retry_after_seconds`` None gives no hint."""
        ...

    def refused(self, *, banned: bool) -> Reply:
        """The device is logged out, or banned."""
        ...

    def failed(self, status: int, *, taken: bool) -> Reply:
        """A server error, before or after the message was taken."""
        ...

    def receipt(self, delivery: Delivery, *, status: str, event_id: str, at: float) -> dict[str, Any]:
        """The webhook body for delivered, read or failed."""
        ...

    def inbound(self, *, device: str, sender: str, phone: str, text: str, event_id: str, at: float) -> dict[str, Any]:
        """The webhook body for a message from a phone."""
        ...

    def signature(self, *, secret: str, body: bytes) -> dict[str, str]:
        """The webhook headers that prove where it comes from."""
        ...


def json_reply(status: int, value: Any, **headers: str) -> Reply:
    """An answer with a JSON body. Header names are given with underscores."""
    named = {name.replace("_", "-"): text for name, text in headers.items()}
    body = json.dumps(value, separators=(",", ":")).encode()
    return Reply(status, body, {"Content-Type": "application/json", **named})
