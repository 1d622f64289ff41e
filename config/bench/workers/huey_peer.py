"""huey, which has one queue per consumer process. ``fill MESSAGES`` publishes; ``huey_consumer`` on it works."""

from __future__ import annotations

import os
import sys

from huey import RedisHuey

from .counting import hit

huey = RedisHuey("bench", url=os.environ["BENCH_BROKER"], results=False)


@huey.task()
def noop(number: int) -> None:  # noqa: ARG001 - the same small payload as everywhere
    """Nothing, counted."""
    hit()


if __name__ == "__main__":
    for number in range(int(sys.argv[2])):
        noop(number)
