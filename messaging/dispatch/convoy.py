"""Claims, records and hand-overs of one process, several at a time.

A claim, a record and a hand-over cost a trip to the server each, and the first two a wait for the disk. Under load the
threads of a worker ask for them at the same moments, so they travel in convoy: one statement for all that gathered
(:mod:`messaging.dispatch.combining`). Each row is fenced exactly as it is when it goes alone.

A statement for many must not make all of them wait for one row that somebody holds. So these take what is free (SKIP
LOCKED) and leave out the rest; whoever was left out asks alone, with the statements that wait and that tell why. Only
a stream's row is waited for: nobody holds it longer than a record does, and in one order, so nobody waits in a circle.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cache, partial
from typing import Any

from messaging.dispatch.combining import Combiner
from messaging.dispatch.pool import Pool, Row, shared_pool
from messaging.dispatch.statements import together

Params = Mapping[str, Any]

_RECORDED = {
    "messages": "message",
    "release_nos": "release_no",
    "devices": "device",
    "gaps_seconds": "gap_seconds",
    "external_ids": "external_id",
}
_CLAIMED = {
    "messages": "message",
    "release_nos": "release_no",
    "devices": "device",
    "leases_seconds": "lease_seconds",
    "gaps_seconds": "gap_seconds",
    "references": "reference",
    "texts": "text",
    "warm_up_caps": "warm_up_cap",
}


class Convoy:
    """What a process's threads ask of the database together. Raises FailedTogether; None and False mean "ask alone"."""

    def __init__(self, *, pool: Pool) -> None:
        self._pool = pool
        # One group of each kind at a time: two would be half as large and meet in the same rows (measured: slower).
        self._free_claims = Combiner(work=partial(self.claim_all, paced=False))
        self._paced_claims = Combiner(work=partial(self.claim_all, paced=True))
        self._records = Combiner(work=self.record_sent_all)
        self._hand_overs = Combiner(work=self.hand_over_all)

    def claim(self, params: Params, *, paced: bool) -> Row | None:
        """Claim one message: (attempt number, in doubt)."""
        if paced:  # what has a rhythm goes one at a time
            return self._paced_claims.ask(params, key=params["device"])
        return self._free_claims.ask(params, key=params["message"])

    def record_sent(self, params: Params) -> bool:
        """Record that a gateway accepted one message."""
        return self._records.ask(params, key=params["message"]) is not None

    def hand_over(self, *, device_id: int) -> tuple[Row, ...] | None:
        """At most one row as PEEK gives it, of the device's next message; empty if nothing is due."""
        return self._hand_overs.ask(device_id, key=object())

    def claim_all(self, asked: Sequence[Params], *, paced: bool) -> list[Row | None]:
        """:meth:`claim` for several messages; in case of ``paced``, of as many devices."""
        statement = together.CLAIM_PACED if paced else together.CLAIM_FREE
        return _by_message(asked, self._pool.execute(statement, _columns(asked, _CLAIMED)))

    def record_sent_all(self, asked: Sequence[Params]) -> list[Row | None]:
        """:meth:`record_sent` for several messages; None for what was left out."""
        return _by_message(asked, self._pool.execute(together.RECORD_SENT, _columns(asked, _RECORDED)))

    def hand_over_all(self, asked: Sequence[int]) -> list[tuple[Row, ...] | None]:
        """:meth:`hand_over` for several devices, the same one more than once if it has lanes."""
        wanted = Counter(asked)
        params = {"devices": list(wanted), "wants": list(wanted.values())}
        found: dict[int, list[Row]] = {}
        for device, *row in self._pool.execute_together(together.HAND_OVER, params):
            found.setdefault(device, []).extend([tuple(row)] if row[0] is not None else [])
        answers: list[tuple[Row, ...] | None] = []
        for device in asked:
            left = found.get(device)
            answers.append(None if left is None else (left.pop(0),) if left else ())
        return answers


def _columns(asked: Sequence[Params], names: Mapping[str, str]) -> dict[str, Any]:
    """One array per parameter, as unnest() takes them."""
    return {array: [params[name] for params in asked] for array, name in names.items()}


def _by_message(asked: Sequence[Params], rows: Sequence[Row]) -> list[Row | None]:
    """Each question's row, by the message id that comes first in it."""
    found = {row[0]: tuple(row[1:]) for row in rows}
    return [found.get(params["message"]) for params in asked]


@cache
def shared_convoy() -> Convoy:
    """This process's convoy over this process's pool."""
    return Convoy(pool=shared_pool())
