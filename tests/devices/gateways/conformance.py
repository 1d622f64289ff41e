"""What a driver's test module contributes to the conformance suite: data, not code."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from devices.gateways.base import Deadlines, DeviceConfig, Outcome, Outgoing

PATIENT = Deadlines(connect_seconds=5, read_seconds=20, total_seconds=30)
HASTY = Deadlines(connect_seconds=5, read_seconds=0.8, total_seconds=30)
"""Gives up on silence; never gets near its total."""
SHORT = Deadlines(connect_seconds=5, read_seconds=20, total_seconds=1.0)
"""Gives up on the whole call; silence alone would be allowed to last much longer."""


@dataclass(frozen=True)
class Exchange:
    """One exchange on the wire: the request that must go out, the answer given, the outcome that must come."""

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
    form: bool = False
    """The body travels as a form; ``body`` holds its texts."""


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


@dataclass(frozen=True)
class Suite:
    """One driver's part. ``config`` takes the gateway's address, a device token and deadlines.

    The rest says what a gateway cannot say: that a device is banned and not just logged out, an id for each message it
    takes, our own number of the message.
    """

    kind: str
    config: Callable[[str, str, Deadlines], DeviceConfig]
    exchanges: tuple[Exchange, ...]
    behaviours: tuple[Behaviour, ...]
    knows_bans: bool = True
    names_messages: bool = True
    carries_number: bool = False
    unsupported: tuple[Outgoing, ...] = ()
    """Messages that this gateway carries not at all."""
