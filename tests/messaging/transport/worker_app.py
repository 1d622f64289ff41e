"""The Celery app that the worker processes of these tests run. Configured by environment, reports to a file.

A file and not the broker: some tests take the broker away.
"""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

from celery import Celery

from messaging.transport.hub import WakeHub

app = Celery("transport_tests", broker=os.environ["TRANSPORT_TEST_BROKER"], set_as_current=False)
app.conf.update(
    broker_transport=os.environ.get("TRANSPORT_TEST_TRANSPORT", "messaging.transport:Transport"),
    broker_transport_options={
        "priority_steps": [0],
        "visibility_timeout": 2,
        "unacked_restore_interval": float(os.environ.get("TRANSPORT_TEST_SWEEP_SECONDS", "0.5")),
        "unacked_restore_throttle": 1,
        "socket_timeout": 5,
        "socket_connect_timeout": 5,
        "health_check_interval": 3,
    },
    broker_connection_retry_on_startup=True,
    broker_connection_max_retries=None,
    worker_disable_prefetch=True,
    worker_cancel_long_running_tasks_on_connection_loss=False,
    task_ignore_result=True,
)
if "TRANSPORT_TEST_WITHOUT_WAKE_HUB" not in os.environ:
    app.steps["consumer"].add(WakeHub)

_lock = threading.Lock()
_running = 0


def _report(line: str) -> None:
    with Path(os.environ["TRANSPORT_TEST_REPORT"]).open("a") as report:
        report.write(line + "\n")


def _work(number: int, seconds: float) -> None:
    global _running  # noqa: PLW0603 - one count for the process is what is measured
    with _lock:
        _running += 1
    time.sleep(seconds / 2)
    running = _running  # in the middle of the task, when the others of its wave have started too
    time.sleep(seconds / 2)
    with _lock:
        _running -= 1
    _report(f"{number} {running} {os.getpid()}")


@app.task(name="early", shared=False)
def early(number: int, seconds: float = 0.0) -> None:
    """Acknowledged when it starts."""
    _work(number, seconds)


@app.task(name="late", shared=False, acks_late=True)
def late(number: int, seconds: float = 0.0) -> None:
    """Acknowledged when it has ended."""
    _work(number, seconds)
