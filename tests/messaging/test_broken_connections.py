"""A send whose database connections break while the gateway is being called."""

from __future__ import annotations

import threading

import psycopg2
import pytest
from django.db import connection

from messaging.dispatch import statements as sql
from messaging.dispatch.pool import PoolExhausted, is_away, shared_pool
from messaging.dispatch.release import release_next
from messaging.models import Attempt, Stream
from messaging.states import State
from tests.factories import make_batch, make_device, make_user, messages_of
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
