"""Mend the tie between device queues and their tokens after the server lost or someone changed a part of the data.

Nothing the transport itself does can break it, since each change is one script. A hand that deletes or renames keys,
an eviction policy, or a restore from two different moments can.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final

import redis

from messaging.transport import scripts
from messaging.transport.names import READY_SUFFIX, WHERE_KEY

#: Keys looked at by one step. A step is one SCAN and one script call: well under ten milliseconds of server time.
STEP_KEYS: Final = 500


@dataclass(frozen=True, slots=True)
class Repaired:
    """What a repair did. ``complete`` says whether it went once around the whole key space."""

    tokens_added: int = 0
    tokens_dropped: int = 0
    steps: int = 0
    complete: bool = False


def repair(client: redis.Redis, *, step_keys: int = STEP_KEYS, max_steps: int | None = None) -> Repaired:
    """Mend everything, or as much as ``max_steps`` bounded steps reach. Safe at any time, next to any traffic.

    Raises redis-py's errors when the server cannot be reached.
    """
    done = Repaired()
    steps = repair_steps(client, step_keys=step_keys)
    while max_steps is None or done.steps < max_steps:
        step = next(steps, None)
        if step is None:
            return replace(done, complete=True)
        done = add(done, step)
    return done


def add(one: Repaired, other: Repaired) -> Repaired:
    """The sum of two pieces of work."""
    return Repaired(
        tokens_added=one.tokens_added + other.tokens_added,
        tokens_dropped=one.tokens_dropped + other.tokens_dropped,
        steps=one.steps + other.steps,
        complete=one.complete and other.complete,
    )


def repair_steps(client: redis.Redis, *, step_keys: int = STEP_KEYS) -> Iterator[Repaired]:
    """Once around, as bounded steps for a caller that has other things to do in between."""
    for keys in _pages(partial(client.scan, _type="list", count=step_keys)):
        added = scripts.REPAIR_LISTS.run(client, keys=[WHERE_KEY, *keys]) if keys else 0
        yield Repaired(tokens_added=added, steps=1)
    for queues in _pages(partial(client.hscan, WHERE_KEY, count=step_keys)):
        yield _check_tokens(client, bell=b"", queues=list(queues))
    for keys in _pages(partial(client.scan, match=f"*{READY_SUFFIX}", _type="zset", count=step_keys)):
        yield Repaired(steps=1)
        for key in keys:
            for members in _pages(partial(client.zscan, key, count=step_keys)):
                bell = key.removesuffix(READY_SUFFIX.encode())
                yield _check_tokens(client, bell=bell, queues=[queue for queue, _ in members])


def _check_tokens(client: redis.Redis, *, bell: bytes, queues: list[bytes]) -> Repaired:
    dropped = scripts.REPAIR_TOKENS.run(client, keys=[WHERE_KEY], args=[bell, *queues])
    return Repaired(tokens_dropped=dropped, steps=1)


def _pages(scan: Callable[..., Any]) -> Iterator[Any]:
    cursor: Any = 0
    while True:
        cursor, page = scan(cursor=cursor)
        yield page
        if int(cursor) == 0:
            return
