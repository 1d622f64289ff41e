"""A small SMTP server on a loopback port that keeps what it is given."""

from __future__ import annotations

import email
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from email.message import EmailMessage
from email.policy import default


class Sink(socketserver.ThreadingTCPServer):
    """``mails``: what was accepted, in order, each as (recipients, message)."""

    allow_reuse_address = True
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Conversation)
        self.mails: list[tuple[list[str], EmailMessage]] = []

    @property
    def port(self) -> int:
        return self.server_address[1]


class _Conversation(socketserver.StreamRequestHandler):
    server: Sink

    def handle(self) -> None:
        self._say("220 sink")
        recipients: list[str] = []
        while line := self.rfile.readline():
            match line.split(b" ")[0].strip().upper():
                case b"RCPT":
                    recipients.append(line.partition(b"<")[2].partition(b">")[0].decode())
                    self._say("250 ok")
                case b"DATA":
                    self._say("354 go on")
                    body = b""
                    while (line := self.rfile.readline()) != b".\r\n":
                        body += line
                    self.server.mails.append((recipients, email.message_from_bytes(body, policy=default)))
                    self._say("250 kept")
                case b"QUIT":
                    self._say("221 bye")
                    return
                case _:
                    self._say("250 ok")

    def _say(self, line: str) -> None:
        self.wfile.write(f"{line}\r\n".encode())


@contextmanager
def smtp_sink() -> Iterator[Sink]:
    """A running sink."""
    with Sink() as sink:
        thread = threading.Thread(target=sink.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield sink
        finally:
            sink.shutdown()
            thread.join(10)
