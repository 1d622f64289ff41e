"""Comparing what the database says with what reached the phones."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from messaging.models import Message
from messaging.states import State

REACHED = frozenset({State.SENT, State.DELIVERED, State.READ})


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a batch came to. Every number but ``delivered`` and ``repeats_dropped`` should be zero."""

    delivered: int
    lost: tuple[int, ...]
    """Messages that we call sent and no phone has, and messages that ended nowhere."""
    duplicated: tuple[int, ...]
    """Messages that a phone has more than once."""
    unaccounted: tuple[int, ...]
    """Messages that a phone has and we call failed or unsent."""
    out_of_order: tuple[str, ...]
    """Devices of one lane whose first attempts did not go out in the order of their queue."""
    repeats_dropped: int
    """Requests that the gateway recognised as repeats by our id."""

    @property
    def clean(self) -> bool:
        """Whether the promise held."""
        return not (self.lost or self.duplicated or self.unaccounted or self.out_of_order)


def judge(*, batch_id: int, entries: Iterable[Mapping[str, Any]]) -> Verdict:
    """Hold one batch against the ledger's entries."""
    rows = Message.objects.filter(batch_id=batch_id).values_list("pk", "state", "device__lanes")
    states = {pk: state for pk, state, _ in rows}
    ordered = {pk for pk, _, lanes in rows if lanes == 1}
    delivered: Counter[int] = Counter()
    firsts: dict[str, list[int]] = defaultdict(list)
    seen: set[int] = set()
    repeats = 0
    for entry in entries:
        message = entry["message"]
        if message not in states:
            continue
        delivered[message] += bool(entry["delivered"])
        repeats += bool(entry["repeated"])
        if message in ordered and entry["attempt"] == 1 and message not in seen:
            seen.add(message)
            firsts[entry["device"]].append(message)
    return Verdict(
        delivered=sum(delivered.values()),
        lost=tuple(
            pk
            for pk, state in states.items()
            if (state in REACHED and not delivered[pk]) or state in {State.PENDING, State.QUEUED, State.SENDING}
        ),
        duplicated=tuple(pk for pk, times in delivered.items() if times > 1),
        unaccounted=tuple(
            pk for pk, times in delivered.items() if times and states[pk] not in REACHED and states[pk] != State.UNKNOWN
        ),
        out_of_order=tuple(device for device, order in firsts.items() if order != sorted(order)),
        repeats_dropped=repeats,
    )
