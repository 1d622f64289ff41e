"""What a driver's test module contributes to the conformance suite: data, not code."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl

from devices.gateways.base import Deadlines, DeviceConfig, Media, Outcome, Outgoing
from tests.devices.gateways.raw_server import RawRequest

PATIENT = Deadlines(connect_seconds=5, read_seconds=20, total_seconds=30)
HASTY = Deadlines(connect_seconds=5, read_seconds=0.8, total_seconds=30)
"""Gives up on silence; never gets near its total."""
SHORT = Deadlines(connect_seconds=5, read_seconds=20, total_seconds=1.0)
"""Gives up on the whole call; silence alone would be allowed to last much longer."""


Config = Callable[[str, str, Deadlines], DeviceConfig]


@dataclass(frozen=True)
class Exchange:
    """One exchange on the wire: the request that must go out, the answer given, the outcome that must come.

    ``body`` is what :func:`read_body` makes of the request's.
    """

    name: str
    outgoing: Outgoing
    method: str
    path: str
    body: dict[str, Any]
    headers: dict[str, str]
    status: int
    answer: bytes
    outcome: Outcome
    answer_headers: tuple[str, ...] = ()


@dataclass(frozen=True)
class Behaviour:
    """What goes wrong at a real simulator, and what the driver must make of it.

    ``faults`` are simulator rules, without the device. ``outcome`` is a type, ``details`` are attributes it must have.
    ``reached`` says whether the phone got the message: the test compares it with the ledger, and with the outcome.
    """

    name: str
    outcome: type
    reached: bool
    faults: tuple[dict[str, Any], ...] = ()
    details: dict[str, Any] = field(default_factory=dict)
    deadlines: Deadlines = PATIENT
    attempt: int = 1
    config: Config | None = None
    """Another configuration than the suite's: of somebody with a wrong key, for one."""


@dataclass(frozen=True)
class Suite:
    """One driver's part. ``config`` takes the gateway's address, a device token and deadlines.

    ``cannot`` names outcomes that no answer of this gateway can mean, each with the reason. ``carries_numbers``: our
    message and attempt travel along. ``tells_bans``: a banned device can be told from one that is logged out.
    ``creates``: pairing makes a device that the gateway does not know. ``tells`` are the receipts that its webhooks
    carry, ``device_news`` whether they tell of devices. ``token`` makes any text one that could be a device's here.
    ``names_messages``: each message that is taken gets an id; ``logs_out``: a device can be told to.
    """

    kind: str
    config: Config
    exchanges: tuple[Exchange, ...]
    behaviours: tuple[Behaviour, ...]
    cannot: Mapping[type, str] = field(default_factory=dict)
    carries_numbers: bool = False
    tells_bans: bool = False
    creates: bool = False
    tells: frozenset[str] = frozenset({"delivered", "read", "failed"})
    device_news: bool = False
    token: Callable[[str], str] = str
    names_messages: bool = True
    logs_out: bool = True


def media(mime_type: str, filename: str, *, data: bytes = b"\x00\xff\r\n--x") -> Media:
    """A small attachment, awkward enough for forms."""
    return Media(mime_type, filename, len(data), url=f"https://example.com/{filename}", read=lambda: data)


def read_body(request: RawRequest) -> Any:
    """A request's body as data: JSON as it is, a form as an object, its files as (name, type, bytes)."""
    kind = request.headers.get("content-type", "")
    if kind.startswith("application/x-www-form-urlencoded"):
        return dict(parse_qsl(request.body.decode(), keep_blank_values=True, strict_parsing=True))
    if not kind.startswith("multipart/form-data"):
        return request.json()
    boundary = b"--" + kind.partition("boundary=")[2].encode()
    first, *pieces, last = request.body.split(boundary)
    assert (first, last) == (b"", b"--\r\n")
    fields: dict[str, Any] = {}
    for piece in pieces:
        head, _, data = piece.removeprefix(b"\r\n").removesuffix(b"\r\n").partition(b"\r\n\r\n")
        words = head.decode()
        named = re.search(r'name="([^"]+)"(?:; filename="([^"]+)")?', words)
        assert named is not None
        mime = words.partition("Content-Type: ")[2]
        fields[named[1]] = (named[2], mime, data) if named[2] else data.decode()
    return fields
