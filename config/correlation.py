"""Each request and each task says in every log line whom it works for (see :mod:`messaging.tracing`).

A caller may bring an id along as ``X-Request-ID``; the answer always names the one that was used. Celery carries it in
a header of the task's message.
"""

from __future__ import annotations

from collections.abc import Callable, MutableMapping
from typing import Any

from celery.signals import before_task_publish, task_postrun, task_prerun
from django.http import HttpRequest, HttpResponse
from structlog.contextvars import bind_contextvars, unbind_contextvars

from messaging.tracing import NAME, accepted, on_behalf_of, request_id

HEADER = "X-Request-ID"


class CorrelationMiddleware:
    """Names the request in the logs and in its answer."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        """One request."""
        name = accepted(request.headers.get(HEADER))
        with on_behalf_of(name):
            response = self._get_response(request)
        response[HEADER] = name
        return response


@before_task_publish.connect
def _name_the_request(headers: MutableMapping[str, Any] | None = None, **_: object) -> None:
    name = request_id()
    if name and headers is not None:
        headers[NAME] = name


@task_prerun.connect
def _work_for_it(task: Any = None, **_: object) -> None:
    name = getattr(task.request, NAME, None)
    if name:
        bind_contextvars(**{NAME: accepted(str(name))})


@task_postrun.connect
def _be_done_with_it(**_: object) -> None:
    unbind_contextvars(NAME)
