"""What cannot be read as a request, sent byte by byte to the web application as it is started."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from config.stack.children import Children
from config.stack.ports import any_free_port
from config.stack.processes import Ladder
from config.stack.programs import FIELD_BYTES, FIELDS, REQUEST_LIMITS, REQUEST_LINE_BYTES

ROOT = Path(__file__).resolve().parents[2]
HOST = b"Host: 127.0.0.1\r\n"


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """Of a web application; nothing that is asked here gets as far as the database."""
    found, log = Children(), tmp_path_factory.mktemp("web") / "web.log"
    port = any_free_port()
    argv = [sys.executable, "-m", "gunicorn", "config.wsgi", "--bind", f"127.0.0.1:{port}", *REQUEST_LIMITS]
    argv += ["--workers", "1", "--threads", "4", "--timeout", "120", "--no-control-socket"]
    try:
        ladder = Ladder(((signal.SIGTERM, 30.0),))
        web = found.start(name="web", argv=argv, ladder=ladder, env={**os.environ}, cwd=ROOT, log=log)
        ends = time.monotonic() + 120
        while True:
            try:
                answer = ask(port, b"GET /healthz HTTP/1.1\r\n" + HOST + b"Connection: close\r\n\r\n")
            except OSError:
                assert web.exit_code() is None, web.logged()
                assert time.monotonic() < ends, "the web application did not start"
                time.sleep(0.1)
            else:
                assert answer[0] == 200, web.logged()
                break
        yield port
    finally:
        found.close()


def ask(port: int, sent: bytes) -> tuple[int, dict[str, str], bytes]:
    """Status, header fields (names in lower case) and body of the answer."""
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        connection.sendall(sent)
        came = b""
        while piece := connection.recv(65_536):
            came += piece
    head, _, body = came.partition(b"\r\n\r\n")
    status, *fields = head.decode().split("\r\n")
    return int(status.split()[1]), {name.lower(): value for name, _, value in (f.partition(": ") for f in fields)}, body


def line_of(length: int) -> bytes:
    """A request line of so many bytes."""
    around = len(b"GET /healthz? HTTP/1.1")
    return b"GET /healthz?" + b"x" * (length - around) + b" HTTP/1.1\r\n"


UNREADABLE = {
    "a line that is too long": (line_of(REQUEST_LINE_BYTES + 10) + HOST + b"\r\n", 414, "uri_too_long"),
    "one of half a megabyte": (line_of(500_000) + HOST + b"\r\n", 414, "uri_too_long"),
    "a field that is too long": (
        b"GET /healthz HTTP/1.1\r\n" + HOST + b"X-A: " + b"x" * FIELD_BYTES + b"\r\n\r\n", 431, "headers_too_large",
    ),
    "too many fields": (
        b"GET /healthz HTTP/1.1\r\n" + HOST + b"X-A: x\r\n" * (FIELDS + 1) + b"\r\n", 431, "headers_too_large",
    ),
    "a field that is none": (b"GET /healthz HTTP/1.1\r\n" + HOST + b"secret <b>\r\n\r\n", 400, "bad_request"),
    "no request": (b"secret <b>\r\n\r\n", 400, "bad_request"),
    "two lengths": (
        b"POST /healthz HTTP/1.1\r\n" + HOST + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n", 400, "bad_request",
    ),
    "a coding that nobody knows": (
        b"POST /healthz HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: secret\r\n\r\n", 400, "bad_request",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", UNREADABLE)
def test_what_cannot_be_read_is_answered_with_a_problem(what, port):
    sent, status, code = UNREADABLE[what]
    came, fields, body = ask(port, sent)
    assert (came, fields["content-type"], fields["connection"]) == (status, "application/problem+json", "close")
    told = json.loads(body)
    assert set(told) == {"type", "title", "status", "code", "detail", "errors"}
    assert (told["status"], told["code"]) == (status, code)
    assert b"secret" not in body, "nothing of the request is repeated"


def test_what_is_just_short_enough_is_answered(port):
    assert ask(port, line_of(REQUEST_LINE_BYTES) + HOST + b"Connection: close\r\n\r\n")[0] == 200
    fields = b"X-A: x\r\n" * (FIELDS - 2) + b"Connection: close\r\n\r\n"
    assert ask(port, b"GET /healthz HTTP/1.1\r\n" + HOST + fields)[0] == 200
