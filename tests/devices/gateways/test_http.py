"""HTTP for drivers, against servers that misbehave byte by byte.

Each test that expects "may have been sent" lets the server see the whole request; those that expect "certainly not
sent" let it see none.
"""

from __future__ import annotations

import datetime as dt
import ipaddress
import os
import socket
import ssl
import threading
import warnings
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from devices.gateways import http, registry
from devices.gateways.base import Deadlines, SessionLost, Temporary, Throttled, Unknown
from devices.gateways.http import Answer, Failure
from tests.devices.gateways.conformance import HASTY, PATIENT, SHORT
from tests.devices.gateways.raw_server import STOP_SECONDS, Connection, raw_server

OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"


def post(url: str, deadlines: Deadlines = PATIENT, *, json: object = None) -> Answer | Failure:
    return http.call(method="POST", url=f"{url}/x", deadlines=deadlines, json={} if json is None else json)


def serve_ok(connection: Connection) -> None:
    while connection.request():
        connection.send(OK)


# -- certainly not sent ------------------------------------------------------------------------------------------------


def temporary(outcome: Answer | Failure) -> str:
    assert isinstance(outcome, Temporary), outcome
    return outcome.code


def test_a_name_that_does_not_exist() -> None:
    assert temporary(post("http://nowhere.invalid")) == "dns"


def test_a_name_server_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    over = threading.Event()

    def silent(*_: object, **__: object) -> list[object]:
        over.wait(STOP_SECONDS)
        return []

    monkeypatch.setattr(socket, "getaddrinfo", silent)
    outcome = post("http://slow.example", Deadlines(connect_seconds=0.2, read_seconds=20, total_seconds=30))
    over.set()
    assert temporary(outcome) == "dns"


def test_a_host_that_drops_our_packets() -> None:
    with ExitStack() as stack:
        full = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(4):  # fill the queue: further SYNs are dropped
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(full.getsockname())
        url = f"http://127.0.0.1:{full.getsockname()[1]}"
        assert temporary(post(url, Deadlines(connect_seconds=0.3, read_seconds=20, total_seconds=30))) == "connect"
        assert temporary(post(url, Deadlines(connect_seconds=20, read_seconds=20, total_seconds=0.3))) == "connect"


def test_tls_with_somebody_who_cannot_be_trusted(authority: tuple[Path, ssl.SSLContext]) -> None:
    with raw_server(serve_ok, tls=authority[1]) as server:
        assert temporary(post(server.url)) == "tls"
    assert server.requests == []


def test_tls_with_somebody_who_does_not_speak_it() -> None:
    with raw_server(lambda connection: connection.send(b"SSH-2.0-OpenSSH_9\r\n" * 10)) as server:
        assert temporary(post(server.url.replace("http:", "https:"))) == "tls"


def test_tls_handshake_that_never_ends() -> None:
    with raw_server(Connection.wait_for_close) as server:
        deadlines = Deadlines(connect_seconds=0.3, read_seconds=20, total_seconds=30)
        assert temporary(post(server.url.replace("http:", "https:"), deadlines)) == "tls"
        assert server.closed_by_client.wait(STOP_SECONDS)


def test_no_time_left_at_all() -> None:
    with raw_server(serve_ok) as server:
        assert isinstance(post(server.url, Deadlines(total_seconds=0)), Temporary)
    assert server.requests == []


@pytest.mark.parametrize(
    "url", ["nonsense", "ftp://example.com", "http://", "http://[bad", "http://a b", "http://\x00"]
)
def test_an_address_that_is_none(url: str) -> None:
    outcome = post(url)
    assert isinstance(outcome, SessionLost | Temporary)
    assert "Not sent" in outcome.text or outcome.code == "bad_address"


def test_a_header_that_is_none() -> None:
    outcome = http.call(method="GET", url="http://127.0.0.1:1", deadlines=PATIENT, headers={"Token": "a\r\nb"})
    assert isinstance(outcome, SessionLost)


# -- may have been sent ------------------------------------------------------------------------------------------------

LONG = b"HTTP/1.1 200 OK\r\nX-Long: " + b"y" * 5_000
MANY_HEADERS = b"HTTP/1.1 200 OK\r\n" + b"".join(b"X-%d: y\r\n" % n for n in range(500)) + b"\r\n"


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (b"", "connection_lost"),
        (b"HTTP/1.1 2", "connection_lost"),
        (b"SSH-2.0-OpenSSH\r\n", "connection_lost"),
        (LONG, "connection_lost"),
        (b"HTTP/1.1 422 X\r\nX-Cut: y", "connection_lost"),
        (MANY_HEADERS, "connection_lost"),
        (OK[:-1], "connection_lost"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n10\r\nhalf", "connection_lost"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", "connection_lost"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 3000000\r\n\r\n" + b"x" * 2_000_000, "answer_too_large"),
    ],
    ids=[
        "nothing",
        "cut status",
        "no HTTP",
        "cut header",
        "cut refusal",
        "headers",
        "cut body",
        "cut chunk",
        "bad chunk",
        "too large",
    ],
)
def test_answers_that_are_not_whole(answer: bytes, code: str) -> None:
    def script(connection: Connection) -> None:
        assert connection.request()
        connection.send(answer)

    with raw_server(script) as server:
        outcome = post(server.url)
        assert len(server.requests) == 1
    assert isinstance(outcome, Unknown)
    assert outcome.code == code


@pytest.mark.parametrize("deadlines", [HASTY, SHORT], ids=["read", "total"])
def test_silence_is_given_up_and_the_connection_closed(deadlines: Deadlines) -> None:
    def script(connection: Connection) -> None:
        assert connection.request()
        connection.wait_for_close()

    with raw_server(script) as server:
        outcome = post(server.url, deadlines)
        assert server.closed_by_client.wait(STOP_SECONDS)
        assert len(server.requests) == 1
    assert isinstance(outcome, Unknown)
    assert outcome.code == "timeout"


@pytest.mark.parametrize(
    "answer",
    [
        LONG,
        b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n" + b"x" * 5_000,
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * 5_000,
        b"HTTP/1.1 100 Continue\r\n\r\n" * 5_000,
    ],
    ids=["headers", "body", "chunks", "interim answers"],
)
def test_drips_that_never_break_the_read_timeout_end_with_the_total(answer: bytes) -> None:
    def script(connection: Connection) -> None:
        assert connection.request()
        connection.drip(answer, pause_seconds=0.02)  # all of it would take more than a minute

    with raw_server(script) as server:
        outcome = post(server.url, SHORT)
        assert len(server.requests) == 1
    assert isinstance(outcome, Unknown)
    assert outcome.code == "timeout"


def test_a_large_request_that_nobody_reads() -> None:
    with raw_server(lambda connection: connection._server.stopping.wait(STOP_SECONDS) and None) as server:
        outcome = post(server.url, SHORT, json={"media": "x" * 30_000_000})
    assert isinstance(outcome, Unknown)
    assert outcome.code == "timeout"


def test_a_kept_connection_that_breaks_when_used_again_is_not_retried() -> None:
    def script(connection: Connection) -> None:
        connection.request()
        connection.send(OK)
        connection.request()
        connection.reset()

    with raw_server(script) as server:
        assert isinstance(post(server.url), Answer)
        outcome = post(server.url)
        assert (server.connections, len(server.requests)) == (1, 2)
    assert isinstance(outcome, Unknown)
    assert outcome.code == "connection_lost"


# -- connections -------------------------------------------------------------------------------------------------------


def test_connections_are_kept() -> None:
    with raw_server(serve_ok) as server:
        assert all(isinstance(post(server.url), Answer) for _ in range(10))
        assert (server.connections, len(server.requests)) == (1, 10)


def test_a_kept_connection_that_was_closed_meanwhile_is_replaced() -> None:
    closed = threading.Event()

    def script(connection: Connection) -> None:
        connection.request()
        connection.send(OK)
        connection.sock.close()
        closed.set()

    with raw_server(script) as server:
        for _ in range(3):
            assert isinstance(post(server.url), Answer)
            assert closed.wait(STOP_SECONDS)
            closed.clear()
        assert server.connections == 3


def test_a_forked_child_does_not_share_connections() -> None:
    with raw_server(serve_ok) as server:
        assert isinstance(post(server.url), Answer)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # newer Pythons warn of forking beside threads
            child = os.fork()
        if child == 0:
            os._exit(0 if isinstance(post(server.url), Answer) else 1)
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == 0
        assert isinstance(post(server.url), Answer)
        assert (server.connections, len(server.requests)) == (2, 3)


def test_nothing_is_remembered_and_the_environment_is_ignored(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login somebody password else\n")
    (tmp_path / "netrc").chmod(0o600)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)

    def script(connection: Connection) -> None:
        while connection.request():
            connection.answer(200, b"{}", "Set-Cookie: session=other-device; Path=/")

    with raw_server(script) as server:
        assert all(isinstance(post(server.url), Answer) for _ in range(2))
        for request in server.requests:
            assert not {"cookie", "authorization", "proxy-authorization"} & set(request.headers)


def test_forms() -> None:
    with raw_server(serve_ok) as server:
        form = {"phone": "62811", "message": "a&b=ä"}
        answer = http.call(method="POST", url=server.url, deadlines=PATIENT, form=form)
        assert isinstance(answer, Answer)
        assert server.requests[0].body == b"phone=62811&message=a%26b%3D%C3%A4"
        assert server.requests[0].headers["content-type"] == "application/x-www-form-urlencoded"


# -- TLS ---------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ssl.SSLContext]:
    """A certificate for 127.0.0.1 that only those trust who are told to: its file, and a server context with it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "flotilla tests")])
    now = dt.datetime.now(dt.UTC)
    names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(names, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    folder = tmp_path_factory.mktemp("tls")
    pem = certificate.public_bytes(serialization.Encoding.PEM)
    (folder / "certificate.pem").write_bytes(pem)
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (folder / "both.pem").write_bytes(private + pem)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "both.pem")
    return folder / "certificate.pem", context


@pytest.fixture
def trusted(authority: tuple[Path, ssl.SSLContext], monkeypatch: pytest.MonkeyPatch) -> Iterator[ssl.SSLContext]:
    monkeypatch.setattr(http, "DEFAULT_CA_BUNDLE_PATH", str(authority[0]))
    monkeypatch.setattr(http, "_pools", http._new_pools())
    return authority[1]


def test_tls_connections_are_kept_and_carry_large_requests(trusted: ssl.SSLContext) -> None:
    with raw_server(serve_ok, tls=trusted) as server:
        for size in (10, 5_000_000, 10):
            assert isinstance(post(server.url, json={"media": "x" * size}), Answer)
        assert server.connections == 1
        assert len(server.requests[1].json()["media"]) == 5_000_000


def test_tls_keeps_the_total_deadline(trusted: ssl.SSLContext) -> None:
    def script(connection: Connection) -> None:
        assert connection.request()
        connection.drip(LONG, pause_seconds=0.02)

    with raw_server(script, tls=trusted) as server:
        outcome = post(server.url, SHORT)
        assert len(server.requests) == 1
    assert isinstance(outcome, Unknown)
    assert outcome.code == "timeout"


# -- words and numbers -------------------------------------------------------------------------------------------------

NOW = dt.datetime(2026, 3, 1, 12, 0, 0, tzinfo=dt.UTC)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("7", 7),
        (" 2.5 ", 2.5),
        ("0", 1),
        ("-5", 1),
        ("1e99", 86_400),
        ("inf", 86_400),
        ("nan", 60),
        ("", 60),
        ("soon", 60),
        ("Sun, 01 Mar 2026 12:01:30 GMT", 90),
        ("Sun, 01 Mar 2026 11:00:00 GMT", 1),
        ("Sun, 01 Mar 2026 12:01:30", 90),
    ],
)
def test_retry_after(value: str, seconds: float) -> None:
    answer = Answer(status=429, headers={"retry-after": value}, body=b"")
    assert http.retry_after_seconds(answer, now=NOW) == seconds
    assert isinstance(http.unlisted(answer), Throttled)


@given(st.text())
def test_any_retry_after_gives_a_rest_within_bounds(value: str) -> None:
    seconds = http.retry_after_seconds(Answer(status=429, headers={"retry-after": value}, body=b""), now=NOW)
    assert 1 <= seconds <= 86_400


@given(st.text(), st.text(min_size=http.MIN_SECRET).filter(lambda secret: "*" not in secret and secret.strip()))
def test_cleaned_words_hold_no_secret(words: str, secret: str) -> None:
    cleaned = http.clean(f"{words} {secret} {words}", credentials={"token": secret, "empty": ""})
    assert len(cleaned) <= http.MAX_TEXT
    assert "\n" not in cleaned
    assert secret not in cleaned


def test_unlisted_statuses_claim_no_more_than_they_prove() -> None:
    for status in range(200, 600):
        outcome = http.unlisted(Answer(status=status, headers={}, body=b""))
        if status == 429:
            assert isinstance(outcome, Throttled)
        elif status in {401, 403, 404, 405, 410}:
            assert isinstance(outcome, SessionLost)
        else:
            assert isinstance(outcome, Unknown)


def test_registry() -> None:
    assert ("simulator", "Simulator") in registry.choices()
    assert {kind for kind, _ in registry.choices()} == registry.kinds()
    assert all(registry.driver_for(kind).kind == kind for kind in registry.kinds())
    with pytest.raises(registry.UnknownGateway, match="no gateway 'telepathy'"):
        registry.driver_for("telepathy")
