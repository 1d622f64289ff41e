"""What only a whole gateway shows: files that arrive, devices that are paired, and webhooks, over real sockets."""

from __future__ import annotations

import copy
import json
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from devices.gateways import registry
from devices.gateways.base import Accepted, Client, Driver, Media, Outgoing, Rejected, SessionLost, Temporary
from devices.gateways.news import BadSignature, DeviceEvent, Hook, HookRefused, Reply
from devices.gateways.news import Receipt as Told
from messaging.simulator.dialects.base import Delivery
from tests.devices.gateways.conformance import Suite, media
from tests.devices.gateways.raw_server import Connection, RawRequest, RawServer, raw_server
from tests.devices.gateways.test_conformance import SUITES, client_of, dialect_of, each_suite, outgoing
from tests.simulator_process import Simulator, running_simulator, wait_until

SECRET = "the secret of this webhook"
PAIRABLE = [suite for suite in SUITES if registry.driver_for(suite.kind).pairing]
READING = [suite for suite in PAIRABLE if registry.driver_for(suite.kind).carries["image"].media != "url"]
"""Those that take an attachment's bytes, and not a link to it."""
FILES = {
    "image": media("image/jpeg", "a.jpg"),
    "document": media("application/pdf", 'a "b" ä.pdf'),
    "video": media("video/mp4", "a.mp4"),
    "audio": media("audio/ogg", "a.ogg"),
}


# -- files -------------------------------------------------------------------------------------------------------------


@each_suite
def test_each_type_of_content_arrives_or_is_refused_before_anything_is_sent(
    suite: Suite, simulator: Simulator, new_token: Callable[[], str]
) -> None:
    token = suite.token(new_token())
    client, carries = client_of(suite, simulator.url, token), registry.driver_for(suite.kind).carries
    expected = []
    for kind, file in FILES.items():
        caption = "" if kind == "audio" else "a caption"
        message = replace(outgoing(), type=kind, media=file, text=caption)  # type: ignore[arg-type]
        outcome = client.send(message)
        if kind not in carries:
            assert isinstance(outcome, Rejected), kind
            assert outcome.code == "not_supported", kind
            continue
        assert isinstance(outcome, Accepted), (kind, outcome)
        expected.append((kind, 0 if carries[kind].media == "url" else file.size_bytes))
    assert [(entry["type"], entry["media_bytes"]) for entry in simulator.landed(token)] == expected


@pytest.mark.parametrize("suite", READING, ids=lambda suite: suite.kind)
def test_what_a_gateway_cannot_take_is_not_sent(suite: Suite) -> None:
    def gone() -> bytes:
        raise FileNotFoundError

    def away() -> bytes:
        raise PermissionError

    client = client_of(suite, "http://127.0.0.1:1", "t")
    picture = replace(outgoing(), type="image", media=FILES["image"])
    for message, outcome, code in (
        (replace(outgoing(), type="template"), Rejected, "not_supported"),
        (replace(picture, media=None), Rejected, "no_media"),
        (replace(picture, type="audio", media=FILES["audio"]), Rejected, "no_caption"),
        (replace(picture, media=replace(FILES["image"], read=gone)), Rejected, "media_gone"),
        (replace(picture, media=replace(FILES["image"], read=away)), Temporary, "media_unreadable"),
    ):
        given = client.send(message)
        assert isinstance(given, outcome)
        assert given.code == code
    for kind, limits in registry.driver_for(suite.kind).carries.items():
        if limits.max_bytes is not None:
            huge = Media("image/png", "a", limits.max_bytes + 1, url="", read=gone)
            given = client.send(replace(outgoing(), text="", type=kind, media=huge))
            assert isinstance(given, Rejected)
            assert given.code == "media_too_large"


# -- pairing -----------------------------------------------------------------------------------------------------------


def paired(client: Any, *, phone: str | None, simulator: Simulator) -> Any:
    """Pair as a page does: ask, and ask again, until it is linked; the first thing that was shown."""
    first = None
    for _ in range(20):
        pairing = client.pair(phone=phone)
        assert pairing.status != "failed", pairing
        if pairing.status in ("qr", "code"):
            assert first is None or first == pairing, "what is shown stays until it is old"
            first = pairing
        if pairing.status == "connected":
            return first
    raise AssertionError("it was never linked")


@pytest.mark.parametrize("suite", PAIRABLE, ids=lambda suite: suite.kind)
def test_a_device_that_lost_its_phone_is_paired_again(
    suite: Suite, simulator: Simulator, new_token: Callable[[], str]
) -> None:
    token = suite.token(new_token())
    client: Any = client_of(suite, simulator.url, token)
    assert client.pair().status == "connected"
    simulator.control("POST", "unlink", {"devices": [token]})
    assert not isinstance(client.send(outgoing()), Accepted)
    assert isinstance(client.check(), SessionLost)
    shown = paired(client, phone=None, simulator=simulator)
    assert (shown.status, bool(shown.qr) != bool(shown.qr_png)) == ("qr", True)
    assert shown.expires_at > datetime.now(UTC)
    assert shown.qr_png.startswith(b"\x89PNG") or shown.qr == "2@simulated"
    assert isinstance(client.send(outgoing()), Accepted)
    assert client.restart() == Accepted()

    if not suite.logs_out:
        assert isinstance(client.log_out(), Temporary)
        return
    assert client.log_out() == Accepted()
    assert isinstance(client.check(), SessionLost)
    if "code" in registry.driver_for(suite.kind).pairing:
        shown = paired(client, phone="+628110000009", simulator=simulator)
        assert (shown.status, shown.code.replace("-", "")) == ("code", "ABCDEFGH")
    else:
        paired(client, phone=None, simulator=simulator)
    assert client.check() == Accepted()
    assert "2@simulated" not in repr(shown)
    assert "ABCD" not in repr(shown)


@pytest.fixture(scope="module")
def strict() -> Iterator[Simulator]:
    """A simulator that knows no device but those it is told to make."""
    with running_simulator("--token-prefix", "known-") as running:
        yield running


@pytest.mark.parametrize("suite", PAIRABLE, ids=lambda suite: suite.kind)
def test_a_device_that_the_gateway_does_not_know(suite: Suite, strict: Simulator) -> None:
    client: Any = client_of(suite, strict.url, f"new {suite.kind}")
    assert isinstance(client.check(), SessionLost)
    assert isinstance(client.send(outgoing()), SessionLost)
    if suite.creates:
        assert client.pair().status == "waiting"
        paired(client, phone=None, simulator=strict)
        assert isinstance(client.send(outgoing()), Accepted)
    else:
        assert client.pair().status == "failed"
        assert isinstance(client.restart(), SessionLost)


# -- webhooks ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def told(simulator: Simulator) -> Iterator[RawServer]:
    """Where webhooks go: every phone receives, reads and answers, and everything is told twice."""

    def script(connection: Connection) -> None:
        while connection.request():
            connection.answer(200, b"")

    with raw_server(script) as server:
        settings = {
            "url": f"{server.url}/hooks/{{gateway}}",
            "secret": SECRET,
            "receipts": {"delivered": 1, "read": 1},
            "replies": {"probability": 1, "texts": ["Ya, mau"]},
            "repeat": 1,
        }
        simulator.control("POST", "webhook", settings)
        yield server
        simulator.control("DELETE", "webhook")


def hook(request: RawRequest, *, secrets: tuple[str, ...] = (SECRET,), body: bytes | None = None) -> Hook:
    return Hook(
        headers=request.headers,
        body=request.body if body is None else body,
        secrets=secrets,
        now=datetime.now(UTC),
        device_id=41,
    )


@each_suite
def test_receipts_and_replies_are_read(
    suite: Suite, simulator: Simulator, new_token: Callable[[], str], told: RawServer
) -> None:
    token, driver = suite.token(new_token()), registry.driver_for(suite.kind)
    accepted = client_of(suite, simulator.url, token).send(outgoing())
    assert isinstance(accepted, Accepted)
    receipts = suite.tells & {"delivered", "read"} if driver.receipts else set()
    pieces = len(receipts) + driver.replies
    wait_until(lambda: len(told.requests) >= 2 * pieces, what="all webhooks, twice")
    assert {request.path for request in told.requests} == {f"/hooks/{suite.kind}"}
    news = [each for request in told.requests for each in driver.webhook(hook(request))]
    assert len(news) == 2 * pieces
    assert len({each.event_id for each in news}) == pieces, "what is told twice has one name"
    assert {each.status for each in news if isinstance(each, Told)} == receipts
    for each in news:
        assert abs((each.at - datetime.now(UTC)).total_seconds()) < 600
        if isinstance(each, Told):
            assert accepted.external_id in (each.external_id, None)
            assert each.device_id == 41
        if isinstance(each, Reply):
            assert (each.phone, each.text) == ("+628110000001", "Ya, mau")
            assert "Ya, mau" not in repr(each)
    if driver.signs_webhooks:
        for request in told.requests:
            for secrets in ((), ("another",)):
                with pytest.raises(BadSignature):
                    driver.webhook(hook(request, secrets=secrets))
            with pytest.raises(BadSignature):
                driver.webhook(replace(hook(request), headers={}))
            assert driver.webhook(hook(request, secrets=("new", SECRET)))


NEWSY = [suite for suite in SUITES if suite.device_news]


@pytest.mark.parametrize("suite", NEWSY, ids=lambda suite: suite.kind)
def test_devices_that_come_and_go_are_told_of(
    suite: Suite, simulator: Simulator, new_token: Callable[[], str], told: RawServer
) -> None:
    token, driver = suite.token(new_token()), registry.driver_for(suite.kind)

    def heard() -> list[str]:
        return [each.status for request in told.requests for each in driver.webhook(hook(request))]  # type: ignore[union-attr]

    simulator.control("POST", "unlink", {"devices": [token], "dialect": suite.kind})
    wait_until(lambda: heard() == ["logged_out"] * 2, what="the news of the device that went")
    paired(client_of(suite, simulator.url, token), phone=None, simulator=simulator)
    wait_until(lambda: heard() == ["logged_out"] * 2 + ["connected"] * 2, what="the news of the device that came")
    assert all(isinstance(driver.webhook(hook(request))[0], DeviceEvent) for request in told.requests)


ODD: tuple[Any, ...] = (None, 7, -1, 1e99, True, [], {}, "", "\0", "x" * 200, ["\ud800"], "@lid", {"id": {}})


def mutations(value: Any) -> Iterator[Any]:
    """``value`` with every part of it replaced by something odd, one at a time."""
    yield from copy.deepcopy(ODD)
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, part in parts:
        for odd in mutations(part):
            changed = copy.copy(value)
            changed[name] = odd
            yield changed


@each_suite
def test_signed_nonsense_is_refused_or_ignored(suite: Suite) -> None:
    dialect, driver = dialect_of(suite), registry.driver_for(suite.kind)
    at = datetime.now(UTC).timestamp()
    delivery = Delivery(dialect, "token", "41", "+628110000001", "7-1-aaaaaaaaaaaa", "3EB0")
    events = [
        dialect.receipt(delivery, status="delivered", event_id="evt-1", at=at),
        dialect.inbound(device="token", sender="41", phone="+628110000001", text="Ya", event_id="evt-2", at=at),
        dialect.device_news(device="token", state="unlinked", event_id="evt-3", at=at),
    ]
    read = 0
    for event in filter(None, events):
        packed = event.get("jsonData")
        whole = json.loads(packed) if isinstance(packed, str) else event
        for odd in mutations(whole):
            sent = {**event, "jsonData": json.dumps(odd)} if isinstance(packed, str) else odd
            if isinstance(sent, dict):
                read += answered(driver, dialect.posting(sent, secret=SECRET))
        if not isinstance(packed, str):
            for body in (b"", b"[]", b"7", b"[" * 100_000, b"\xff"):
                headers = dialect.signature(secret=SECRET, body=body)
                assert not given(driver, headers, body), body[:20]
    assert read > 0, "the harmless ones are read"


def answered(driver: Driver, posting: Any) -> int:
    return len(given(driver, posting.headers, posting.body))


def given(driver: Driver, headers: Any, body: bytes) -> tuple[Any, ...]:
    """What the driver makes of it: news, or nothing; any other error than a refusal fails the test."""
    lower = {name.lower(): value for name, value in headers.items()}
    try:
        return driver.webhook(Hook(lower, body, (SECRET,), datetime.now(UTC)))
    except HookRefused:
        return ()


def test_a_large_file_is_not_copied_but_to_encode_it() -> None:
    size = 24_000_000
    data = bytes(size)

    def swallow(connection: Connection) -> None:
        head = b""
        while b"\r\n\r\n" not in head:
            head += connection.sock.recv(1024)
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        left = length - len(head.partition(b"\r\n\r\n")[2])
        buffer = bytearray(65_536)
        while left > 0 and (count := connection.sock.recv_into(buffer)):
            left -= count
        connection.answer(500, b"")

    for suite, copies in ((s, 0.0 if s.kind == "gowa" else 4 / 3) for s in PAIRABLE if s.kind in ("gowa", "waha")):
        file = Media("a/b", "a", size, url="", read=lambda: data)
        message = Outgoing(1, 1, "r", "+628110000001", "", "document", file)
        with raw_server(swallow) as server:
            client: Client = client_of(suite, server.url, "t")
            tracemalloc.start()
            client.send(message)
            _, peak = tracemalloc.get_traced_memory()
            tracemalloc.stop()
        assert peak < copies * size + 2_000_000, suite.kind
