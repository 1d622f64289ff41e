"""huey, which has one queue per consumer process: ``huey_consumer`` on it works.

To be imported by whoever publishes, never run: huey names a task by its module, and ``__main__`` is another one.
"""

from __future__ import annotations

import os

from huey import RedisHuey

from .counting import hit

huey = RedisHuey("bench", url=os.environ["BENCH_BROKER"], results=False)


@huey.task()
def noop(number: int) -> None:  # noqa: ARG001 - the same small payload as everywhere
    """Nothing, counted."""
    hit()


def fill(*, messages: int) -> None:
    """Publish ``messages``."""
    for number in range(messages):
        noop(number)
