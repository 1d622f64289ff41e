"""The send task's entry: a sender with this process's pool, clients and convoy."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from devices.clients import shared_registry
from messaging.dispatch.breaker import shared_breaker
from messaging.dispatch.convoy import shared_convoy
from messaging.dispatch.pool import shared_pool
from messaging.dispatch.send import Sender


@dataclass(frozen=True, slots=True)
class Carried:
    """How many messages a task came to, and which of them failed for good."""

    number: int
    failed: tuple[int, ...] = ()


def carry(*, message_id: int, release_no: int) -> Carried:
    """Entry point of the send task: :meth:`Sender.carry` with this process's pool and clients."""
    sender = Sender(
        pool=shared_pool(),
        clients=shared_registry(),
        rng=Random(),  # noqa: S311 - a rhythm, not a secret
        convoy=shared_convoy(),
        breaker=shared_breaker(),
    )
    number = sender.carry(message_id=message_id, release_no=release_no)
    return Carried(number, tuple(sender.failed))
