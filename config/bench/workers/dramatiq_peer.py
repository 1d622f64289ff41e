"""dramatiq with one queue per device. ``fill QUEUES MESSAGES`` publishes; ``python -m dramatiq`` on it works."""

from __future__ import annotations

import os
import sys

import dramatiq
from dramatiq.brokers.redis import RedisBroker

from .counting import hit

broker = RedisBroker(url=os.environ["BENCH_BROKER"])
dramatiq.set_broker(broker)
for _number in range(int(os.environ["BENCH_QUEUES"])):
    broker.declare_queue(f"device.{_number}")


@dramatiq.actor(queue_name="device.0")
def noop(number: int) -> None:  # noqa: ARG001 - the same small payload as everywhere
    """Nothing, counted."""
    hit()


def fill(*, queues: int, messages: int) -> None:
    """Publish ``messages``, turn by turn over the queues."""
    for number in range(messages):
        broker.enqueue(noop.message(number).copy(queue_name=f"device.{number % queues}"))


if __name__ == "__main__":
    fill(queues=int(sys.argv[2]), messages=int(sys.argv[3]))
