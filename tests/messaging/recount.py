"""A stream's counters beside a recount of its rows, for tests of whatever moves messages."""

from __future__ import annotations

from messaging.models import Message, Stream
from messaging.states import WAITING, State

REACHED = frozenset({State.SENT, State.DELIVERED, State.READ})


def counters(stream: Stream) -> dict[str, int]:
    """The stream's counters as they are stored now."""
    stream.refresh_from_db()
    return {name: getattr(stream, name) for name in ("total", *Stream.COUNTERS)}


def recount(stream: Stream) -> dict[str, int]:
    """The same from the rows."""
    rows = list(Message.objects.filter(stream=stream))
    found = dict.fromkeys(("total", *Stream.COUNTERS), 0)
    for message in rows:
        state = State(message.state)
        word = "waiting" if state in WAITING else "sent" if state in REACHED else state.value
        found["total"] += 1
        found[word] += 1
        found["delivered"] += message.delivered_at is not None
        found["read"] += message.read_at is not None
        found["presumed"] += message.presumed_at is not None
    return found


def assert_counters_hold() -> None:
    """Every stream's counters equal its rows, and it is open exactly while something waits."""
    for stream in Stream.objects.all():
        assert counters(stream) == recount(stream)
        assert stream.is_open == (stream.waiting > 0)
