"""Following one request through the logs: from the call that asked for a message to the gateway call that carried it.

The id is bound to structlog's context, so that each line written on its behalf names it. A batch keeps the id of the
request that opened it, because the sends that follow are asked for by ticks.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from uuid import uuid4

from structlog.contextvars import bound_contextvars, get_contextvars

NAME = "request_id"
_SANE = re.compile(r"[A-Za-z0-9._-]{1,64}")


def request_id() -> str:
    """The request that this thread works for; empty where there is none."""
    return str(get_contextvars().get(NAME, ""))


def accepted(offered: str | None) -> str:
    """An id that a caller brought along if it can stand in a log line, else a new one."""
    return offered if offered and _SANE.fullmatch(offered) else uuid4().hex


@contextmanager
def on_behalf_of(request: str) -> Iterator[None]:
    """Until the end of the block every log line of this thread names ``request``; an empty one changes nothing."""
    if not request:
        yield
        return
    with bound_contextvars(**{NAME: request}):
        yield
