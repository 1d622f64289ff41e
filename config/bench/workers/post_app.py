"""The end-to-end baseline: a stock Celery app whose only task posts one message to the simulator."""

from __future__ import annotations

import os
import threading
from typing import Any

import requests
from celery import Celery

from .counting import hit

app = Celery("posts", broker=os.environ["BENCH_BROKER"], set_as_current=False)
app.conf.update(
    broker_transport_options={"priority_steps": [0], "visibility_timeout": 3600},
    task_ignore_result=True,
    broker_connection_retry_on_startup=True,
)
_of_thread = threading.local()


def session() -> requests.Session:
    """This thread's session, which keeps its connection alive."""
    found: requests.Session | None = getattr(_of_thread, "session", None)
    if found is None:
        found = _of_thread.session = requests.Session()
        found.trust_env = False  # no look at proxy settings per request: the baseline at its best
        found.headers.update({"Accept-Encoding": "identity", "User-Agent": "flotilla"})
    return found


@app.task(name="post", shared=False)
def post(url: str, body: dict[str, Any]) -> None:
    """One request. Raises for anything but 200."""
    session().post(url, json=body, timeout=(5, 30)).raise_for_status()
    hit()
