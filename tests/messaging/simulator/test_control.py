"""The control API, the wire format's mistakes, and starting and stopping."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import requests

from tests.messaging.simulator.conftest import WireClient
from tests.simulator_process import ROOT, ControlError, Simulator, running_simulator, start_simulator

NewDevice = Callable[[], str]


# -- control -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("header", [None, "", "Bearer", "Bearer wrong", "Bearer wröng"])
@pytest.mark.parametrize(("method", "path"), [("GET", "summary"), ("POST", "reset"), ("POST", "faults")])
def test_control_needs_its_token(simulator: Simulator, header: str | None, method: str, path: str) -> None:
    headers = {} if header is None else {"Authorization": header.encode("latin-1")}
    answer = requests.request(method, f"{simulator.url}/control/{path}", headers=headers, timeout=10)
    assert answer.status_code == 401
    assert answer.json() == {"error": "the control token is missing or wrong"}


@pytest.mark.parametrize(
    ("method", "path", "body", "words"),
    [
        ("POST", "faults", {"fault": "explode"}, "fault must be one of"),
        ("POST", "faults", [{"fault": "ban"}, {"fault": "explode"}], "rule 1: fault must be one of"),
        ("POST", "faults", None, "the body is not JSON"),
        ("DELETE", "faults/999999", None, "there is no rule 999999"),
        ("POST", "ban", {"devices": "all"}, "devices must be a list of tokens"),
        ("POST", "ban", {"devices": "*"}, "devices must be a list of tokens"),
        ("POST", "unban", [], "devices must be a list of tokens"),
        ("POST", "unlink", {"devices": "all"}, "devices must be a list of tokens"),
        ("POST", "unlink", {"devices": ["t"], "dialect": "morse"}, "dialect must be one of simulator,"),
        ("POST", "reset", {"keep": ["everything"]}, "keep must be a list of some of ledger, faults, bans, links"),
        ("POST", "reset", {"forget": []}, "keep must be a list"),
        ("POST", "reset", [], "keep must be a list"),
        ("GET", "ledger?since=-1", None, "since must be a whole number, not '-1'"),
        ("GET", "ledger?limit=all", None, "limit must be a whole number, not 'all'"),
        ("POST", "webhook", {}, "secret must be a text"),
        ("POST", "webhook", {"secret": "s", "url": "file:///etc/passwd"}, "url must be an http or https address"),
        ("POST", "webhook", {"secret": "s", "url": "http://127.0.0.1/", "devices": []}, "devices must be an object"),
        (
            "POST",
            "webhook",
            {"secret": "s", "url": "http://127.0.0.1/", "devices": {"t": "http://example.com/"}},
            "url must be on this machine",
        ),
        ("POST", "webhook", {"secret": "s", "url": "http://[bad"}, "url must be an http or https address"),
        ("POST", "webhook", {"secret": "s", "url": "http://example.com/"}, "url must be on this machine"),
        ("POST", "webhook", {"secret": "s", "url": "http://127.0.0.1.example.com/"}, "url must be on this machine"),
        ("POST", "webhook", {"secret": "s", "url": "http://127.0.0.1/", "recepits": {}}, "does not take recepits"),
        (
            "POST",
            "webhook",
            {"secret": "s", "url": "http://127.0.0.1/", "receipts": {"read": 2}},
            "receipts.read must be a number from 0 to 1, not 2",
        ),
        (
            "POST",
            "webhook",
            {"secret": "s", "url": "http://127.0.0.1/", "receipts": {"delay_seconds": [2, 1]}},
            "receipts.delay_seconds must be seconds, or the least and the most of them",
        ),
        (
            "POST",
            "webhook",
            {"secret": "s", "url": "http://127.0.0.1/", "replies": {"probability": 1}},
            "replies.texts must not be empty",
        ),
        ("POST", "reply", {"from": "+62811", "text": "STOP"}, "there is no webhook"),
        ("POST", "reply", {"from": "+62811"}, "a reply needs from and text"),
        ("POST", "reply", {"from": 1}, "a reply is an object of texts"),
    ],
    ids=str,
)
def test_mistakes_are_named(simulator: Simulator, method: str, path: str, body: object, words: str) -> None:
    with pytest.raises(ControlError) as problem:
        simulator.control(method, path, body)
    assert problem.value.status == 400
    assert words in json.loads(problem.value.text)["error"]


def test_bans_last_until_lifted(simulator: Simulator, client: WireClient, new_device: NewDevice) -> None:
    one, other = new_device(), new_device()
    simulator.add_faults({"fault": "ban", "device": one, "count": 1})
    simulator.ban(other)
    for device in (one, one, other):
        assert client.message(device).status_code == 401
        status = client.get(f"{simulator.url}/sim/v1/devices/{device}", timeout=10)
        assert (status.status_code, status.json()["error"]["code"]) == (401, "banned")
    simulator.unban(one)
    assert client.message(one).status_code == 200
    assert client.message(other).status_code == 401
    simulator.control("POST", "unban", {"devices": "*"})
    assert client.message(other).status_code == 200


def test_rules_are_listed_and_dropped(simulator: Simulator, client: WireClient, new_device: NewDevice) -> None:
    device = new_device()
    one, two = simulator.add_faults({"fault": "throttle", "device": device}, {"fault": "reject", "device": device})
    assert client.message(device).status_code == 429
    simulator.control("DELETE", f"faults/{one['id']}")
    assert client.message(device).status_code == 422
    assert [rule["id"] for rule in simulator.faults() if rule["device"] == device] == [two["id"]]
    simulator.control("DELETE", "faults")
    assert client.message(device).status_code == 200
    assert simulator.faults() == []


def test_the_ledger_comes_in_pages() -> None:
    with running_simulator() as simulator, WireClient(simulator) as client:
        for number in range(25):
            client.message("a", message=number)
        pages, since = [], 0
        while True:
            page = simulator.control("GET", f"ledger?since={since}&limit=10")
            pages.append([json.loads(line)["message"] for line in page.text.splitlines()])
            since = int(page.headers["X-Ledger-Next"])
            if since == int(page.headers["X-Ledger-Total"]):
                break
        assert pages == [list(range(10)), list(range(10, 20)), list(range(20, 25))]
        assert simulator.control("GET", "ledger?since=25").text == ""
        assert simulator.control("GET", "ledger?since=99").headers["X-Ledger-Next"] == "99"
        assert [entry["message"] for entry in simulator.ledger(since=20)] == list(range(20, 25))


# -- the wire format ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"to": "628110000001"}, "bad_to"),
        ({"to": "+62811000000\n"}, "bad_to"),
        ({"to": "+٦٢٨١١٠٠٠"}, "bad_to"),
        ({"to": None}, "bad_to"),
        ({"type": "poem"}, "bad_type"),
        ({"type": ["text"]}, "bad_type"),
        ({"text": ""}, "bad_text"),
        ({"text": 5}, "bad_text"),
        ({"media": "http://x"}, "bad_media"),
        ({"id": ""}, "bad_id"),
        ({"id": 7}, "bad_id"),
        ({"id": "x" * 201}, "bad_id"),
        ({"message": "7"}, "bad_message"),
        ({"message": -1}, "bad_message"),
        ({"message": True}, "bad_message"),
        ({"message": 2**63}, "bad_message"),
        ({"attempt": 2**31}, "bad_attempt"),
        ({"sender": {}}, "bad_sender"),
    ],
    ids=str,
)
def test_bad_messages_are_refused_and_entered(
    simulator: Simulator, client: WireClient, new_device: NewDevice, fields: dict[str, object], code: str
) -> None:
    device = new_device()
    answer = client.message(device, **fields)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, code)
    assert code.removeprefix("bad_") in answer.json()["error"]["text"]
    (entry,) = simulator.landed(device)
    assert (entry["answer"], entry["delivered"], entry["status"]) == ("bad_request", False, 400)


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"7", b"\xff", b"[" * 100_000], ids=lambda body: repr(body[:5]))
def test_bodies_that_are_no_message(
    simulator: Simulator, client: WireClient, new_device: NewDevice, body: bytes
) -> None:
    answer = client.post(f"{simulator.url}/sim/v1/devices/{new_device()}/messages", data=body, timeout=10)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "bad_json")


def test_only_devices_with_the_prefix_exist() -> None:
    with running_simulator("--token-prefix", "tok-") as simulator, WireClient(simulator) as client:
        assert client.message("tok-1").status_code == 200
        assert client.get(f"{simulator.url}/sim/v1/devices/tok-1", timeout=10).json() == {"status": "connected"}
        refused = client.message("other")
        assert (refused.status_code, refused.json()["error"]["code"]) == (401, "unknown_device")
        assert client.get(f"{simulator.url}/sim/v1/devices/other", timeout=10).status_code == 401
        assert [e["delivered"] for e in simulator.ledger()] == [True, False]


# -- starting and stopping ---------------------------------------------------------------------------------------------


def test_it_says_where_it_is_and_leaves_nothing(tmp_path: Path) -> None:
    port_file = tmp_path / "port"
    simulator = start_simulator("--port-file", str(port_file))
    assert simulator.url.endswith(f":{port_file.read_text().strip()}")
    assert simulator.control("GET", "health").json()["status"] == "ok"
    assert simulator.stop() == 0
    assert list(tmp_path.iterdir()) == []


def test_it_stops_on_interrupt_too_and_quietly() -> None:
    simulator = start_simulator()
    simulator.process.send_signal(signal.SIGINT)
    _, errors = simulator.process.communicate(timeout=10)
    assert (simulator.process.returncode, errors) == (0, "")
    simulator.stop()


def test_without_a_token_it_makes_one_and_shows_it() -> None:
    environment = {name: value for name, value in os.environ.items() if name != "SIMULATOR_CONTROL_TOKEN"}
    process = subprocess.Popen(
        [sys.executable, "-m", "messaging.simulator", "--port", "0"],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        ready = json.loads(process.stdout.readline())
        url = f"http://127.0.0.1:{ready['port']}/control/health"
        headers = {"Authorization": f"Bearer {ready['control_token']}"}
        assert requests.get(url, headers=headers, timeout=10).status_code == 200
        assert ready["pid"] == process.pid
    finally:
        process.terminate()
        process.communicate(timeout=10)


def test_faults_can_be_there_from_the_start(tmp_path: Path) -> None:
    path = tmp_path / "faults.json"
    path.write_text('[{"fault": "throttle", "device": "a"}]')
    with running_simulator("--faults", str(path)) as simulator, WireClient(simulator) as client:
        assert client.message("a").status_code == 429
        assert client.message("b").status_code == 200


@pytest.mark.parametrize(
    ("content", "words"),
    [("{", "is not JSON"), ('[{"fault": "explode"}]', "rule 0: fault must be one of"), (None, "cannot read")],
)
def test_a_faults_file_with_mistakes(tmp_path: Path, content: str | None, words: str) -> None:
    path = tmp_path / "faults.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(AssertionError, match=words):
        start_simulator("--faults", str(path))


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "example.com", "192.168.0.1"])  # noqa: S104 - must be refused
def test_other_machines_are_kept_out(host: str) -> None:
    with pytest.raises(AssertionError, match="can be reached from other machines"):
        start_simulator("--host", host)


def test_a_port_that_is_taken() -> None:
    with running_simulator() as simulator:
        port = simulator.url.rsplit(":", 1)[1]
        with pytest.raises(AssertionError, match=f"cannot listen on 127.0.0.1:{port}"):
            start_simulator("--port", port)


def test_it_imports_nothing_of_what_it_judges() -> None:
    code = (
        "import sys, messaging.simulator.cli\n"
        "strangers = {'django', 'celery', 'kombu', 'redis', 'devices', 'leads', 'campaigns', 'sequences', 'config'}\n"
        "print(sorted(strangers & {name.split('.')[0] for name in sys.modules}))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_management_command_is_the_same_program() -> None:
    process = subprocess.Popen(
        [sys.executable, "manage.py", "simulator", "--port", "0"],
        cwd=ROOT,
        env={**os.environ, "SIMULATOR_CONTROL_TOKEN": "t"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    line = process.stdout.readline()
    process.terminate()
    _, errors = process.communicate(timeout=20)
    assert line, errors
    assert json.loads(line)["ready"] is True
    assert process.returncode == 0
