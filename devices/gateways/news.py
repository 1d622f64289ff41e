"""What gateways tell by themselves: receipts, replies, how a device is; and the requests that they tell it by."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal, Protocol, runtime_checkable

ReceiptStatus = Literal["sent", "delivered", "read", "failed"]


@dataclass(frozen=True, slots=True)
class Receipt:
    """What a gateway tells later about a message: ``sent`` (it left the gateway), delivered, read, or failed.

    It names the message by our ``reference`` where the gateway returns it, else by the gateway's ``external_id``; both
    are better than one. ``event_id`` names this piece of news within its gateway and stays when it is told again.
    ``code`` and ``text`` say why a message failed. ``device_id`` is ours, where the gateway returns it.
    """

    event_id: str
    status: ReceiptStatus
    at: datetime
    reference: str = ""
    external_id: str = ""
    device_id: int | None = None
    code: str = ""
    text: str = ""


@dataclass(frozen=True, slots=True)
class Reply:
    """A person wrote to a device. ``phone`` is theirs, in E.164 with the plus."""

    event_id: str
    phone: str = field(repr=False)
    text: str = field(repr=False)
    at: datetime
    external_id: str = ""
    device_id: int | None = None


DeviceStatus = Literal["connected", "disconnected", "logged_out", "banned", "replaced"]


@dataclass(frozen=True, slots=True)
class DeviceEvent:
    """What a gateway tells about the device itself. ``replaced``: another client took its session over.

    ``disconnected`` is news, not a verdict: gateways come back by themselves, and the next send finds out.
    """

    event_id: str
    status: DeviceStatus
    at: datetime
    device_id: int | None = None
    code: str = ""
    text: str = ""


News = Receipt | Reply | DeviceEvent


@dataclass(frozen=True, slots=True)
class Hook:
    """One request to our webhook, as it came. ``headers`` have lower-case names; ``secrets`` are those that may have
    signed it, the newest first. ``device_id`` is known where the request came to a device's own address."""

    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)
    secrets: tuple[str, ...] = field(repr=False)
    now: datetime
    device_id: int | None = None


class HookRefused(Exception):  # noqa: N818 - reads as a fact
    """A webhook request that is not believed or not understood; the text quotes nothing of it."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = text


class BadSignature(HookRefused):
    """Nobody who knows the secret sent it, or not now."""


class Malformed(HookRefused):
    """Signed, but not in the gateway's format."""


@runtime_checkable
class Challenged(Protocol):
    """A driver whose gateway asks a webhook's address, by GET, whether it is ours before it posts there."""

    def challenge(self, *, query: Mapping[str, str], tokens: tuple[str, ...]) -> str | None:
        """What to answer to one who knows one of the tokens; None to anybody else."""
        ...
