"""The seam between Flotilla and a messaging gateway.

A *driver* describes one gateway protocol; a *client* is one device talking it. Drivers translate: they turn an
:class:`Outgoing` into bytes and whatever comes back into exactly one of six outcomes. They never decide a message's
state, never retry, and never touch the database or Celery.

The outcomes are a closed set, because everything that follows (retry, hold, fail, pause the device) hangs on them:

=================== ============================================= ==========================================
outcome             what is known                                 what may follow
=================== ============================================= ==========================================
:class:`Accepted`   the gateway took it                           nothing more to send
:class:`Rejected`   definitely not sent, and never will be        the message fails
:class:`Temporary`  definitely not sent, this time                a new attempt later
:class:`Throttled`  definitely not sent, they asked us to wait    the device rests, no attempt is counted
:class:`SessionLost` definitely not sent, the device is logged out a person must look at the device
:class:`Unknown`    it may have been sent                         never blindly resent
=================== ============================================= ==========================================
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, ClassVar, Literal, Protocol, runtime_checkable

from devices.gateways.news import Hook, News

IdSemantics = Literal["dedups", "searchable", "echoed", "none"]
"""What the gateway does with an id we choose: drops repeats, lets us look it up, returns it in receipts, or nothing."""

Transport = Literal["http", "session"]
"""``http``: a platform that is called; ``session``: a connection that one process holds."""

ContentType = Literal["text", "image", "document", "video", "audio", "template"]

PairingWay = Literal["qr", "code"]
"""How a device is linked to a phone: by scanning a picture, or by typing a code there."""


@dataclass(frozen=True, slots=True)
class Accepted:
    """The gateway took the message. ``external_id`` is its own id for it, if it told us one."""

    external_id: str | None = None


@dataclass(frozen=True, slots=True)
class Rejected:
    """Refused for good, because of the recipient or the content."""

    code: str
    text: str


@dataclass(frozen=True, slots=True)
class Temporary:
    """Certainly not sent; the same message may pass later."""

    code: str
    text: str


@dataclass(frozen=True, slots=True)
class Throttled:
    """Certainly not sent; the gateway asks for a rest of ``retry_after_seconds``.

    ``scope``: of the whole device, of its messages to people it has not written to before, or of this lead alone.
    """

    code: str
    text: str
    retry_after_seconds: float
    scope: Literal["device", "new_contacts", "lead"] = "device"


@dataclass(frozen=True, slots=True)
class SessionLost:
    """Certainly not sent; the device is logged out, banned, or its credentials are refused."""

    code: str
    text: str
    banned: bool = False


@dataclass(frozen=True, slots=True)
class Unknown:
    """Bytes left and no definite answer came back: the message may have reached the phone."""

    code: str
    text: str


Outcome = Accepted | Rejected | Temporary | Throttled | SessionLost | Unknown


@dataclass(frozen=True, slots=True)
class Found:
    """A look-up: the gateway has the message."""

    external_id: str | None = None


@dataclass(frozen=True, slots=True)
class Absent:
    """A look-up: the gateway knows of no message under this reference, so far."""


@dataclass(frozen=True, slots=True)
class CannotSay:
    """A look-up that came to nothing: ask again later."""

    code: str
    text: str


LookedUp = Found | Absent | CannotSay


@dataclass(frozen=True, slots=True)
class Media:
    """One attachment, for gateways that fetch it and for those that want its bytes.

    ``url`` is signed and good for a few hours; ``read`` gives the whole file, raising OSError when it is gone.
    """

    mime_type: str
    filename: str
    size_bytes: int
    url: str = field(repr=False)
    read: Callable[[], bytes] = field(repr=False)


@dataclass(frozen=True, slots=True)
class MessageTemplate:
    """A text that the gateway approved beforehand: its name, its language as ``en_US``, and what fills its gaps.

    ``parameters`` fill the body's gaps {{1}}, {{2}} … in their order.
    """

    name: str
    language: str
    parameters: tuple[str, ...] = field(default=(), repr=False)


@dataclass(frozen=True, slots=True)
class Outgoing:
    """One rendered message on its way out.

    ``phone`` is E.164 with the leading plus; ``reference`` is our deterministic external id, stored before the first
    attempt and reused by later ones; ``message_id`` and ``attempt`` travel along where the gateway can carry them. The
    repr shows ids only, so that a traceback or a log line never carries a person's number or text.
    """

    message_id: int
    attempt: int
    reference: str
    phone: str = field(repr=False)
    text: str = field(repr=False)
    type: ContentType = "text"
    media: Media | None = field(default=None, repr=False)
    template: MessageTemplate | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Deadlines:
    """Seconds allowed to connect, between two reads, and for the whole call."""

    connect_seconds: float = 5.0
    read_seconds: float = 20.0
    total_seconds: float = 30.0


class Credentials(Mapping[str, str]):
    """A device's secrets: a mapping whose repr names them and never shows a value."""

    __slots__ = ("_values",)

    def __init__(self, values: Mapping[str, str]) -> None:
        self._values = dict(values)

    def __getitem__(self, name: str) -> str:
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return f"Credentials({', '.join(sorted(self._values))})"


@dataclass(frozen=True, slots=True)
class DeviceConfig:
    """What a driver may know of a device. Credentials are wrapped on the way in and stay out of the repr."""

    device_id: int
    base_url: str
    credentials: Mapping[str, str] = field(repr=False)
    options: Mapping[str, Any] = field(default_factory=dict)
    deadlines: Deadlines = Deadlines()

    def __post_init__(self) -> None:
        if not isinstance(self.credentials, Credentials):
            object.__setattr__(self, "credentials", Credentials(self.credentials))


class Client(Protocol):
    """One device's live connection. Safe to call from several threads when the driver's transport is ``http``."""

    def send(self, outgoing: Outgoing) -> Outcome:
        """Send one message. Never raises for anything the gateway or the network does."""
        ...

    def check(self) -> Accepted | Temporary | SessionLost:
        """Ask the gateway whether this device is able to send."""
        ...

    def close(self) -> None:
        """Let go of what is held."""
        ...


PairingStatus = Literal["qr", "code", "waiting", "connected", "expired", "failed"]


@dataclass(frozen=True, slots=True)
class Pairing:
    """How far the linking of a device to a phone has come.

    ``qr`` is the text behind a picture to scan, ``qr_png`` the picture where the gateway gives nothing else, ``code``
    what is to be typed on the phone; each good until ``expires_at``. ``text`` says in words what to do or what failed.
    """

    status: PairingStatus
    qr: str = field(default="", repr=False)
    qr_png: bytes = field(default=b"", repr=False)
    code: str = field(default="", repr=False)
    expires_at: datetime | None = None
    phone: str = field(default="", repr=False)
    text: str = ""


class PairableClient(Client, Protocol):
    """A client of an ``http`` driver whose ``pairing`` is not empty."""

    def pair(self, *, phone: str | None = None) -> Pairing:
        """Begin, or ask how far it is: called every few seconds. With ``phone`` by code, else by picture.

        Never raises; a device that is linked already is ``connected``.
        """
        ...

    def log_out(self) -> Accepted | Temporary | SessionLost:
        """Unlink the device from its phone."""
        ...

    def restart(self) -> Accepted | Temporary | SessionLost:
        """Have the gateway connect this device anew, keeping its link to the phone."""
        ...


class SearchableClient(Client, Protocol):
    """A client of a driver whose ``id_semantics`` is ``searchable``."""

    def look_up(self, reference: str) -> LookedUp:
        """Ask whether the gateway has the message of this reference. Sends nothing, never raises."""
        ...


@dataclass(frozen=True, slots=True)
class CredentialField:
    """One value a person must supply for a device of this gateway."""

    name: str
    label: str
    help_text: str = ""
    secret: bool = True
    required: bool = True


WEBHOOK_SECRET = CredentialField(
    name="webhook_secret",
    label="Webhook secret",
    help_text="What this device's gateway signs receipts and replies with, where it has one of its own.",
    required=False,
)
"""For drivers that sign with a secret that a person chose; it counts at the device's own webhook address."""


@dataclass(frozen=True, slots=True)
class Carries:
    """What a gateway takes of one content type. None: no limit is published.

    ``max_text`` counts characters of the text or the caption, 0 where there is no caption; ``media`` says how an
    attachment gets there: fetched by the gateway, sent along as bytes, or whichever suits.
    """

    max_text: int | None = None
    max_bytes: int | None = None
    media: Literal["none", "url", "bytes", "either"] = "none"
    mime_types: frozenset[str] | None = None


class Gateway(Protocol):
    """A gateway protocol: what it needs, what it can carry, and how it tells news.

    ``window_hours``: free text reaches only people who wrote within so many hours; others need a template.
    ``signs_webhooks``: whether its webhooks prove where they come from; if not, each device has an address that nobody
    can guess. ``receipts`` and ``replies``: whether it tells of them at all. ``rate`` is what is published about its
    speed, in words.
    """

    kind: ClassVar[str]
    label: ClassVar[str]
    transport: ClassVar[Transport]
    id_semantics: ClassVar[IdSemantics]
    id_proof: ClassVar[str]
    carries: ClassVar[Mapping[ContentType, Carries]]
    window_hours: ClassVar[int | None]
    pairing: ClassVar[frozenset[PairingWay]]
    signs_webhooks: ClassVar[bool]
    receipts: ClassVar[bool]
    replies: ClassVar[bool]
    rate: ClassVar[str]
    default_base_url: ClassVar[str]
    credential_fields: ClassVar[tuple[CredentialField, ...]]

    def webhook(self, hook: Hook) -> tuple[News, ...]:
        """The news in a request that this gateway sent, in its order. Raises BadSignature or Malformed."""
        ...


class Driver(Gateway, Protocol):
    """A gateway that is called: its ``transport`` is ``http``."""

    def connect(self, config: DeviceConfig) -> Client:
        """A client for this device. Opens nothing."""
        ...


NETWORK_CODES = frozenset({"dns", "connect", "tls", "not_started", "not_written", "timeout"})
"""Codes of Temporary and Unknown for calls that met nobody; the same for every driver."""


@runtime_checkable
class Configurable(Protocol):
    """A driver that reads a device's options."""

    def option_problems(self, options: Mapping[str, Any]) -> tuple[str, ...]:
        """What is wrong with them, each beginning with the option's name; empty where nothing is."""
        ...
