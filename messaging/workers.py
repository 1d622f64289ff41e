"""Worker processes that say they live: the row each keeps renewing, and who is there, who left, who fell silent.

Asking the workers themselves (Celery's inspect) takes a second, misses whoever is busy and says nothing of one that
died; a row every five seconds costs a worker nothing and is still there afterwards.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import psycopg2
import structlog
from celery import bootsteps
from celery.signals import worker_shutdown
from celery.worker import state as celery_state

from messaging.dispatch.pool import Pool, shared_pool
from messaging.dispatch.prepared import Statement
from messaging.memory import resident_mb
from messaging.meters import METERS, Meters

log = structlog.get_logger(__name__)

__all__ = ["ReportWorker"]

EVERY_SECONDS = 5.0
SILENT_AFTER = timedelta(seconds=30)
"""A worker not heard of for this long is taken for dead."""
MISSED_FOR = timedelta(hours=1)
"""How long one that fell silent is missed, unless one of the same name comes back."""
FORGOTTEN_AFTER = timedelta(days=1)

REPORT = Statement(
    "report_worker",
    """
INSERT INTO messaging_workerprocess AS w
    (id, name, host, pid, queues, threads, started_at, seen_at, last_active_at, active_tasks, tasks, sent, failed,
     sent_per_minute, memory_mb, figures)
SELECT r.id, r.name, r.host, r.pid, r.queues, r.threads, flotilla_now(), flotilla_now(),
       CASE WHEN r.was_active THEN flotilla_now() END, r.active_tasks, r.tasks, r.sent, r.failed, r.sent_per_minute,
       r.memory_mb, r.figures
FROM jsonb_to_record(%(report)s) AS r(id uuid, name text, host text, pid int, queues jsonb, threads int,
    was_active boolean, active_tasks int, tasks bigint, sent bigint, failed bigint, sent_per_minute int, memory_mb int,
    figures jsonb)
ON CONFLICT (id) DO UPDATE
SET queues = EXCLUDED.queues, seen_at = EXCLUDED.seen_at, left_at = NULL,
    last_active_at = coalesce(EXCLUDED.last_active_at, w.last_active_at), active_tasks = EXCLUDED.active_tasks,
    tasks = EXCLUDED.tasks, sent = EXCLUDED.sent, failed = EXCLUDED.failed,
    sent_per_minute = EXCLUDED.sent_per_minute, memory_mb = EXCLUDED.memory_mb, figures = EXCLUDED.figures
""",
)
LEAVE = Statement(
    "worker_left",
    """
UPDATE messaging_workerprocess SET left_at = flotilla_now(), seen_at = flotilla_now(), active_tasks = 0
WHERE id = (%(report)s::jsonb ->> 'id')::uuid
""",
)


class Reporter:
    """What one worker process says of itself, and the thread that says it."""

    def __init__(
        self,
        *,
        name: str,
        threads: int,
        queues: Callable[[], list[str]],
        meters: Meters = METERS,
        pool: Pool | None = None,
    ) -> None:
        self.id = uuid.uuid4()
        self._name, self._threads, self._queues, self._meters = name, threads, queues, meters
        self._pool = pool
        self._tasks = 0
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Report from now on. Again after a lost broker: nothing changes."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="report-worker", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Say goodbye, so that nobody misses this process."""
        self._ended.set()
        if self._thread is not None:
            self._thread.join(10)
        self._write(LEAVE, {"id": str(self.id)})

    def report(self) -> bool:
        """Renew the row once; whether it could be written."""
        figures = self._meters.read()
        tasks = sum(celery_state.total_count.values())
        active = len(celery_state.active_requests)
        was_active, self._tasks = bool(active) or tasks > self._tasks, tasks
        return self._write(
            REPORT,
            {
                "id": str(self.id), "name": self._name, "host": socket.gethostname(), "pid": os.getpid(),
                "queues": self._queues(), "threads": self._threads, "was_active": was_active, "active_tasks": active,
                "tasks": tasks, "sent": figures["sends"].get("sent", 0), "failed": figures["sends"].get("failed", 0),
                "sent_per_minute": figures["sent_per_minute"], "memory_mb": resident_mb(), "figures": figures,
            },
        )  # fmt: skip

    def _write(self, statement: Statement, report: dict[str, Any]) -> bool:
        try:
            (self._pool or shared_pool()).execute(statement, {"report": json.dumps(report)})
        except psycopg2.Error as problem:
            log.warning("worker.not_reported", error=type(problem).__name__)  # the next report says it all
            return False
        return True

    def _run(self) -> None:
        while True:
            try:
                self.report()
            except Exception:
                log.exception("worker.report_failed")
            if self._ended.wait(EVERY_SECONDS):
                return


class ReportWorker(bootsteps.StartStopStep):
    """Consumer bootstep: ``app.steps["consumer"].add(ReportWorker)``. One reporter per process, however often the
    consumer starts anew."""

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def start(self, c: Any) -> None:
        global _reporter  # noqa: PLW0603 - one per process is the point
        if _reporter is None:
            _reporter = Reporter(
                name=c.hostname,
                threads=getattr(c.pool, "limit", 0) or 0,
                queues=lambda: sorted(c.app.amqp.queues.consume_from),
            )
            worker_shutdown.connect(_goodbye, weak=False)
        _reporter.start()


_reporter: Reporter | None = None


def _goodbye(**_: object) -> None:
    if _reporter is not None:
        _reporter.stop()


# -- who is there ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Crew:
    """Worker processes (:class:`messaging.models.WorkerProcess`): heard of lately, and fallen silent without a word."""

    live: tuple[Any, ...]
    silent: tuple[Any, ...]

    def serve(self, prefix: str) -> bool:
        """Whether any live one takes from a queue whose name begins so."""
        return any(queue.startswith(prefix) for worker in self.live for queue in worker.queues)


def crew(*, now: datetime) -> Crew:
    """One query over as many rows as there were workers in a day. One that came back under its name is not missed."""
    from messaging.models import WorkerProcess  # noqa: PLC0415 - this module is imported before Django is ready

    rows = list(WorkerProcess.objects.filter(left_at=None, seen_at__gt=now - MISSED_FOR).order_by("name", "-seen_at"))
    live = tuple(row for row in rows if row.seen_at > now - SILENT_AFTER)
    names = {row.name for row in live}
    silent = {row.name: row for row in reversed(rows) if row.name not in names}
    return Crew(live, tuple(silent.values()))


def note_pulse(*, now: datetime) -> None:
    """A tick: note that ticks are carried out, and forget processes that were gone a day ago."""
    from messaging.models import Pulse, WorkerProcess  # noqa: PLC0415 - as above

    Pulse.objects.update_or_create(name="ticks", defaults={"at": now})
    WorkerProcess.objects.filter(seen_at__lt=now - FORGOTTEN_AFTER).delete()
