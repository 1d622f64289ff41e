"""Which able device takes which message over. Pure."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Mover:
    """A message that may leave its device.

    ``failed_on``: devices on which it failed in this round. ``must_leave``: its device cannot send at all, so that any
    other is better; else it stays rather than go where it failed before.
    """

    message_id: int
    stream_id: int
    device_id: int
    failed_on: frozenset[int] = frozenset()
    must_leave: bool = True


def spread(*, movers: Iterable[Mover], waiting: Mapping[int, int]) -> dict[int, int]:
    """Target device by message id: each message goes to the device with the least in front of it at that moment.

    ``waiting``: how many messages wait for each able device. A message for which there is no target is left out.
    """
    heap = [(number, device) for device, number in waiting.items()]
    heapq.heapify(heap)
    targets: dict[int, int] = {}
    for mover in movers:
        passed: list[tuple[int, int]] = []
        last_resort: tuple[int, int] | None = None
        chosen: tuple[int, int] | None = None
        while heap and chosen is None:
            candidate = heapq.heappop(heap)
            if candidate[1] != mover.device_id and candidate[1] not in mover.failed_on:
                chosen = candidate
            else:
                passed.append(candidate)
                if last_resort is None and candidate[1] != mover.device_id:
                    last_resort = candidate
        if chosen is None and mover.must_leave and last_resort is not None:
            chosen = last_resort
            passed.remove(last_resort)
        for candidate in passed:
            heapq.heappush(heap, candidate)
        if chosen is not None:
            targets[mover.message_id] = chosen[1]
            heapq.heappush(heap, (chosen[0] + 1, chosen[1]))
    return targets
