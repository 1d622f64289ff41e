"""What every gateway driver must do: the same tests for all, each driver bringing its own data.

A driver's suite is one line in ``SUITES``. The judge of "did it reach the phone" is the simulator's ledger, so an
outcome that claims "certainly not sent" is checked against what happened, not against what the driver believes.
"""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import get_args

import pytest

from devices.gateways import registry
from devices.gateways.base import (
    Absent,
    Accepted,
    CannotSay,
    Client,
    Deadlines,
    Found,
    Outcome,
    Outgoing,
    SessionLost,
    Temporary,
    Throttled,
    Unknown,
)
from messaging.simulator.dialects import DIALECTS
from messaging.simulator.dialects.base import Dialect
from tests.devices.gateways import (
    evolution_cases,
    generic_cases,
    gowa_cases,
    meta_cases,
    simulator_cases,
    wablas_cases,
    waha_cases,
    whacenter_cases,
    wuzapi_cases,
)
from tests.devices.gateways.conformance import HASTY, PATIENT, Behaviour, Exchange, Suite, read_body
from tests.devices.gateways.raw_server import Connection, raw_server
from tests.simulator_process import Simulator

SUITES: tuple[Suite, ...] = (
    simulator_cases.SUITE,
    gowa_cases.SUITE,
    waha_cases.SUITE,
    evolution_cases.SUITE,
    wuzapi_cases.SUITE,
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


def dialect_of(suite: Suite) -> Dialect:
    (dialect,) = (each for each in DIALECTS if each.name == suite.kind)
    return dialect


def test_every_http_driver_has_a_suite_that_covers_every_outcome() -> None:
    http_kinds = {kind for kind in registry.kinds() if registry.driver_for(kind).transport == "http"}
    assert {suite.kind for suite in SUITES} == http_kinds
    for suite in SUITES:
        shown = {behaviour.outcome for behaviour in suite.behaviours}
        assert shown | set(suite.cannot) == set(get_args(Outcome)), suite.kind
        assert all(suite.cannot.values()), "what a gateway cannot do needs its reason"


def test_what_a_gateway_cannot_mean_none_of_its_answers_means() -> None:
    """As far as it can be tried: no exchange, no behaviour, and no words for it in the simulator's dialect."""
    for suite in SUITES:
        outcomes = {type(e.outcome) for e in suite.exchanges} | {b.outcome for b in suite.behaviours}
        assert not outcomes & set(suite.cannot), suite.kind
        dialect = dialect_of(suite)
        if Throttled in suite.cannot:
            assert type(dialect).throttled is Dialect.throttled, "only a proxy in front of it asks for a rest"
        if Temporary in suite.cannot:
            assert type(dialect).failed is Dialect.failed


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
    assert read_body(requests[0]) == exchange.body
    assert requests[0].headers.items() >= exchange.headers.items()


@pytest.mark.parametrize(("suite", "behaviour"), BEHAVIOURS)
def test_behaviour(suite: Suite, behaviour: Behaviour, simulator: Simulator, new_token: Callable[[], str]) -> None:
    token = suite.token(new_token())
    simulator.add_faults(*({**rule, "device": token} for rule in behaviour.faults))
    config = (behaviour.config or suite.config)(simulator.url, token, behaviour.deadlines)
    outcome = registry.driver_for(suite.kind).connect(config).send(replace(outgoing(), attempt=behaviour.attempt))
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
    if suite.carries_numbers:
        assert (entries[0]["message"], entries[0]["attempt"]) == (1, behaviour.attempt)


@each_suite
def test_the_device_works_on_after_each_failure(
    suite: Suite, simulator: Simulator, new_token: Callable[[], str]
) -> None:
    token = suite.token(new_token())
    client = client_of(suite, simulator.url, token, HASTY)
    for number, fault in enumerate(("reset", "hang", "broken_json", "error", "throttle"), start=1):
        simulator.add_faults({"fault": fault, "device": token, "count": 1})
        assert not isinstance(client.send(outgoing(2 * number)), Accepted)
        assert isinstance(client.send(outgoing(2 * number + 1)), Accepted)


DEDUPING = [suite for suite in SUITES if registry.driver_for(suite.kind).id_semantics == "dedups"]
SEARCHABLE = [suite for suite in SUITES if hasattr(client_of(suite, "http://127.0.0.1:1", "t"), "look_up")]


def test_a_claim_about_ids_has_its_proof() -> None:
    for suite in SUITES:
        driver = registry.driver_for(suite.kind)
        assert driver.id_semantics == "none" or driver.id_proof, suite.kind
        can_be_searched = hasattr(client_of(suite, "http://127.0.0.1:1", "t"), "look_up")
        assert can_be_searched or driver.id_semantics != "searchable", suite.kind


@pytest.mark.parametrize("suite", DEDUPING, ids=lambda suite: suite.kind)
def test_gateways_that_dedup_deliver_a_repeated_reference_once(
    suite: Suite, simulator: Simulator, new_token: Callable[[], str]
) -> None:
    token = suite.token(new_token())
    client = client_of(suite, simulator.url, token)
    simulator.add_faults({"fault": "reset", "phase": "after", "device": token, "count": 1})
    assert isinstance(client.send(outgoing(1)), Unknown)
    again, once_more = client.send(outgoing(1)), client.send(outgoing(1))
    assert isinstance(again, Accepted)
    assert again == once_more
    assert [entry["delivered"] for entry in simulator.landed(token)] == [True, False, False]
    assert client.send(outgoing(2)) != again


@pytest.mark.parametrize("suite", SEARCHABLE, ids=lambda suite: suite.kind)
def test_a_message_is_found_by_its_reference(suite: Suite, simulator: Simulator, new_token: Callable[[], str]) -> None:
    token = suite.token(new_token())
    client = client_of(suite, simulator.url, token, HASTY)
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
    token = suite.token(new_token())
    client = client_of(suite, simulator.url, token, HASTY)
    assert client.check() == Accepted()
    for fault in ("hang", "reset", "broken_json", "error", "throttle"):
        simulator.add_faults({"fault": fault, "on": "check", "device": token, "count": 1})
        assert isinstance(client.check(), Temporary), fault
    simulator.ban(token)
    lost = client.check()
    assert isinstance(lost, SessionLost)
    assert lost.banned is suite.tells_bans
    simulator.unban(token)
    assert client.check() == Accepted()
    assert simulator.of_device(token) == [], "asking for the status sends nothing"


@each_suite
def test_one_client_serves_many_threads(suite: Suite, simulator: Simulator, new_token: Callable[[], str]) -> None:
    token = suite.token(new_token())
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
            config = (behaviour.config or suite.config)(simulator.url, token, behaviour.deadlines)
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
