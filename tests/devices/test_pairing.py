"""Linking devices to phones: platforms over HTTP, and sessions of our own by a child process."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import psutil
import pytest
from django.db import connection
from django.utils import timezone

from config.celery import app
from devices import pairing, pairing_run, session_store
from devices.gateways import registry
from devices.gateways.base import Pairing
from devices.models import Device, DeviceState, PairingAttempt, PairingState
from devices.sessions import store_url
from tests.devices.pairing_support import PairableDriver, Phone, gateway
from tests.factories import make_device, make_user

pytestmark = pytest.mark.django_db(transaction=True)

JID = "628110000001:7@s.whatsapp.net"


@pytest.fixture
def platform() -> Iterator[tuple[Device, Phone]]:
    """A device of a gateway that pairs."""
    registry.register(PairableDriver())
    with gateway() as (url, phone):
        yield (
            make_device(
                owner=make_user(), gateway="pairable", base_url=url, credentials={}, state=DeviceState.UNPAIRED
            ),
            phone,
        )
    del registry._BY_KIND["pairable"]


@pytest.fixture
def session() -> Iterator[Device]:
    """A session that is not linked yet. Its proxy is closed, so nothing is ever dialled."""
    yield make_device(owner=make_user(), gateway="whatsapp", credentials={"proxy": "http://127.0.0.1:9"})
    with connection.cursor() as cursor:
        cursor.execute(f"DROP SCHEMA IF EXISTS {session_store.SCHEMA} CASCADE")
    session_store._prepared.clear()


def tasks() -> list[str]:
    """Names of the tasks that wait for workers that pair; takes them away."""
    found = []
    with app.connection_for_read() as broker, broker.SimpleQueue(pairing.QUEUE) as queue:
        while True:
            try:
                message = queue.get(block=False)
            except queue.Empty:
                return found
            message.ack()
            found.append(message.headers["task"])


def later(seconds: float) -> Any:
    return timezone.now() + timedelta(seconds=seconds)


def refused(call: Any, code: str) -> None:
    with pytest.raises(pairing.CannotPair) as caught:
        call()
    assert caught.value.code == code


def test_a_platform_s_device_is_followed_from_the_code_to_the_link(platform: tuple[Device, Phone]) -> None:
    device, phone = platform
    attempt = pairing.start(device=device, now=timezone.now())
    assert (attempt.state, attempt.qr) == (PairingState.QR, "2@far,side")

    # However many pages look at once, the gateway is asked once.
    phone.requests.clear()
    now = later(5)

    def look(_: int) -> None:
        pairing.follow(attempt=PairingAttempt.objects.get(pk=attempt.pk), now=now)
        connection.close()

    with ThreadPoolExecutor(8) as pages:
        list(pages.map(look, range(8)))
    assert phone.requests == [("GET", "/pair")]

    phone.status = "connected"
    attempt = pairing.follow(attempt=attempt, now=later(10))
    assert (attempt.state, attempt.qr) == (PairingState.CONNECTED, "")
    device.refresh_from_db()
    assert (device.state, device.phone) == (DeviceState.ACTIVE, "+628110000001")
    # What ended stays ended.
    assert not pairing.show(attempt_id=attempt.pk, pairing=Pairing("qr", qr="x"), now=later(11))


def test_by_phone_code_and_a_new_attempt_stops_the_one_before(platform: tuple[Device, Phone]) -> None:
    device, _phone = platform
    first = pairing.start(device=device, now=timezone.now())
    second = pairing.start(device=device, now=timezone.now(), phone="+62 811-0000-001")
    assert (second.state, second.code, second.phone) == (PairingState.CODE, "ABCD-EFGH", "+628110000001")
    first.refresh_from_db()
    assert first.state == PairingState.STOPPED
    refused(lambda: pairing.start(device=device, now=timezone.now(), phone="12"), "bad_phone")
    third = pairing.follow(attempt=second, now=later(pairing.GATEWAY_SECONDS + 5))
    assert (third.state, third.code) == (PairingState.EXPIRED, "")
    refused(lambda: pairing.start(device=make_device(owner=device.owner), now=timezone.now()), "not_pairable")
    refused(lambda: pairing.clear_session(device=device, now=timezone.now()), "no_session")


def test_a_platform_s_device_is_logged_out_at_its_gateway_or_not_at_all(platform: tuple[Device, Phone]) -> None:
    device, phone = platform
    Device.objects.update(state=DeviceState.ACTIVE)
    phone.status = "busy"
    refused(lambda: pairing.log_out(device=device, now=timezone.now()), "refused")
    device.refresh_from_db()
    assert device.state == DeviceState.ACTIVE
    phone.status = "connected"
    attempt = pairing.reset(device=device, now=timezone.now())
    assert ("POST", "/log-out") in phone.requests
    assert attempt.state == PairingState.QR
    device.refresh_from_db()
    assert device.state == DeviceState.UNPAIRED


def test_a_new_session_sends_nothing_before_it_is_linked(session: Device) -> None:
    assert session.state == DeviceState.UNPAIRED
    tasks()
    attempt = pairing.start(device=session, now=timezone.now())
    assert tasks() == [pairing.PAIR_TASK]
    assert pairing.show(attempt_id=attempt.pk, pairing=Pairing("qr", qr="2@a,b"), now=timezone.now())
    assert pairing.connected(attempt_id=attempt.pk, now=timezone.now(), phone="+628110000001", jid=JID)
    session.refresh_from_db()
    assert (session.state, session.session_phone) == (DeviceState.ACTIVE, "+628110000001")
    assert session.credentials == {"proxy": "http://127.0.0.1:9", "jid": JID}
    refused(lambda: pairing.start(device=session, now=timezone.now()), "already_linked")

    pairing.clear_session(device=session, now=timezone.now())
    session.refresh_from_db()
    assert (session.state, session.session_phone) == (DeviceState.UNPAIRED, "")
    assert session.credentials == {"proxy": "http://127.0.0.1:9"}


def test_one_number_is_the_session_of_one_device(session: Device) -> None:
    other = make_device(owner=make_user(), gateway="whatsapp", credentials={})
    attempts = [pairing.start(device=device, now=timezone.now()) for device in (session, other)]
    linked = [
        pairing.connected(
            attempt_id=attempt.pk, now=timezone.now(), phone="+628110000001", jid=JID.replace("7", str(n))
        )
        for n, attempt in enumerate(attempts, 1)
    ]
    assert linked == [True, False]
    attempts[1].refresh_from_db()
    assert (attempts[1].state, attempts[1].text) == (PairingState.FAILED, pairing.LINKED_ELSEWHERE)
    other.refresh_from_db()
    assert (other.state, other.credentials) == (DeviceState.UNPAIRED, {})


def test_an_attempt_that_nobody_runs_fails_by_itself(session: Device) -> None:
    attempt = pairing.start(device=session, now=timezone.now())
    attempt = pairing.follow(attempt=attempt, now=later(pairing.SILENT_SECONDS - 5))
    assert attempt.ended_at is None
    attempt = pairing.follow(attempt=attempt, now=later(pairing.SILENT_SECONDS + 5))
    assert (attempt.state, attempt.problem) == (PairingState.FAILED, "no_worker")
    assert "-Q pairing" in attempt.text
    pairing_run.run(attempt_id=attempt.pk)  # a task that comes late does nothing
    assert not children()


def test_the_child_pairs_with_the_real_library_as_far_as_there_is_a_network(session: Device) -> None:
    attempt = pairing.start(device=session, now=timezone.now())
    pairing_run.run(attempt_id=attempt.pk)
    attempt.refresh_from_db()
    assert attempt.state == PairingState.FAILED
    assert "could not be reached" in attempt.text
    assert not session_store.holds(store_url(), jid=JID), "its store was made, with nothing in it"
    assert not children()

    # Logging out a session whose row is gone is done at once, and aborts nothing.
    session.credentials = {**session.credentials, "jid": JID}
    session.save(update_fields=["credentials"])
    pairing.log_out(device=session, now=timezone.now())
    pairing_run.log_out(device_id=session.pk)
    session.refresh_from_db()
    assert (session.state, dict(session.credentials)) == (DeviceState.UNPAIRED, {"proxy": "http://127.0.0.1:9"})
    assert not children()


def test_a_child_that_hangs_is_killed_when_somebody_stops_the_attempt(session: Device) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        session.credentials = {"proxy": f"http://127.0.0.1:{server.getsockname()[1]}"}
        session.save(update_fields=["credentials"])
        attempt = pairing.start(device=session, now=timezone.now())

        def run() -> None:
            pairing_run.run(attempt_id=attempt.pk)
            connection.close()

        runner = threading.Thread(target=run)
        runner.start()
        server.settimeout(60)
        with server.accept()[0]:  # it dials, and nobody answers
            assert pairing.stop(device=session, now=timezone.now())
            runner.join(60)
            assert not runner.is_alive()
    attempt.refresh_from_db()
    assert attempt.state == PairingState.STOPPED
    assert not children()


def children() -> list[str]:
    """Processes of ours that pair."""
    found = []
    for process in psutil.Process(os.getpid()).children(recursive=True):
        try:
            if pairing_run.CHILD in process.cmdline():
                found.append(str(process))
        except psutil.NoSuchProcess:
            continue
    return found
