"""A session host that cannot reach its broker gives its sessions to one that can, and gets its share back."""

from __future__ import annotations

from urllib.parse import urlsplit

import pytest
from django.conf import settings as django_settings

from tests.factories import make_batch, make_user
from tests.messaging.corridor import ticking, verdict_on, wait_for_the_end
from tests.messaging.session_support import (
    holders,
    make_session_device,
    session_host,
    sessions,
    wait_for_shares,
)
from tests.proxy import proxy
from tests.simulator_process import wait_until

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.usefixtures("simulated_sessions"),
    pytest.mark.slow,
    pytest.mark.timeout(300),
]


def test_sessions_go_to_the_host_that_hears_and_stay_where_nobody_does(simulator, tmp_path):
    address = urlsplit(django_settings.REDIS_URL)
    owner = make_user()
    devices = [make_session_device(owner=owner) for _ in range(8)]
    with proxy((address.hostname, address.port)) as wire, proxy((address.hostname, address.port)) as other_wire:

        def url(port: int) -> str:
            return address._replace(netloc=f":{address.password}@127.0.0.1:{port}").geturl()

        with (
            session_host(simulator, tmp_path / "one.log", REDIS_URL=url(wire.port)) as first,
            session_host(simulator, tmp_path / "two.log", REDIS_URL=url(other_wire.port)) as second,
            ticking(),
        ):
            wait_for_shares(2, 2)
            wire.shut()
            wait_until(lambda: holders() == {second.pid: 4}, what="the deaf host's shards to move", seconds=60)
            batch = make_batch(owner=owner, devices=devices, leads=16)
            wait_for_the_end(batch, seconds=90)
            other_wire.shut()  # now nobody hears: who holds the sessions keeps them
            deaf = "sessions.broker_not_reached"
            before = (tmp_path / "two.log").read_text().count(deaf)
            wait_until(
                lambda: (tmp_path / "two.log").read_text().count(deaf) >= before + 8, what="deafness", seconds=60
            )
            assert holders() == {second.pid: 4}
            other_wire.open()
            wire.open()
            wait_for_shares(2, 2, seconds=90)
            assert set(holders()) == {first.pid, second.pid}
    assert verdict_on(batch, simulator).clean
    assert sessions(simulator)["replaced"] == 0
