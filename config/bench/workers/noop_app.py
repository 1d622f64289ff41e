"""A Celery app with a task that does nothing, over stock kombu or over the device-queue transport."""

from __future__ import annotations

import os

from celery import Celery

from .counting import hit

OPTIONS = {"priority_steps": [0], "visibility_timeout": 60}
"""For both sides. One priority step is the quicker setting for stock kombu, too."""

app = Celery("bench", broker=os.environ["BENCH_BROKER"], set_as_current=False)
app.conf.update(broker_transport_options=OPTIONS, task_ignore_result=True, broker_connection_retry_on_startup=True)
if os.environ["BENCH_SIDE"] == "ours":
    from messaging.transport.hub import WakeHub

    app.conf.update(broker_transport="messaging.transport:Transport", worker_disable_prefetch=True)
    app.steps["consumer"].add(WakeHub)


@app.task(name="noop", shared=False)
def noop(number: int) -> None:  # noqa: ARG001 - both sides carry the same small payload
    """Nothing, counted."""
    hit()
