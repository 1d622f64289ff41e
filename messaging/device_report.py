"""How far some batches are, device by device: the report behind a run's and a sequence's page.

Read from the streams' counters, never from messages, so it costs the same however many messages there are; what is in
flight is counted, and that is at most one row per lane of the fleet.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from django.db.models import Count, Sum

from messaging.models import Message, Stream
from messaging.services import Counts
from messaging.states import IN_FLIGHT

STATUSES = (
    "total", "pending", "queued", "sent", "delivered", "read", "replied", "failed", "cancelled", "expired", "unknown",
)  # fmt: skip
"""What lines are filtered and sorted by: names of :class:`~messaging.services.Counts`, and who answered."""


_DIGITS = re.compile(r"([0-9]{1,18})", re.ASCII)


@dataclass(frozen=True, slots=True)
class Line:
    """One device's share. ``state`` is the device's own, as it is now."""

    device_id: int
    device: str
    state: str
    counts: Counts = field(default_factory=Counts)
    replied: int = 0

    def number(self, status: str) -> int:
        """How many of one of :data:`STATUSES`."""
        return self.replied if status == "replied" else int(getattr(self.counts, status))


def lines_of(batches: Collection[int], *, replied: Mapping[int, int] | None = None) -> list[Line]:
    """A line per device that has messages of these batches, by name; two queries. ``replied`` is by device."""
    answered = replied or {}
    sums = (
        Stream.objects.filter(batch__in=batches, total__gt=0)
        .order_by()
        .values_list("device_id", "device__name", "device__state")
        .annotate(*[Sum(name) for name in ("total", *Stream.COUNTERS)])
    )
    # Index message_one_in_flight.
    flying = dict(
        Message.objects.filter(state__in=sorted(IN_FLIGHT), batch__in=batches)
        .order_by()
        .values_list("device_id")
        .annotate(Count("pk"))
    )
    found = []
    row: tuple[Any, ...]
    for row in sums:
        pk, name, state, total, waiting, *settled = row
        queued = min(flying.get(pk, 0), waiting)
        counts = Counts(total, waiting - queued, queued, *settled)
        found.append(Line(pk, name, state, counts, answered.get(pk, 0)))
    return sorted(found, key=lambda line: (_in_order(line.device), line.device_id))


def _in_order(name: str) -> list[tuple[bool, int, str]]:
    """So that “Desk 2” comes before “Desk 10”."""
    parts = _DIGITS.split(name.casefold())
    return [(True, int(part), "") if part.isdecimal() else (False, 0, part) for part in parts if part]


def total_of(lines: Iterable[Line]) -> Line:
    """All of it as one line."""
    rows = list(lines)
    numbers = {name: sum(getattr(line.counts, name) for line in rows) for name in Counts.__slots__}
    return Line(0, "", "", Counts(**numbers), sum(line.replied for line in rows))


def chosen(lines: Iterable[Line], *, device: str = "", status: str = "", sort: str = "") -> list[Line]:
    """Lines whose device's name holds ``device`` and that have messages of ``status``; most of ``sort`` first."""
    wanted = device.casefold()
    found = [line for line in lines if wanted in line.device.casefold() and (not status or line.number(status) > 0)]
    return sorted(found, key=lambda line: -line.number(sort)) if sort else found
