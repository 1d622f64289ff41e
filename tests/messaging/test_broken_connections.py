"""A send whose database connections break while the gateway is being called."""

from __future__ import annotations

import threading

import psycopg2
import pytest
from django.db import connection

from messaging.dispatch import statements as sql
from messaging.dispatch.pool import Pool, PoolExhausted, is_away, shared_pool
from messaging.dispatch.release import release_next
from messaging.dispatch.send import Result
from messaging.models import Attempt, Stream
from messaging.states import State
from tests.api_support import at_once
from tests.factories import make_batch, make_device, make_user, messages_of
from tests.messaging.cutting_proxy import CLAIM, cutting_proxy
from tests.simulator_process import wait_until

pytestmark = pytest.mark.django_db(transaction=True)


def cut_connections() -> int:
    """End every connection of a dispatch pool to the test database; returns how many there were.

    The pool that this process shares among all tests lets go of its own first.
    """
    shared_pool().close()
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(pg_terminate_backend(pid, 5000)) FROM pg_stat_activity "
            "WHERE datname = current_database() AND application_name = 'flotilla-dispatch'"
        )
        return cursor.fetchone()[0]


def test_the_outcome_is_recorded_although_every_connection_broke(sender, simulator):
    owner = make_user()
    device = make_device(owner=owner)
    batch = make_batch(owner=owner, devices=[device], leads=1)
    simulator.add_faults({"fault": "latency", "seconds": 0.5, "phase": "after"})
    released = release_next(device_id=device.pk, pool=sender.pool)
    assert released is not None
    thread = threading.Thread(
        target=sender.send, kwargs={"message_id": released.message_id, "release_no": released.release_no}
    )
    thread.start()
    wait_until(lambda: simulator.summary()["in_flight"] == 1, what="the request")
    assert cut_connections() >= 1
    thread.join(30)
    assert [message.state for message in messages_of(batch)] == [State.SENT]
    assert Attempt.objects.get().outcome == "accepted"
    stream = Stream.objects.get()
    assert (stream.waiting, stream.sent, stream.unknown) == (0, 1, 0)


def test_insisting_ends(pool):
    pool.execute(sql.REOPEN_BATCHES, {})
    assert cut_connections() >= 1
    with pytest.raises(psycopg2.Error) as broken:
        pool.insist(sql.REOPEN_BATCHES, {}, seconds=-1)
    assert is_away(broken.value)
    assert pool.insist(sql.REOPEN_BATCHES, {}, seconds=-1) == []


def test_what_counts_as_away():
    assert is_away(psycopg2.OperationalError())
    assert is_away(psycopg2.InterfaceError())
    assert is_away(psycopg2.DatabaseError("server closed the connection unexpectedly"))
    assert is_away(PoolExhausted())
    assert not is_away(psycopg2.IntegrityError())
    assert not is_away(psycopg2.ProgrammingError())


def test_one_broken_connection_takes_the_idle_ones_with_it():
    pool, barrier = Pool(size=4), threading.Barrier(4)

    def hold(_: int) -> None:
        with pool.transaction() as session:
            session.execute(sql.DUE_DEVICES, {"limit": 1})
            barrier.wait(10)

    at_once(4, hold)  # four connections, all idle now
    assert cut_connections() == 4
    with pytest.raises(psycopg2.Error):
        pool.execute(sql.REOPEN_BATCHES, {})
    for _ in range(4):
        assert pool.execute(sql.REOPEN_BATCHES, {}) == []
    pool.close()


@pytest.fixture
def proxy(sender, monkeypatch):
    """Between the sender's pool and the database."""
    with cutting_proxy() as proxy:
        with monkeypatch.context() as patch:
            patch.setitem(connection.settings_dict, "HOST", str(proxy.folder))
            yield proxy
        sender.pool.close()
        connection.close()  # it may go through the proxy as well


@pytest.mark.parametrize(
    ("mode", "capped"), [("swallow", False), ("swallow", True), ("drop", False), ("drop", True), ("late", False)]
)
def test_a_claim_that_nobody_saw_committed_calls_no_gateway_and_is_taken_back(sender, simulator, proxy, mode, capped):
    owner = make_user()
    device = make_device(owner=owner, **({"cap_per_day": 5, "lanes": 2} if capped else {}))
    batch = make_batch(owner=owner, devices=[device])
    released = release_next(device_id=device.pk, pool=sender.pool)
    # where a cap is counted, the claim is a transaction, and it is the COMMIT whose answer may be lost
    proxy.arm(mode, command=b"COMMIT" if capped else CLAIM)
    assert sender.send(message_id=released.message_id, release_no=released.release_no) is Result.STALE
    if mode == "late":
        proxy.deliver()
    (message,) = messages_of(batch)
    assert (message.state, message.attempts, message.lease_until) == (State.PENDING, 0, None)
    assert simulator.summary()["requests"] == 0
    assert list(Attempt.objects.values_list("outcome", flat=True)) == (["not_sent"] if mode == "swallow" else [])
    stream = Stream.objects.get()
    assert (stream.waiting, stream.is_open) == (1, True)

    again = release_next(device_id=device.pk, pool=sender.pool)
    assert sender.send(message_id=again.message_id, release_no=again.release_no) is Result.DONE
    assert messages_of(batch)[0].state == State.SENT
    assert simulator.summary()["deliveries"] == 1


def test_a_doubled_tasks_claim_is_left_to_whoever_made_it(sender, simulator, proxy):
    owner = make_user()
    batch = make_batch(owner=owner, devices=[make_device(owner=owner)])
    released = release_next(device_id=batch.streams.get().device_id, pool=sender.pool)
    job = sender._peek(released.message_id, released.release_no)  # the double has seen it queued
    assert sender._claim(job, "Hello", 0.0) == (1, False)  # and the other has claimed it
    proxy.arm("drop")
    assert sender._claim(job, "Hello", 0.0) is None
    (message,) = messages_of(batch)
    assert (message.state, message.attempts) == (State.SENDING, 1)
    assert Attempt.objects.get().outcome == ""
