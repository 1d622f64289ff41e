"""Recovery when a worker starts: whoever comes back after a crash looks after what it left behind, before any tick."""

from __future__ import annotations

import threading
from typing import Any

import psycopg2
import structlog
from celery import bootsteps

from messaging.dispatch import recover

log = structlog.get_logger(__name__)

__all__ = ["RecoverOnStart"]


class RecoverOnStart(bootsteps.StartStopStep):
    """Consumer bootstep: runs the recovery once whenever the worker has (again) found its broker.

    ``app.steps["consumer"].add(RecoverOnStart)``. In a thread of its own, because the event loop must not wait for a
    database; however many workers start at once, one of them does the work.
    """

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def start(self, c: Any) -> None:  # noqa: ARG002 - Celery's signature
        threading.Thread(target=_recover, name="recover-on-start", daemon=True).start()


def _recover() -> None:
    try:
        recover.at_start()
    except psycopg2.Error as problem:
        log.warning("recover.start_failed", error=type(problem).__name__)  # the tick does it once the database is back
