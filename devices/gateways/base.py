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

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, ClassVar, Literal, Protocol, runtime_checkable

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


# -- Sessions: connections that one process in the whole fleet may hold -----------------------------------------------


class SessionClient(Client, Protocol):
    """One open session. ``send`` is called by one thread at a time; the other methods by any.

    Every call comes back in bounded time, whatever the library underneath does: a call that does not is left on its
    thread, the answer is Unknown (or Temporary where surely nothing left), :meth:`is_healthy` is False from then on,
    and :meth:`SessionHost.wedged` is told.
    """

    def is_healthy(self) -> bool:
        """Whether it is connected and logged in, from what is known here: asks nobody and never blocks.

        False makes the next send open the session anew, so a connection that mends itself within seconds may say True.
        """
        ...

    def drain(self, *, seconds: float) -> bool:
        """Wait until what came while the session was away has been told (:meth:`SessionHost.tell`), for at most so
        long. Called once, before the first send. Returns whether all of it was; the rest is told when it comes."""
        ...

    def close(self) -> None:
        """Disconnect cleanly, within ten seconds, keeping the link to the phone. May be called twice; tells no news."""
        ...


class SessionHost(Protocol):
    """What the process that houses a session offers to its driver; one for each device that is opened."""

    @property
    def store_url(self) -> str:
        """Where sessions are stored: a libpq address of the project's database. A secret: never in logs or reprs."""
        ...

    def tell(self, news: Sequence[News]) -> bool:
        """Hand over what the session heard. From any thread but never from the one that serves other sessions, since it
        waits for the database (at most about ten seconds). False: it could not be written down; do not acknowledge it
        to the other side where that is possible. ``device_id`` is filled in. Telling twice changes nothing.

        A DeviceEvent ``logged_out``, ``banned`` or ``replaced`` takes the device out of service.
        """
        ...

    def risky(self, call: str) -> AbstractContextManager[None]:
        """Around a native call that may abort the process; ``open`` as a whole is inside of one already.

        If the process dies in there, the device is charged with it. Twice, and it is set aside for a person.
        """
        ...

    def wedged(self, call: str) -> None:
        """A native call did not come back and its thread is lost: counts towards replacing this process."""
        ...


class SessionDriver(Gateway, Protocol):
    """A gateway whose devices are sessions: its ``transport`` is ``session``.

    Instances live in every process, web and beat included: import what is heavy or native in :meth:`open`. A driver
    brings no threads of its own to life before the first ``open``, and leaves none after the last ``close``.
    """

    opens_at_once: ClassVar[int]
    """How many sessions one process may be opening at the same moment."""

    def open(
        self, config: DeviceConfig, *, host: SessionHost, seconds: float
    ) -> SessionClient | Temporary | Throttled | SessionLost:
        """Load the stored session that ``config.credentials`` name, connect, and wait until logged in.

        Comes back within ``seconds`` (and a little) and never raises for anything the gateway or the network does:

        * Temporary with a code of :data:`NETWORK_CODES` if nobody was met: not the device's fault when many fail so;
        * Temporary with another code if somebody refused for now;
        * Throttled for a ban that ends by itself;
        * SessionLost (``logged_out``, ``banned``, ``replaced``, ``not_paired``, ``outdated``…) if a person is needed.

        Whatever it opened is closed again unless a client is returned. Nobody else holds the session meanwhile: the
        caller has the lease of the device's shard.
        """
        ...


NETWORK_CODES = frozenset({"dns", "connect", "tls", "not_started", "not_written", "timeout"})
"""Codes of Temporary and Unknown for calls that met nobody; the same for every driver."""


@runtime_checkable
class Configurable(Protocol):
    """A driver that reads a device's options."""

    def option_problems(self, options: Mapping[str, Any]) -> tuple[str, ...]:
        """What is wrong with them, each beginning with the option's name; empty where nothing is."""
        ...


@runtime_checkable
class Challenged(Protocol):
    """A driver whose gateway asks a webhook's address, by GET, whether it is ours before it posts there."""

    def challenge(self, *, query: Mapping[str, str], tokens: tuple[str, ...]) -> str | None:
        """What to answer to one who knows one of the tokens; None to anybody else."""
        ...
