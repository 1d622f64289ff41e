"""The life of a message, as data.

::

    pending ──release──> queued ──claim──> sending ──accepted──> sent ──> delivered ──> read
       ^                    │                 │
       ├────── recovered ───┤                 ├── rejected, attempts used up ──> failed
       ├────── snoozed ─────┘                 └── outcome not known ──> unknown ──> sent | pending | failed
       └────── retried, throttled ────────────┘        pending, queued ──> cancelled | expired | unknown

* **pending** waits for ``due_at`` in its stream. The release moves it on, as soon as its device is able and due; or the
  late record of a worker that was given up, if it says that the gateway had accepted.
* **queued** was released to its device's queue; nothing has been sent. A worker's claim moves it on; unclaimed for
  15 seconds it is published again, for five minutes the recovery takes it back.
* **sending** is held by a worker until ``lease_until``; the gateway may have been called. The worker's record moves it
  on; past the lease the recovery declares the outcome unknown.
* **unknown** may have reached the phone and is not sent again by guesswork. What is cancelled or expires while it waits
  for another try ends here too, when its last one was in doubt. A late record, a receipt, a look-up, an operator or
  the gateway's policy settles it. Where nobody does for a day, it is *presumed* sent: still unknown, with
  ``presumed_at`` set, so that its batch can finish; whoever knows better may still settle it.
* **sent**, **delivered**, **read** only ever move forward, by receipts. A receipt also proves that a message which
  waits for another attempt of the same round has arrived already.
* **failed** stays as it is until an operator starts a new round, or a receipt proves that it arrived after all;
  **cancelled** and **expired** are final.

What is to be cancelled, expired or failed before it left, but has an earlier attempt of its round in doubt, ends as
unknown (*end_in_doubt*): none of the other words may be said of a message that perhaps arrived.

What a backup shows as waiting may have been sent after that was taken: bringing it back (*restored*) makes it unknown,
or leaves it to a gateway that drops what it has seen (:mod:`messaging.aftermath`).

Every move is one conditional UPDATE on the old state; whoever updates no row has lost the race and does nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class State(StrEnum):
    """States of a message, as stored."""

    PENDING = "pending"
    QUEUED = "queued"
    SENDING = "sending"
    SENT = "sent"
    DELIVERED = "delivered"
    READ = "read"
    FAILED = "failed"
    UNKNOWN = "unknown"
    CANCELLED = "cancelled"
    EXPIRED = "expired"


S = State

IN_FLIGHT = frozenset({S.QUEUED, S.SENDING})
"""States that occupy a lane of their device."""

WAITING = frozenset({S.PENDING, S.QUEUED, S.SENDING})
"""States whose message still has a send ahead of it."""

UNSENT = frozenset({S.PENDING, S.QUEUED})
"""States in which nothing has left: these can be cancelled or expire."""

FINAL = frozenset({S.READ, S.CANCELLED, S.EXPIRED})
"""States no event moves on."""


@dataclass(frozen=True, slots=True)
class Transition:
    """``event`` moves a message from ``source`` to ``target``."""

    event: str
    source: State
    target: State


TRANSITIONS: tuple[Transition, ...] = (
    Transition("release", S.PENDING, S.QUEUED),
    Transition("claim", S.QUEUED, S.SENDING),
    Transition("snooze", S.QUEUED, S.PENDING),
    Transition("recover", S.QUEUED, S.PENDING),
    Transition("give_up", S.QUEUED, S.FAILED),
    Transition("accepted", S.SENDING, S.SENT),
    Transition("accepted", S.UNKNOWN, S.SENT),
    Transition("accepted", S.PENDING, S.SENT),
    Transition("retry", S.SENDING, S.PENDING),
    Transition("retry", S.UNKNOWN, S.PENDING),
    Transition("fail", S.SENDING, S.FAILED),
    Transition("fail", S.UNKNOWN, S.FAILED),
    Transition("lose_track", S.SENDING, S.UNKNOWN),
    Transition("run_failed", S.PENDING, S.FAILED),
    Transition("run_failed", S.QUEUED, S.FAILED),
    Transition("left", S.PENDING, S.SENT),
    Transition("left", S.UNKNOWN, S.SENT),
    Transition("delivered", S.PENDING, S.DELIVERED),
    Transition("delivered", S.SENT, S.DELIVERED),
    Transition("delivered", S.UNKNOWN, S.DELIVERED),
    Transition("delivered", S.FAILED, S.DELIVERED),
    Transition("read", S.PENDING, S.READ),
    Transition("read", S.SENT, S.READ),
    Transition("read", S.DELIVERED, S.READ),
    Transition("read", S.UNKNOWN, S.READ),
    Transition("read", S.FAILED, S.READ),
    Transition("bounced", S.SENT, S.FAILED),
    Transition("bounced", S.UNKNOWN, S.FAILED),
    Transition("found", S.UNKNOWN, S.SENT),
    Transition("absent", S.UNKNOWN, S.PENDING),
    Transition("absent", S.UNKNOWN, S.FAILED),
    Transition("resend", S.UNKNOWN, S.PENDING),
    Transition("settle", S.UNKNOWN, S.SENT),
    Transition("settle", S.UNKNOWN, S.FAILED),
    Transition("new_round", S.FAILED, S.PENDING),
    Transition("cancel", S.PENDING, S.CANCELLED),
    Transition("cancel", S.QUEUED, S.CANCELLED),
    Transition("expire", S.PENDING, S.EXPIRED),
    Transition("expire", S.QUEUED, S.EXPIRED),
    Transition("end_in_doubt", S.PENDING, S.UNKNOWN),
    Transition("end_in_doubt", S.QUEUED, S.UNKNOWN),
    Transition("restored", S.PENDING, S.UNKNOWN),
    Transition("restored", S.QUEUED, S.UNKNOWN),
    Transition("restored", S.SENDING, S.UNKNOWN),
    Transition("restored", S.QUEUED, S.PENDING),
    Transition("restored", S.SENDING, S.PENDING),
)


def sources(event: str, target: State | None = None) -> tuple[State, ...]:
    """States from which ``event`` (to ``target``, if given) may start. Raises KeyError for an unknown event."""
    found = tuple(t.source for t in TRANSITIONS if t.event == event and target in {None, t.target})
    if not found:
        raise KeyError(event)
    return found


REPORT_WORDS: dict[State, str] = {
    S.PENDING: "Pending",
    S.QUEUED: "Queued",
    S.SENDING: "Queued",
    S.SENT: "Sent",
    S.DELIVERED: "Sent",
    S.READ: "Sent",
    S.FAILED: "Failed",
    S.CANCELLED: "Failed",
    S.EXPIRED: "Failed",
    S.UNKNOWN: "Unknown",
}
"""The five words that reports use."""
