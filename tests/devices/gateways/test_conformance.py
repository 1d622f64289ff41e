"""What every gateway driver must do: the same tests for all, each driver bringing its own data.

A driver's suite is one line in ``SUITES``. The judge of "did it reach the phone" is the simulator's ledger, so an
outcome that claims "certainly not sent" is checked against what happened, not against what the driver believes.
"""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Callable
from typing import Any, get_args
from urllib.parse import parse_qsl

import pytest

from devices.gateways import registry
from devices.gateways.base import (
    Absent,
    Accepted,
    CannotSay,
    Client,
    ContentType,
    Deadlines,
    Found,
    Outcome,
    Outgoing,
    Rejected,
    SessionLost,
    Temporary,
    Unknown,
)
from tests.devices.gateways import generic_cases, meta_cases, simulator_cases, wablas_cases, whacenter_cases
from tests.devices.gateways.conformance import HASTY, PATIENT, Behaviour, Exchange, Suite
from tests.devices.gateways.raw_server import Connection, raw_server
from tests.simulator_process import Simulator

SUITES: tuple[Suite, ...] = (
    simulator_cases.SUITE,
    meta_cases.SUITE,
    wablas_cases.SUITE,
    whacenter_cases.SUITE,
    generic_cases.SUITE,
)

EXCHANGES = [pytest.param(s, e, id=f"{s.kind}: {e.name}") for s in SUITES for e in s.exchanges]
BEHAVIOURS = [pytest.param(s, b, id=f"{s.kind}: {b.name}") for s in SUITES for b in s.behaviours]
each_suite = pytest.mark.parametrize("suite", SUITES, ids=lambda suite: suite.kind)


def outgoing(number: int = 1, *, reference: str | None = None) -> Outgoing:
    return Outgoing(
        message_id=number, attempt=1, reference=reference or f"ref-{number}", phone="+628110000001", text="halo"
    )


def client_of(suite: Suite, url: str, token: str, deadlines: Deadlines = PATIENT) -> Client:
    return registry.driver_for(suite.kind).connect(suite.config(url, token, deadlines))


def test_every_http_driver_has_a_suite_that_covers_every_outcome() -> None:
    http_kinds = {kind for kind in registry.kinds() if registry.driver_for(kind).transport == "http"}
    assert {suite.kind for suite in SUITES} == http_kinds
    for suite in SUITES:
        assert {behaviour.outcome for behaviour in suite.behaviours} == set(get_args(Outcome)), suite.kind


@pytest.mark.parametrize(("suite", "exchange"), EXCHANGES)
def test_exchange(suite: Suite, exchange: Exchange) -> None:
    def script(connection: Connection) -> None:
        while connection.request():
            connection.answer(exchange.status, exchange.answer, *exchange.answer_headers)

    with raw_server(script) as server:
        outcome = client_of(suite, server.url, simulator_cases.TOKEN).send(exchange.outgoing)
        requests = list(server.requests)
    assert outcome == exchange.outcome
    assert len(requests) == 1, "one call, one request: no retry, no redirect"
    assert (requests[0].method, requests[0].path) == (exchange.method, exchange.path)
    assert (dict(parse_qsl(requests[0].body.decode())) if exchange.form else requests[0].json()) == exchange.body
    assert requests[0].headers.items() >= exchange.headers.items()


@pytest.mark.parametrize(("suite", "behaviour"), BEHAVIOURS)
def test_behaviour(suite: Suite, behaviour: Behaviour, simulator: Simulator, new_token: Callable[[], str]) -> None:
    token = new_token()
    simulator.add_faults(*({**rule, "device": token} for rule in behaviour.faults))
    outcome = client_of(suite, simulator.url, token, behaviour.deadlines).send(outgoing())
    assert type(outcome) is behaviour.outcome, outcome
    for name, value in behaviour.details.items():
        assert getattr(outcome, name) == value
    entries = simulator.landed(token)  # also proves that the driver closed the connection of a call it gave up
    assert len(entries) == 1, "one call, one request"
    assert entries[0]["delivered"] is behaviour.reached
    if not isinstance(outcome, Unknown):
        assert behaviour.reached is isinstance(outcome, Accepted), "a definite outcome must be true"
    if behaviour.deadlines is not PATIENT:
        assert entries[0]["answer"] == "client_gone"
    assert entries[0]["phone"] == "+628110000001"
    assert (entries[0]["message"], entries[0]["attempt"]) == (1 if suite.carries_number else None, 1)


@each_suite
def test_the_device_works_on_after_each_failure(
    suite: Suite, simulator: Simulator, new_token: Callable[[], str]
) -> None:
    token = new_token()
    client = client_of(suite, simulator.url, token, HASTY)
    for number, fault in enumerate(("reset", "hang", "broken_json", "error", "throttle"), start=1):
        simulator.add_faults({"fault": fault, "device": token, "count": 1})
        assert not isinstance(client.send(outgoing(2 * number)), Accepted)
        assert isinstance(client.send(outgoing(2 * number + 1)), Accepted)


@each_suite
def test_gateways_that_dedup_deliver_a_repeated_reference_once(
    suite: Suite, simulator: Simulator, new_token: Callable[[], str]
) -> None:
    driver = registry.driver_for(suite.kind)
    assert driver.id_semantics == "none" or driver.id_proof, "a claim about ids needs its proof"
    if driver.id_semantics != "dedups":
        pytest.skip(f"{suite.kind} does not claim to drop repeats")
    token = new_token()
    client = client_of(suite, simulator.url, token)
    simulator.add_faults({"fault": "reset", "phase": "after", "device": token, "count": 1})
    assert isinstance(client.send(outgoing(1)), Unknown)
    again, once_more = client.send(outgoing(1)), client.send(outgoing(1))
    assert isinstance(again, Accepted)
    assert again == once_more
    assert [entry["delivered"] for entry in simulator.landed(token)] == [True, False, False]
    assert client.send(outgoing(2)) != again


@each_suite
def test_a_message_is_found_by_its_reference(suite: Suite, simulator: Simulator, new_token: Callable[[], str]) -> None:
    token = new_token()
    client = client_of(suite, simulator.url, token, HASTY)
    if not hasattr(client, "look_up"):
        assert registry.driver_for(suite.kind).id_semantics != "searchable"
        pytest.skip(f"{suite.kind} cannot be searched")
    assert client.look_up("ref-1") == Absent()
    simulator.add_faults({"fault": "reset", "phase": "after", "device": token, "count": 1})
    assert isinstance(client.send(outgoing(1)), Unknown)
    found = client.look_up("ref-1")
    assert isinstance(found, Found)
    assert client.send(outgoing(2)) == Accepted(client.look_up("ref-2").external_id)
    assert client.look_up("ref/3?&ü") == Absent()
    for fault in ("hang", "reset", "broken_json", "error", "throttle"):
        simulator.add_faults({"fault": fault, "on": "check", "device": token, "count": 1})
        assert isinstance(client.look_up("ref-1"), CannotSay), fault
    simulator.ban(token)
    assert isinstance(client.look_up("ref-1"), CannotSay)
    simulator.unban(token)
    assert len(simulator.of_device(token)) == 2, "asking sends nothing"


@each_suite
def test_what_is_carried_is_declared_and_the_rest_is_rejected(suite: Suite, simulator: Simulator) -> None:
    driver = registry.driver_for(suite.kind)
    carried = {exchange.outgoing.type for exchange in suite.exchanges if isinstance(exchange.outcome, Accepted)}
    assert carried <= set(driver.carries)
    assert set(get_args(ContentType)) - set(driver.carries) <= {each.type for each in suite.unsupported} | {"template"}
    client = client_of(suite, simulator.url, "unsupported")
    for each in suite.unsupported:
        assert each.type not in driver.carries
        refused = client.send(each)
        assert isinstance(refused, Rejected)
        assert refused.code == "not_supported"
    assert simulator.of_device("unsupported") == []


@each_suite
def test_a_device_that_lost_its_phone_is_paired_again(
    suite: Suite, simulator: Simulator, new_token: Callable[[], str]
) -> None:
    driver = registry.driver_for(suite.kind)
    if not driver.pairing:
        pytest.skip(f"{suite.kind} pairs nothing")
    token = new_token()
    client: Any = client_of(suite, simulator.url, token)
    assert client.pair().status == "connected"
    simulator.control("POST", "unlink", {"devices": [token], "dialect": suite.kind})
    assert isinstance(client.check(), SessionLost)
    assert isinstance(client.send(outgoing()), SessionLost)
    asked = client.pair()
    assert asked.status == "qr"
    assert asked.qr or asked.qr_png
    steps = [client.pair().status for _ in range(3)]
    assert steps[-1] == "connected"
    assert isinstance(client.send(outgoing()), Accepted)
    assert client.restart() == Accepted()
    if isinstance(client.log_out(), Accepted):
        assert isinstance(client.check(), SessionLost)


@each_suite
def test_nobody_listens(suite: Suite) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    client = client_of(suite, f"http://127.0.0.1:{port}", "t")
    outcome = client.send(outgoing())
    assert isinstance(outcome, Temporary)
    assert outcome.code == "connect"
    assert isinstance(client.check(), Temporary)


@each_suite
def test_check(suite: Suite, simulator: Simulator, new_token: Callable[[], str]) -> None:
    token = new_token()
    client = client_of(suite, simulator.url, token, HASTY)
    assert client.check() == Accepted()
    for fault in ("hang", "reset", "broken_json", "error", "throttle"):
        simulator.add_faults({"fault": fault, "on": "check", "device": token, "count": 1})
        assert isinstance(client.check(), Temporary), fault
    simulator.ban(token)
    lost = client.check()
    assert isinstance(lost, SessionLost)
    assert lost.banned is suite.knows_bans
    simulator.unban(token)
    assert client.check() == Accepted()
    assert simulator.of_device(token) == [], "asking for the status sends nothing"


@each_suite
def test_one_client_serves_many_threads(suite: Suite, simulator: Simulator, new_token: Callable[[], str]) -> None:
    token = new_token()
    client = client_of(suite, simulator.url, token)
    threads, each = 20, 25
    outcomes: list[Outcome] = []
    simulator.add_faults({"fault": "latency", "seconds": 0.2, "device": token, "count": threads})
    start = threading.Barrier(threads)

    def work(first: int) -> None:
        start.wait()
        for number in range(first, first + each):
            outcomes.append(client.send(outgoing(number)))  # noqa: PERF401 - each must be seen even if one raises

    workers = [threading.Thread(target=work, args=(each * index,)) for index in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    ids = [outcome.external_id for outcome in outcomes if isinstance(outcome, Accepted)]
    assert len(ids) == threads * each
    assert len(set(ids)) == (threads * each if suite.names_messages else 1)
    assert sum(entry["delivered"] for entry in simulator.landed(token)) == threads * each
    assert 1 < simulator.summary()["max_in_flight"][token] <= threads
    client.close()


@each_suite
def test_no_secret_leaves_but_to_the_gateway(
    suite: Suite,
    simulator: Simulator,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Every behaviour, refused connections and unusable addresses, with every logger at its most talkative."""
    secret = "VerySecretToken"
    said: list[str] = []
    urls = [simulator.url, "http://127.0.0.1:1", "http://nowhere.invalid", "not an address", "http://[bad"]
    with caplog.at_level(logging.DEBUG):
        for behaviour in suite.behaviours:
            token = f"{secret}-{behaviour.name}"
            simulator.add_faults(*({**rule, "device": token} for rule in behaviour.faults))
            config = suite.config(simulator.url, token, behaviour.deadlines)
            client = registry.driver_for(suite.kind).connect(config)
            said += [repr(config), str(config), repr(config.credentials), repr(client), str(client)]
            said += [repr(client.send(outgoing())), repr(client.check())]
        for url in urls[1:]:
            client = client_of(suite, url, f"{secret}\n", HASTY)
            said += [repr(client), repr(client.send(outgoing())), repr(client.check())]
    assert caplog.records, "loggers were listened to"
    shown = "\n".join([*said, caplog.text, *capfd.readouterr()])
    assert secret not in shown
    assert "halo" not in shown
    assert "628110000001" not in shown
