"""Somebody who listens to outgoing webhooks: a real HTTP server on a loopback port."""

from __future__ import annotations

import hmac
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Listener:
    """``calls`` holds headers and body of each call; ``answers`` the statuses to give, the last one for ever.

    ``refuses`` names subjects of events that it answers with 422, ``retry_after`` the header of that name.
    """

    port: int = 0
    answers: list[int] = field(default_factory=lambda: [200])
    refuses: set[int] = field(default_factory=set)
    calls: list[tuple[dict[str, str], bytes]] = field(default_factory=list)
    before: Any = None
    retry_after: str | None = None

    @property
    def place(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def events(self) -> list[dict[str, Any]]:
        """Everything it was told, whatever it answered."""
        return [event for _, body in self.calls for event in json.loads(body)["events"]]

    def take(self, headers: dict[str, str], body: bytes) -> int:
        self.calls.append((headers, body))
        if self.before is not None:
            self.before()
        if self.refuses & {event["data"].get("message") for event in json.loads(body)["events"]}:
            return 422
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


def fits(headers: dict[str, str], body: bytes, secret: str) -> bool:
    """What a receiver does with a call: any of the signatures must be the secret's."""
    signed = headers["X-Flotilla-Timestamp"].encode() + b"." + body
    ours = "sha256=" + hmac.new(secret.encode(), signed, "sha256").hexdigest()
    return any(hmac.compare_digest(ours, given) for given in headers["X-Flotilla-Signature"].split(","))


@contextmanager
def listening() -> Iterator[Listener]:
    """A listener that answers 200."""
    listener = Listener()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(listener.take(dict(self.headers.items()), body))
            self.send_header("Location", "http://169.254.169.254/")
            if listener.retry_after is not None:
                self.send_header("Retry-After", listener.retry_after)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    listener.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield listener
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)
