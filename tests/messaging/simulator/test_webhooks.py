"""Receipts and replies, posted to a real receiver."""

from __future__ import annotations

import hashlib
import hmac
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from tests.messaging.simulator.conftest import WireClient
from tests.simulator_process import Simulator, running_simulator, wait_until

SECRET = "webhook secret"


@dataclass
class Receiver:
    """What was posted, and how it answers. ``refuse_first``: how many posts get 503."""

    url: str = ""
    posts: list[tuple[bytes, str]] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    refuse_first: int = 0
    status: int = 204

    def events(self) -> list[dict[str, Any]]:
        return [json.loads(body) for body, _ in list(self.posts)]


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    state = Receiver()
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            with lock:
                refused = len(state.posts) < state.refuse_first
                state.posts.append((body, self.headers["X-Simulator-Signature"]))
                state.paths.append(self.path)
            self.send_response(503 if refused else state.status)
            self.send_header("Content-Length", "0")
            self.send_header("Location", "/elsewhere")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Quiet."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        state.url = f"http://127.0.0.1:{server.server_port}/hook"
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield state
        server.shutdown()
        thread.join()


@pytest.fixture
def judge() -> Iterator[Simulator]:
    with running_simulator() as simulator:
        yield simulator


def configure(judge: Simulator, receiver: Receiver, **settings: Any) -> None:
    judge.control("POST", "webhook", {"url": receiver.url, "secret": SECRET, **settings})


def test_a_webhook_may_be_there_from_the_start(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {"url": receiver.url, "secret": SECRET, "receipts": {"delivered": 1}}
    monkeypatch.setenv("SIMULATOR_WEBHOOK", json.dumps(settings))
    with running_simulator() as simulator, WireClient(simulator) as client:
        assert client.message("a").status_code == 200
        assert settled(simulator)["posted"] == 1
    for nonsense in ("{", json.dumps({"url": "http://elsewhere.example/", "secret": SECRET})):
        monkeypatch.setenv("SIMULATOR_WEBHOOK", nonsense)
        with pytest.raises(AssertionError, match="SIMULATOR_WEBHOOK"), running_simulator():
            pass


def settled(judge: Simulator) -> dict[str, Any]:
    def probe() -> dict[str, Any] | None:
        status = judge.control("GET", "webhook").json()
        return status if status["waiting"] == status["posting"] == 0 else None

    status = wait_until(probe, what="webhooks to settle")
    assert status is not None
    return status


def test_receipts_and_replies_are_signed_and_true(judge: Simulator, receiver: Receiver) -> None:
    configure(
        judge,
        receiver,
        receipts={"delivered": 1, "read": 1, "delay_seconds": 0.05},
        replies={"probability": 1, "texts": ["STOP"], "delay_seconds": [0, 0.1]},
    )
    with WireClient(judge) as client:
        external_id = client.message("token-1", id="r-1", sender="41").json()["id"]
    wait_until(lambda: len(receiver.posts) == 3, what="three events")
    for body, signature in receiver.posts:
        assert signature == "sha256=" + hmac.new(SECRET.encode(), body, hashlib.sha256).hexdigest()
        assert b"token-1" not in body, "a device token is a credential"
    events = receiver.events()
    receipts = {event["status"]: event for event in events if event["event"] == "receipt"}
    (reply,) = [event for event in events if event["event"] == "message"]
    assert set(receipts) == {"delivered", "read"}
    for event in receipts.values():
        assert (event["message_id"], event["reference"], event["to"]) == (external_id, "r-1", "+628110000001")
    assert receipts["delivered"]["timestamp"] <= receipts["read"]["timestamp"]
    assert (reply["from"], reply["text"]) == ("+628110000001", "STOP")
    assert {event["sender"] for event in events} == {"41"}
    assert {event["device"] for event in events} == {hashlib.sha256(b"token-1").hexdigest()[:16]}
    assert len({event["id"] for event in events}) == 3


def test_receipts_are_for_what_reached_the_phone(judge: Simulator, receiver: Receiver) -> None:
    configure(judge, receiver, receipts={"delivered": 1})
    judge.add_faults(
        {"fault": "reset", "phase": "before", "device": "before"},
        {"fault": "reset", "phase": "after", "device": "after"},
        {"fault": "throttle", "device": "throttled"},
    )
    with WireClient(judge) as client:
        for device in ("before", "after", "throttled", "well", "well"):
            try:
                client.message(device, id=device)
            except OSError:
                assert device in {"before", "after"}
    settled(judge)
    wait_until(lambda: len(receiver.posts) >= 2, what="the receipts")
    assert sorted(event["reference"] for event in receiver.events()) == ["after", "well"]


def test_a_failed_receipt_is_the_only_one(judge: Simulator, receiver: Receiver) -> None:
    configure(judge, receiver, receipts={"delivered": 1, "read": 1, "failed": 1})
    with WireClient(judge) as client:
        client.message("a")
    assert settled(judge)["posted"] == 1
    assert [event["status"] for event in receiver.events()] == ["failed"]


def test_a_refused_event_is_posted_again_unchanged_in_name(judge: Simulator, receiver: Receiver) -> None:
    receiver.refuse_first = 2
    configure(judge, receiver, receipts={"delivered": 1})
    with WireClient(judge) as client:
        client.message("a")
    wait_until(lambda: len(receiver.posts) == 3, what="the third try")
    status = settled(judge)
    assert (status["posted"], status["retried"], status["given_up"]) == (1, 2, 0)
    assert len({event["id"] for event in receiver.events()}) == 1


@pytest.mark.slow
def test_a_receiver_that_never_takes_it_is_given_up(judge: Simulator, receiver: Receiver) -> None:
    receiver.status = 302  # a redirect is no success, and is not followed
    configure(judge, receiver, receipts={"delivered": 1})
    with WireClient(judge) as client:
        client.message("a")
    wait_until(lambda: judge.control("GET", "webhook").json()["given_up"] == 1, what="the end of patience")
    assert len(receiver.posts) == 5
    assert settled(judge)["posted"] == 0


def test_events_can_come_twice(judge: Simulator, receiver: Receiver) -> None:
    configure(judge, receiver, receipts={"delivered": 1}, repeat=1)
    with WireClient(judge) as client:
        client.message("a")
    wait_until(lambda: len(receiver.posts) == 2, what="both copies")
    one, two = receiver.events()
    assert one["id"] == two["id"]


def test_one_phone_can_be_made_to_write(judge: Simulator, receiver: Receiver) -> None:
    configure(judge, receiver)
    judge.control("POST", "reply", {"from": "+628110000009", "text": "stop please", "sender": "7"})
    wait_until(lambda: receiver.posts, what="the reply")
    (event,) = receiver.events()
    assert (event["event"], event["from"], event["text"], event["sender"]) == (
        "message",
        "+628110000009",
        "stop please",
        "7",
    )


def test_dropping_the_webhook_drops_what_waits(judge: Simulator, receiver: Receiver) -> None:
    configure(judge, receiver, receipts={"delivered": 1, "delay_seconds": 60})
    with WireClient(judge) as client:
        client.message("a")
    status = judge.control("GET", "webhook").json()
    assert (status["waiting"], SECRET in json.dumps(status)) == (1, False)
    judge.control("DELETE", "webhook")
    assert settled(judge)["url"] is None
    assert judge.stop() == 0
    assert receiver.posts == []


def test_news_of_a_device_goes_to_its_own_address_or_to_its_gateways(judge: Simulator, receiver: Receiver) -> None:
    one = receiver.url.replace("/hook", "/device/one")
    settings = {"url": receiver.url + "/{gateway}", "devices": {"one": one}, "receipts": {"delivered": 1}}
    judge.control("POST", "webhook", {"secret": SECRET, **settings})
    with WireClient(judge) as client:
        client.message("one")
        client.message("two")
    wait_until(lambda: len(receiver.paths) == 2, what="both receipts")
    assert sorted(receiver.paths) == ["/device/one", "/hook/simulator"]
