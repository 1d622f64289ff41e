"""The names that publishers, consumers and the Lua scripts agree on."""

from __future__ import annotations

from typing import Final

from kombu import Exchange, Queue

#: Message header naming the bell under which the message's queue becomes ready. A message without it is none of ours.
BELL_HEADER: Final = "x-bell"

#: Message header set when a message comes back: when it was first taken, in seconds of the server's clock.
TAKEN_HEADER: Final = "x-taken"

#: What lies in a bell list. No kombu message looks like it.
BELL: Final = b"!"

#: Sorted set ``<bell>:ready``: the device queues that hold messages, in round-robin order.
READY_SUFFIX: Final = ":ready"

#: Hash: device queue to the bell under which it stands ready.
WHERE_KEY: Final = "bell:of"

#: List of the newest entries found in a device queue that are no kombu messages.
UNREADABLE_KEY: Final = "bell:unreadable"

_ANONYMOUS: Final = Exchange("")


def device_queue(name: str) -> Queue:
    """A queue to publish to that is never declared, so its name costs nothing in this process or in Redis.

    Use it as ``task.apply_async(..., **device_route(queue=name, bell=bell))`` or pass it to kombu by hand. Naming the
    queue matters: a bare ``exchange=""`` with a routing key goes to Celery's default queue, silently.
    """
    return Queue(name, exchange=_ANONYMOUS, routing_key=name, no_declare=True)


def device_route(*, queue: str, bell: str) -> dict[str, object]:
    """The options of ``apply_async`` that send a task to device queue ``queue`` and ring ``bell``."""
    return {"queue": device_queue(queue), "declare": [], "headers": {BELL_HEADER: bell}}
