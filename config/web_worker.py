"""gunicorn's threads worker, whose own refusals are problem documents (RFC 9457) like every other.

What gunicorn cannot read as a request (a request line or header field that is too long, a header that is none) never
gets to the application; by itself it answers with a page of HTML that repeats parts of the request.
"""

from __future__ import annotations

import contextlib
import socket
import time
from typing import Any, Final

import structlog
from gunicorn import util  # type: ignore[import-untyped]
from gunicorn.workers.gthread import ThreadWorker  # type: ignore[import-untyped]

log = structlog.get_logger(__name__)

LINGER_SECONDS: Final = 2.0
LINGER_BYTES: Final = 1_048_576


class Worker(ThreadWorker):
    """Answers in the form of the API whatever address was meant: nobody can tell."""

    def handle_error(self, req: Any, client: Any, addr: Any, exc: Exception) -> None:
        """Nothing of the request is repeated, in the answer or in the log: a header may be a credential."""
        from config.unreadable import problem_for  # noqa: PLC0415 - the arbiter, which loads this module, has no Django

        problem = problem_for(exc)
        if problem is None:
            super().handle_error(req, client, addr, exc)
            return
        log.warning("request.unreadable", code=problem.code, reason=type(exc).__name__)
        body = problem.response().content
        head = (
            f"HTTP/1.1 {problem.http_status()} {problem.body()['title']}\r\nConnection: close\r\n"
            f"Content-Type: application/problem+json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        with contextlib.suppress(OSError):  # whoever sent it has gone
            util.write_nonblock(client, head.encode("ascii") + body)
            _linger(client)


def _linger(client: socket.socket) -> None:
    """Read on for a moment: closing on unread bytes resets the connection, and the answer is lost on its way."""
    client.shutdown(socket.SHUT_WR)
    ends, left = time.monotonic() + LINGER_SECONDS, LINGER_BYTES
    while left > 0 and (seconds := ends - time.monotonic()) > 0:
        client.settimeout(seconds)
        read = len(client.recv(65_536))
        if not read:
            return
        left -= read
