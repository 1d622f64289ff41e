"""Platform devices and sessions in one batch, by the processes that run them, and nothing left running afterwards."""

from __future__ import annotations

from urllib.parse import urlsplit

import psutil
import pytest
from django.db import connection

from devices.models import Device
from devices.session_models import SessionHost
from messaging.models import Attempt, Message
from messaging.states import State
from tests.factories import make_batch, make_pool, make_user
from tests.messaging.corridor import ticking, verdict_on, wait_for_the_end
from tests.messaging.session_support import (
    KIND,
    make_session_device,
    session_host,
    sessions,
    wait_for_shares,
)
from tests.programs import device_worker
from tests.simulator_process import Simulator, wait_until

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.usefixtures("simulated_sessions"),
    pytest.mark.slow,
    pytest.mark.timeout(240),
]

POOL_THREADS = 8


def sockets_to(simulator: Simulator, pid: int) -> int:
    port = urlsplit(simulator.url).port
    return sum(bool(each.raddr) and each.raddr.port == port for each in psutil.Process(pid).net_connections("tcp"))


def database_connections() -> int:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND backend_type LIKE 'client%'"
        )
        return int(cursor.fetchone()[0])


def test_sixty_mixed_devices_deliver_everything_and_leave_nothing_running(simulator, tmp_path):
    owner = make_user()
    pool, platforms = make_pool(owner=owner, devices=40)
    devices = [*platforms, *(make_session_device(owner=owner, pool=pool) for _ in range(20))]
    with (
        session_host(simulator, tmp_path / "one.log", FLOTILLA_SESSION_LINGER_MINUTES="0.02") as first,
        session_host(simulator, tmp_path / "two.log", FLOTILLA_SESSION_LINGER_MINUTES="0.02") as second,
        device_worker(simulator, tmp_path / "platform.log"),
    ):
        wait_for_shares(2, 2)
        before = {pid: psutil.Process(pid).num_threads() for pid in (first.pid, second.pid)}
        with ticking():
            batch = make_batch(owner=owner, devices=devices, leads=240)
            wait_for_the_end(batch, seconds=90)
        # idle: sessions of which nothing is expected are closed, and with them everything that served them
        wait_until(lambda: not sessions(simulator)["online"], what="idle sessions to close", seconds=40)
        for pid, threads in before.items():
            wait_until(lambda pid=pid: sockets_to(simulator, pid) == 0, what="sockets to close")
            wait_until(
                lambda pid=pid, threads=threads: psutil.Process(pid).num_threads() <= threads + POOL_THREADS,
                what="threads of sessions to end",
            )
        in_use = database_connections()
    assert verdict_on(batch, simulator).clean
    assert set(Message.objects.filter(batch=batch).values_list("state", flat=True)) == {State.SENT}
    assert sessions(simulator)["replaced"] == 0
    assert set(Device.objects.values_list("state", "reconnect_failures")) == {("active", 0)}
    assert not SessionHost.objects.exists()
    wait_until(lambda: database_connections() < in_use, what="the workers' database connections to close")
    words = "".join(path.read_text() for path in tmp_path.glob("*.log"))
    assert "device_gone" not in words
    assert "refresh.failed" not in words
    assert "refresh.started" in words
    assert "refresh.succeeded" in words
    attempts = Attempt.objects.filter(message__batch=batch)
    platform, session = attempts.exclude(message__device__gateway=KIND), attempts.filter(message__device__gateway=KIND)
    assert (words.count("'send.platform'"), words.count("'send.session'")) == (platform.count(), session.count())
