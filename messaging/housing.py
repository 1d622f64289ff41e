"""The step of a Celery worker that makes it a session host: light, since every process imports it."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import structlog
from celery import bootsteps

from messaging.bells import SESSION_BELLS

log = structlog.get_logger(__name__)

__all__ = ["HouseSessions"]


class HouseSessions(bootsteps.StartStopStep):
    """Consumer bootstep: ``app.steps["consumer"].add(HouseSessions)``. Does nothing in workers for anything else.

    Bells of session shards that a worker was given by name are refused: they go by lease
    (:mod:`messaging.session_host`), because two workers on one shard would take each other's sessions away.
    """

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def start(self, c: Any) -> None:
        asked = set(c.app.amqp.queues.consume_from)
        houses = SESSION_BELLS in asked
        # not before: Django must be ready
        host = import_module("messaging.session_host").shared_host() if houses else None
        held = host.bells() if host is not None else set()
        for bell in sorted(name for name in asked if name.startswith(f"{SESSION_BELLS}.") and name not in held):
            if not houses:
                log.error("sessions.bell_refused", bell=bell, remedy=f"start the worker with -Q {SESSION_BELLS}")
            c.cancel_task_queue(bell)
        if host is not None:
            host.attach(c)
