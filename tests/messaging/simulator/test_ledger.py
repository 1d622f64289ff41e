"""The judge must be right: what the ledger says under every fault, on disk and in memory, and after a restart."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests

from messaging.simulator.ledger import Arrival, Ledger
from tests.messaging.simulator.conftest import WireClient
from tests.simulator_process import Simulator, running_simulator, start_simulator, wait_until

NewDevice = Callable[[], str]
GONE = (requests.ConnectionError, requests.Timeout)


@contextmanager
def left_hanging(simulator: Simulator, client: WireClient, device: str, **fields: Any) -> Iterator[None]:
    """A request that has arrived and is not answered, until the with block has ended what it waits for."""
    gone: list[Exception] = []

    def work() -> None:
        try:
            client.message(device, **fields)
        except GONE as problem:
            gone.append(problem)

    already = len(simulator.of_device(device))
    thread = threading.Thread(target=work)
    thread.start()
    wait_until(lambda: len(simulator.of_device(device)) > already, what="the hanging request")
    yield
    thread.join()
    assert gone, "the request was to stay unanswered"


@dataclass(frozen=True)
class Expected:
    """A rule, the status that the client gets (None: no answer), and what the ledger must say."""

    rule: dict[str, Any]
    status: int | None
    delivered: bool
    answer: str


def unanswered(simulator: Simulator, device: str) -> socket.socket:
    """A connection on which one request was written; closing it is giving up."""
    host, port = simulator.url.removeprefix("http://").split(":")
    body = b'{"to":"+628110000001","text":"x"}'
    head = f"POST /sim/v1/devices/{device}/messages HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
    sock = socket.create_connection((host, int(port)))
    sock.sendall(head.encode() + body)
    return sock


def on_disk(path: Path) -> list[dict[str, Any]]:
    """The file's lines put together: later lines change earlier ones."""
    entries: dict[int, dict[str, Any]] = {}
    for line in path.read_text().splitlines():
        values = json.loads(line)
        entries.setdefault(values["n"], {}).update(values)
    return [entries[n] for n in sorted(entries)]


@pytest.mark.parametrize(
    "fault",
    [
        Expected({"fault": "throttle", "retry_after_seconds": 3}, 429, delivered=False, answer="throttled"),
        Expected({"fault": "throttle", "retry_after_seconds": None}, 429, delivered=False, answer="throttled"),
        Expected({"fault": "error", "status": 500}, 500, delivered=False, answer="error"),
        Expected({"fault": "error", "status": 502}, 502, delivered=False, answer="error"),
        Expected({"fault": "error", "status": 503, "phase": "after"}, 503, delivered=True, answer="error"),
        Expected({"fault": "reject", "code": "c", "text": "t"}, 422, delivered=False, answer="rejected"),
        Expected({"fault": "ban"}, 401, delivered=False, answer="banned"),
        Expected({"fault": "broken_json"}, 200, delivered=True, answer="broken_json"),
        Expected({"fault": "broken_json", "phase": "before"}, 200, delivered=False, answer="broken_json"),
        Expected({"fault": "latency", "seconds": 0.05}, 200, delivered=True, answer="accepted"),
        Expected(
            {"fault": "latency", "min_seconds": 0.01, "max_seconds": 0.05, "phase": "before"},
            200,
            delivered=True,
            answer="accepted",
        ),
        Expected({"fault": "drip", "interval_seconds": 0.001}, 200, delivered=True, answer="accepted"),
        Expected({"fault": "reset", "phase": "before"}, None, delivered=False, answer="reset"),
        Expected({"fault": "reset", "phase": "after"}, None, delivered=True, answer="reset"),
        Expected({"fault": "hang", "phase": "before"}, None, delivered=False, answer="client_gone"),
        Expected({"fault": "hang", "phase": "after"}, None, delivered=True, answer="client_gone"),
        Expected({"fault": "latency", "seconds": 60, "phase": "before"}, None, delivered=False, answer="client_gone"),
        Expected({"fault": "latency", "seconds": 60, "phase": "after"}, None, delivered=True, answer="client_gone"),
        Expected({"fault": "drip", "interval_seconds": 60}, None, delivered=True, answer="client_gone"),
    ],
    ids=lambda fault: " ".join(str(part) for part in fault.rule.values()),
)
def test_every_fault(simulator: Simulator, client: WireClient, new_device: NewDevice, fault: Expected) -> None:
    rule, status, answer, device = fault.rule, fault.status, fault.answer, new_device()
    (added,) = simulator.add_faults({**rule, "device": device})
    assert added["hits"] == 0
    if status is None:
        with pytest.raises(GONE):
            client.message(device, id="r-1", message=5, attempt=3, timeout=0.7)
    else:
        response = client.message(device, id="r-1", message=5, attempt=3)
        assert response.status_code == status
        if rule["fault"] == "throttle":
            assert response.headers.get("Retry-After") == (None if rule["retry_after_seconds"] is None else "3")
        if answer == "broken_json":
            assert not is_json(response)
    (entry,) = simulator.landed(device)
    assert entry["delivered"] is fault.delivered
    assert entry["answer"] == answer
    assert entry["status"] == status
    assert (entry["phone"], entry["id"], entry["message"], entry["attempt"]) == ("+628110000001", "r-1", 5, 3)
    assert entry["faults"].startswith(rule["fault"])
    assert entry["monotonic"] <= entry["end"]
    assert [found["hits"] for found in simulator.faults() if found["id"] == added["id"]] == [1]


def is_json(response: requests.Response) -> bool:
    try:
        response.json()
    except ValueError:
        return False
    return True


def test_a_reset_is_a_reset(simulator: Simulator, new_device: NewDevice) -> None:
    """The client sees ECONNRESET, as from a host that dropped the connection, not a polite close."""
    device = new_device()
    simulator.add_faults({"fault": "reset", "device": device})
    with unanswered(simulator, device) as sock, pytest.raises(ConnectionResetError):
        sock.recv(100)


def test_an_id_is_delivered_once_for_each_device(
    simulator: Simulator, client: WireClient, new_device: NewDevice
) -> None:
    one, other = new_device(), new_device()
    ids = [client.message(one, id="same").json()["id"] for _ in range(3)]
    assert len(set(ids)) == 1
    assert client.message(one, id="different").json()["id"] != ids[0]
    assert client.message(other, id="same").json()["id"] != ids[0]
    assert [(e["delivered"], e["repeated"]) for e in simulator.of_device(one)] == [
        (True, False),
        (False, True),
        (False, True),
        (True, False),
    ]
    assert [e["delivered"] for e in simulator.of_device(other)] == [True]


def test_without_an_id_every_accept_delivers(simulator: Simulator, client: WireClient, new_device: NewDevice) -> None:
    device = new_device()
    assert len({client.message(device).json()["id"] for _ in range(3)}) == 3
    assert [e["delivered"] for e in simulator.of_device(device)] == [True] * 3


def test_duplicates_are_phones_that_got_one_message_twice(new_device: NewDevice) -> None:
    with running_simulator() as simulator, WireClient(simulator) as client:
        one, other = new_device(), new_device()
        client.message(one, id="a", message=1)
        client.message(one, id="a", message=1)  # dropped: the phone got it once
        assert simulator.summary()["duplicates"] == 0
        assert simulator.summary()["duplicate_requests"] == 1
        client.message(other, id="a", message=1)  # another account: nobody drops it
        client.message(other, id="b", message=1, to="+628110000002")  # another phone
        client.message(one, id="c", message=2)
        client.message(one, id="d")
        client.message(one, id="e")  # no number: cannot be judged
        client.message(one, id="f", message=1)
        summary = simulator.summary()
    assert (summary["requests"], summary["deliveries"], summary["duplicates"]) == (8, 7, 1)
    assert summary["duplicate_examples"] == [{"phone": "+628110000001", "message": 1, "deliveries": 3}]


def test_in_flight_counts_what_overlaps(simulator: Simulator, client: WireClient, new_device: NewDevice) -> None:
    device, many = new_device(), 5
    simulator.add_faults({"fault": "hang", "device": device, "count": many})
    before = simulator.summary()["in_flight"]
    with ExitStack() as stack:
        for _ in range(many):
            stack.enter_context(unanswered(simulator, device))
        wait_until(lambda: len(simulator.of_device(device)) == many, what="all requests to arrive")
        during = simulator.of_device(device)
        assert all(e["end"] is None and e["answer"] is None and e["delivered"] for e in during)
        assert simulator.summary()["in_flight"] == before + many
    simulator.landed(device)
    assert simulator.summary()["in_flight"] == before
    for _ in range(3):
        assert client.message(device).status_code == 200
    assert simulator.summary()["max_in_flight"][device] == many


def test_a_client_that_gives_up_and_tries_again_is_never_seen_twice(
    simulator: Simulator, new_device: NewDevice
) -> None:
    device, rounds = new_device(), 50
    simulator.add_faults({"fault": "hang", "device": device})
    for number in range(1, rounds + 1):
        with unanswered(simulator, device):
            wait_until(lambda n=number: len(simulator.of_device(device)) == n, what="the request")  # type: ignore[misc]
    simulator.landed(device)
    assert simulator.summary()["max_in_flight"][device] == 1


def test_a_closed_socket_ends_the_flight_before_the_loop_has_seen_it() -> None:
    """The worst order: the next request is read first, the old connection's end is still in the kernel."""
    ledger = Ledger()
    arrival = Arrival(device="d", phone="+62811", reference=None, message=1, attempt=1, at=1.0, monotonic=1.0)

    async def scenario() -> None:
        ends = [socket.socketpair() for _ in range(3)]
        loop = asyncio.get_running_loop()
        transports = [(await loop.connect_accepted_socket(asyncio.Protocol, ours))[0] for ours, _ in ends]
        ledger.open(arrival, faults="", transport=transports[0])
        ends[0][1].close()
        ledger.open(arrival, faults="", transport=transports[1])  # nothing awaited in between
        assert ledger.max_in_flight == {"d": 1}
        ledger.open(arrival, faults="", transport=transports[2])  # its predecessor is still there
        assert ledger.max_in_flight == {"d": 2}
        for transport, (_, theirs) in zip(transports, ends, strict=True):
            transport.close()
            theirs.close()
        await asyncio.sleep(0)

    asyncio.run(scenario())
    assert [entry["end"] is not None for entry in ledger.of_device("d")] == [True, False, False]


def test_requests_cut_short_reach_nobody(simulator: Simulator, new_device: NewDevice) -> None:
    device = new_device()
    before = simulator.summary()["incomplete_requests"]
    host, port = simulator.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as sock:
        head = f"POST /sim/v1/devices/{device}/messages HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n"
        sock.sendall(head.encode() + b'{"to":"+628110000001"')
    wait_until(lambda: simulator.summary()["incomplete_requests"] == before + 1, what="the cut request to be noticed")
    assert simulator.of_device(device) == []


def test_the_order_of_arrival_is_kept(simulator: Simulator, client: WireClient, new_device: NewDevice) -> None:
    device = new_device()
    for number in (3, 1, 2):
        client.message(device, message=number)
    requests_ = simulator.of_device(device)
    assert [e["message"] for e in requests_] == [3, 1, 2]
    assert [e["n"] for e in requests_] == sorted(e["n"] for e in requests_)
    assert device in simulator.control("GET", "order").json()["devices"]


def test_the_file_says_what_memory_says_and_a_restart_knows_it(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    with running_simulator("--ledger", str(path)) as simulator, WireClient(simulator) as client:
        first = client.message("a", id="r-1", message=1).json()["id"]
        client.message("a", id="r-1", message=1)
        client.message("a", message=2)
        simulator.add_faults({"fault": "hang", "device": "b"}, {"fault": "reset", "phase": "after", "device": "c"})
        for device in ("b", "c"):
            with pytest.raises(GONE):
                client.message(device, id=f"r-{device}", message=3, timeout=0.7)
        simulator.landed("b")
        in_memory, summary = simulator.ledger(), simulator.summary()
        assert on_disk(path) == in_memory
    with running_simulator("--ledger", str(path)) as simulator, WireClient(simulator) as client:
        assert simulator.ledger() == in_memory
        assert simulator.summary() == summary
        assert client.message("a", id="r-1", message=1).json()["id"] == first
        assert client.message("c", id="r-c", message=3).status_code == 200
        assert [e["delivered"] for e in simulator.of_device("a")] == [True, False, True, False]
        assert [e["delivered"] for e in simulator.of_device("c")] == [True, False]
        assert len(on_disk(path)) == len(in_memory) + 2


def test_a_killed_simulator_forgets_nothing_it_told_anyone(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    simulator = start_simulator("--ledger", str(path))
    with WireClient(simulator) as client:
        told = [client.message("a", id=f"r-{n}", message=n).json()["id"] for n in range(50)]
        simulator.add_faults({"fault": "hang", "device": "b"})
        with pytest.raises(GONE):
            client.message("b", id="hung", timeout=0.7)
        with left_hanging(simulator, client, "b", id="hanging"):
            simulator.process.kill()
    simulator.stop()
    with path.open("a") as file:
        file.write('{"n":52,"at":17')  # as if it had been killed in the middle of a line
    with running_simulator("--ledger", str(path)) as again, WireClient(again) as client:
        assert [client.message("a", id=f"r-{n}", message=n).json()["id"] for n in range(50)] == told
        assert again.summary()["duplicates"] == 0
        assert [(e["delivered"], e["answer"]) for e in again.of_device("b")] == [
            (True, "client_gone"),
            (True, "simulator_stopped"),
        ]
        assert again.summary()["in_flight"] == 0
        assert on_disk(path) == again.ledger()


def test_stopping_ends_what_is_in_flight_and_says_so(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    simulator = start_simulator("--ledger", str(path))
    simulator.add_faults({"fault": "hang", "device": "a"})
    with WireClient(simulator) as client, left_hanging(simulator, client, "a"):
        assert simulator.stop() == 0
    assert [e["answer"] for e in on_disk(path)] == ["simulator_stopped"]


def test_a_ledger_serves_one_simulator_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    running = pytest.raises(AssertionError, match="is the ledger of a simulator that is running")
    with running_simulator("--ledger", str(path)), running:
        start_simulator("--ledger", str(path))


@pytest.mark.parametrize("line", ["nonsense", "[]", '{"n": 7}', '{"n": 0}', "null", '{"n": "x"}'])
def test_a_file_that_is_no_ledger_is_left_alone(tmp_path: Path, line: str) -> None:
    path = tmp_path / "something.txt"
    path.write_text(f"{line}\nmore\n")
    with pytest.raises(AssertionError, match="line 1: not a line of a simulator's ledger"):
        start_simulator("--ledger", str(path))
    assert path.read_text() == f"{line}\nmore\n"


def test_reset_forgets_and_what_is_in_flight_stays_forgotten(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    with running_simulator("--ledger", str(path)) as simulator, WireClient(simulator) as client:
        client.message("a", id="r-1", message=1)
        simulator.add_faults(
            {"fault": "latency", "seconds": 60, "phase": "before", "device": "b"}, {"fault": "throttle", "device": "c"}
        )
        simulator.ban("d")
        with left_hanging(simulator, client, "b", timeout=1):
            simulator.reset(keep=["faults", "bans"])
            assert (simulator.ledger(), path.read_text()) == ([], "")
            assert len(simulator.faults()) == 2
            with WireClient(simulator) as other:
                assert other.message("d", message=1).status_code == 401
                assert other.message("a", id="r-1", message=1).status_code == 200
        simulator.reset(keep=["ledger"])
        assert simulator.faults() == []
        summary = simulator.summary()
        assert (summary["requests"], summary["deliveries"], summary["duplicates"]) == (2, 1, 0)
        assert summary["in_flight"] == 0
        assert on_disk(path) == simulator.ledger()


@pytest.mark.parametrize(("path", "delivered", "repeated"), [("sim", 1, 2), ("forgetful", 3, 0)])
def test_only_the_forgetful_gateway_delivers_a_repeat(simulator, client, new_device, path, delivered, repeated):
    device = new_device()
    url = f"{simulator.url}/{path}/v1/devices/{device}"
    for attempt in range(1, 4):
        body = {"id": "7-1", "to": "+628110000001", "text": "halo", "message": 7, "attempt": attempt}
        assert client.post(f"{url}/messages", json=body, timeout=30).status_code == 200
    assert client.get(url, timeout=30).json() == {"status": "connected"}
    entries = simulator.landed(device)
    assert sum(entry["delivered"] for entry in entries) == delivered
    assert sum(entry["repeated"] for entry in entries) == repeated
