"""A worker that cannot reach the database takes no messages: others can send them.

Such a worker drops what it takes as fast as it fails, far faster than the others send, so a single host that is cut
off from the database alone would swallow most of what is released; each message then waits until it is published
again, and is likely swallowed again. Workers for ticks go on taking: stale ticks are better dropped than piled up.
"""

from __future__ import annotations

import threading
from typing import Any, Final

import psycopg2
import structlog
from celery import bootsteps

from messaging.dispatch.pool import Pool, shared_pool
from messaging.dispatch.prepared import Statement

log = structlog.get_logger(__name__)

__all__ = ["AbstainWithoutDatabase", "Gate"]

AGAIN_SECONDS: Final = 1.0
BELLS: Final = "devices."
"""What the names of queues begin with that carry messages."""
ALIVE: Final = Statement("alive", "SELECT 1")


class Gate:
    """Open while the pool's database can be reached; closed, it asks every second in a thread of its own."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._lock = threading.Lock()
        self._asking = False

    def is_open(self) -> bool:
        """Whether to take messages. Never waits."""
        if not self._pool.away:
            return True
        with self._lock:
            if not self._asking:
                self._asking = True
                threading.Thread(target=self._ask, name="database-away", daemon=True).start()
        return False

    def _ask(self) -> None:
        log.warning("worker.abstains", reason="the database cannot be reached")
        again = threading.Event()
        try:
            while self._pool.away:
                try:
                    self._pool.execute(ALIVE, {})
                except psycopg2.Error:
                    again.wait(AGAIN_SECONDS)
            log.info("worker.takes_messages_again")
        finally:
            self._asking = False


class AbstainWithoutDatabase(bootsteps.StartStopStep):
    """Consumer bootstep: ``app.steps["consumer"].add(AbstainWithoutDatabase)``. Does nothing in workers for ticks."""

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def start(self, c: Any) -> None:
        if not any(queue.startswith(BELLS) for queue in c.app.amqp.queues.consume_from):
            return
        qos, gate = c.task_consumer.channel.qos, Gate(shared_pool())
        inner = qos.can_consume
        qos.can_consume = lambda: gate.is_open() and inner()
