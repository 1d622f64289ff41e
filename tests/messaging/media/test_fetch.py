"""Files from addresses: over real sockets here, and never from where nobody outside may go."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from devices.outside import is_public
from messaging.media.fetch import fetch
from messaging.media.problems import MediaRefused

MEGABYTE = 1_048_576


@contextmanager
def serving(*answers: bytes, pause: float = 0.0, drip: bool = False) -> Iterator[tuple[int, list[bytes]]]:
    """A server that gives each connection the next answer, as it stands; what was asked is kept."""
    asked: list[bytes] = []
    listener = socket.create_server(("127.0.0.1", 0))
    stop = threading.Event()

    def run() -> None:
        for answer in answers:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                asked.append(connection.recv(65_536))
                try:
                    for piece in [answer[at : at + 1] for at in range(len(answer))] if drip else [answer]:
                        connection.sendall(piece)
                        if stop.wait(pause):
                            return
                except OSError:
                    continue

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield listener.getsockname()[1], asked
    finally:
        stop.set()
        listener.close()
        thread.join(5)


def ok(body: bytes, **headers: str) -> bytes:
    lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
    return f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n{lines}\r\n".encode() + body


def to(location: str) -> bytes:
    return f"HTTP/1.1 302 Found\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n".encode()


def got(url: str, *ports: int, **options: Any) -> Any:
    allow = [f"127.0.0.1:{port}" for port in ports]
    return fetch(url, **{"max_bytes": MEGABYTE, "seconds": 5.0, "allow": allow, **options})


def refusal(url: str, *ports: int, **options: Any) -> str:
    with pytest.raises(MediaRefused) as refused:
        got(url, *ports, **options)
    return refused.value.code


def test_a_file_comes_with_its_name() -> None:
    with serving(ok(b"hello")) as (port, asked):
        found = got(f"http://127.0.0.1:{port}/a/b.jpg?size=1", port)
    assert (found.data, found.name) == (b"hello", "b.jpg")
    assert asked[0].startswith(b"GET /a/b.jpg?size=1 HTTP/1.1\r\n")
    assert f"Host: 127.0.0.1:{port}".encode() in asked[0]


@pytest.mark.parametrize(
    ("url", "code"),
    [
        ("ftp://example.com/a", "bad_url"),
        ("file:///etc/passwd", "bad_url"),
        ("gopher://127.0.0.1:6379/_x", "bad_url"),
        ("http://", "bad_url"),
        ("http://user:pw@example.com/", "bad_url"),
        ("http://exa mple.com/", "bad_url"),
        ("http://example.com/\r\nX: y", "bad_url"),
        ("http://example.com:99999/", "bad_url"),
        ("http://[::1", "bad_url"),
        ("http://127.0.0.1:22/", "port_refused"),
        ("http://127.0.0.1/", "private_address"),
        ("http://127.1/", "private_address"),
        ("http://2130706433/", "private_address"),
        ("http://0x7f000001/", "private_address"),
        ("http://[::1]/", "private_address"),
        ("http://[::ffff:127.0.0.1]/", "private_address"),
        ("http://169.254.169.254/latest/meta-data/", "private_address"),
        ("http://10.0.0.1/", "private_address"),
        ("http://0.0.0.0/", "private_address"),
        ("http://localhost/", "private_address"),
    ],
)
def test_what_is_not_fetched(url: str, code: str) -> None:
    assert refusal(url) == code


@pytest.mark.parametrize(
    "address",
    [
        *(
            "127.0.0.1",
            "10.1.2.3",
            "172.16.0.1",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
            "0.0.0.0",  # noqa: S104 - an address, not a binding
            "224.0.0.1",
        ),
        *("255.255.255.255", "192.0.2.1", "198.18.0.1", "240.0.0.1", "::1", "::", "fe80::1%eth0", "fc00::1", "ff02::1"),
        *(
            "::ffff:10.0.0.1",
            "2002:7f00:1::",
            "64:ff9b::7f00:1",
            "64:ff9b::a00:1",
            "2001:0:1:2::5601:0101",
            "::127.0.0.1",
        ),
        *("2001:db8::1", "not an address"),
    ],
)
def test_private_addresses_in_every_dress(address: str) -> None:
    assert not is_public(address)


def test_public_addresses() -> None:
    assert all(map(is_public, ("1.1.1.1", "93.184.216.34", "2606:4700:4700::1111", "64:ff9b::101:101")))


def test_one_private_address_among_public_ones_is_one_too_many() -> None:
    assert (
        refusal("http://rebind.example/", resolve=lambda host, port: ["93.184.216.34", "127.0.0.1"])
        == "private_address"
    )


def test_a_name_is_asked_for_once_and_the_connection_goes_where_it_was_checked() -> None:
    """A name server that answers otherwise the second time changes nothing: there is no second time."""
    answers: list[str] = []

    def resolve(host: str, port: int) -> list[str]:
        answers.append(host)
        return ["127.0.0.1"] if len(answers) == 1 else ["10.0.0.1"]

    with serving(ok(b"pinned")) as (port, asked):
        url = f"http://files.example:{port}/x"
        found = fetch(url, max_bytes=100, seconds=5, allow=[f"files.example:{port}"], resolve=resolve)
    assert found.data == b"pinned"
    assert answers == ["files.example"]
    assert f"Host: files.example:{port}".encode() in asked[0]


def test_every_hop_is_checked_again() -> None:
    with serving(to("http://169.254.169.254/latest/")) as (port, _):
        assert refusal(f"http://127.0.0.1:{port}/", port) == "private_address"
    with serving(to("file:///etc/passwd")) as (port, _):
        assert refusal(f"http://127.0.0.1:{port}/", port) == "bad_url"
    with serving(ok(b"inner")) as (inner, asked), serving(to(f"http://127.0.0.1:{inner}/")) as (port, _):
        assert refusal(f"http://127.0.0.1:{port}/", port) == "port_refused"
        assert asked == []
    with serving(to("/there"), ok(b"moved")) as (port, asked):
        assert got(f"http://127.0.0.1:{port}/here", port).data == b"moved"
        assert asked[1].startswith(b"GET /there ")
    with serving(*[to("/again")] * 8) as (port, asked):
        assert refusal(f"http://127.0.0.1:{port}/", port) == "too_many_redirects"
        assert len(asked) == 6


def test_size_is_counted_whatever_was_promised() -> None:
    with serving(ok(b"x" * 5000)) as (port, _):
        assert refusal(f"http://127.0.0.1:{port}/", port, max_bytes=1000) == "too_large"
    endless = b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 300_000
    with serving(endless) as (port, _):
        assert refusal(f"http://127.0.0.1:{port}/", port, max_bytes=100_000) == "too_large"
    with serving(b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nshort") as (port, _):
        assert refusal(f"http://127.0.0.1:{port}/", port) == "unreachable"


def test_time_is_counted_over_the_whole_however_it_drips() -> None:
    with serving(ok(b"x" * 2000), drip=True, pause=0.02) as (port, _):
        assert refusal(f"http://127.0.0.1:{port}/", port, seconds=0.5) == "too_slow"
    with serving(b"HTTP/1.1 200 OK\r\nX: " + b"y" * 3000, drip=True, pause=0.02) as (port, _):
        assert refusal(f"http://127.0.0.1:{port}/", port, seconds=0.5) == "too_slow"


def test_what_is_not_a_file_says_so() -> None:
    with serving(b"HTTP/1.1 404 Not Found\r\nContent-Length: 6\r\n\r\nsecret") as (port, _):
        with pytest.raises(MediaRefused, match="HTTP 404") as refused:
            got(f"http://127.0.0.1:{port}/", port)
        assert "secret" not in refused.value.text
    with serving(b"garbage\r\n\r\n") as (port, _):
        assert refusal(f"http://127.0.0.1:{port}/", port) == "unreachable"
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    assert refusal(f"http://127.0.0.1:{port}/", port) == "unreachable"
    assert refusal("http://nowhere.invalid/", resolve=lambda host, port: []) == "unknown_host"
