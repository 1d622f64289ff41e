"""A message's life as a line of time: made, queued, tried, sent, delivered, read, answered; and what lies ahead.

Read from the rows that there are anyway: the message, its attempts, what its lead wrote since, and what people did to
it. Five queries, however long the life.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.contrib.admin.models import LogEntry
from django.contrib.contenttypes.models import ContentType

from devices.access import AnyUser
from messaging.models import Attempt, InboundMessage, Message
from messaging.states import UNSENT, WAITING, State

REPLIES_WITHIN = timedelta(days=7)
REPLIES_SHOWN = 10
NOTES_SHOWN = 50

OUTCOMES = {
    "": ("Under way", "info"),
    "accepted": ("Accepted", "success"),
    "rejected": ("Rejected", "danger"),
    "temporary": ("Failed for now", "warning"),
    "throttled": ("Throttled", "warning"),
    "session_lost": ("Session lost", "danger"),
    "unknown": ("Unknown", "warning"),
    "banned": ("Banned", "danger"),
    "not_sent": ("Not sent", "default"),
    "absent": ("Not sent: unknown to the gateway", "warning"),
}
"""What came of an attempt, for people, and its colour."""


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened, or will (``ahead``). ``colour`` as labels have it; ``text`` is somebody's words."""

    at: datetime
    title: str
    colour: str = "default"
    note: str = ""
    text: str = ""
    by: str = ""
    ahead: bool = False


@dataclass(frozen=True, slots=True)
class Life:
    """``past`` and ``ahead`` in the order of time; ``said`` is the text as it was last rendered, if it ever was."""

    past: tuple[Event, ...]
    ahead: tuple[Event, ...]
    said: str


def life_of(message: Message, *, user: AnyUser, now: datetime) -> Life:
    """All that is known of ``message`` and ``user`` may see. Reads its batch."""
    attempts = list(
        Attempt.objects.filter(message=message)
        .order_by("release_no")
        .select_related("device")
        .defer("device__credentials")
    )
    events = [
        Event(message.created_at, "Made", note=f"by “{message.batch}”"),
        *_queued(message),
        *_attempts(attempts),
        *_states(message),
        *_notes(message),
        *_replies(message, user),
    ]
    past = sorted((event for event in events if event.at <= now or not event.ahead), key=lambda event: event.at)
    said = next((attempt.text for attempt in reversed(attempts) if attempt.text), "")
    return Life(tuple(past), tuple(sorted(_ahead(message, now), key=lambda event: event.at)), said)


def _attempts(attempts: list[Attempt]) -> Iterator[Event]:
    said = ""
    for attempt in attempts:
        words, colour = OUTCOMES.get(attempt.outcome, (attempt.outcome, "default"))
        number = f"Attempt {attempt.number}" + (f" of round {attempt.round}" if attempt.round > 1 else "")
        took = f", {(attempt.finished_at - attempt.started_at).total_seconds():.1f} s" if attempt.finished_at else ""
        error = " ".join(part for part in (attempt.error_text, f"({attempt.error_code})") if part.strip("()"))
        note = f"through {attempt.device}{took}" + (f". {error}" if error else "")
        yield Event(
            attempt.started_at,
            f"{number}: {words.lower()}",
            colour,
            note,
            text=attempt.text if attempt.text != said and said else "",
        )
        said = attempt.text


def _queued(message: Message) -> Iterator[Event]:
    if message.queued_at is not None:
        yield Event(message.queued_at, "Put into the queue", "info", f"of {message.device}")


def _states(message: Message) -> Iterator[Event]:
    """Moments that the row keeps: of each kind the last one."""
    state = State(message.state)
    if message.sent_at is not None:
        yield Event(message.sent_at, "Sent", "success", "the gateway has it")
    if message.delivered_at is not None:
        yield Event(message.delivered_at, "Delivered", "success", "the phone has it")
    if message.read_at is not None:
        yield Event(message.read_at, "Read", "success")
    if message.presumed_at is not None:
        yield Event(message.presumed_at, "Counts as sent", "warning", "because nobody knows better")
    if message.failed_at is not None and state is State.FAILED:
        yield Event(message.failed_at, "Failed for good", "danger", message.error_text)
    if message.archived_at is not None:
        yield Event(message.archived_at, "Moved to the archive")


def _notes(message: Message) -> Iterator[Event]:
    """What people did to it by hand."""
    kind = ContentType.objects.get_for_model(Message)
    rows = LogEntry.objects.filter(content_type=kind, object_id=str(message.pk)).select_related("user")
    for row in rows.order_by("-action_time")[:NOTES_SHOWN]:
        yield Event(row.action_time, row.get_change_message() or "Changed", "info", by=row.user.get_username())


def _replies(message: Message, user: AnyUser) -> Iterator[Event]:
    """What the lead wrote in the days after (index inbound_lead_received)."""
    if message.lead_id is None or message.sent_at is None:
        return
    since = message.sent_at
    rows = InboundMessage.objects.visible_to(user).filter(
        lead=message.lead_id, received_at__gte=since, received_at__lte=since + REPLIES_WITHIN
    )
    for row in rows.order_by("received_at")[:REPLIES_SHOWN]:
        yield Event(row.received_at, "They wrote", "success", text=row.text)


def _ahead(message: Message, now: datetime) -> Iterator[Event]:
    state = State(message.state)
    if state is State.PENDING and message.due_at > now:
        title = "Next attempt" if message.attempts else "Due"
        yield Event(message.due_at, title, "info", ahead=True)
    if state is State.SENDING and message.lease_until is not None and message.lease_until > now:
        yield Event(message.lease_until, "Given up as unknown", "warning", "unless its worker answers", ahead=True)
    if (state in UNSENT or state in WAITING) and message.batch.expires_at > now:
        yield Event(message.batch.expires_at, "Expires", note="is not sent any more after this", ahead=True)
