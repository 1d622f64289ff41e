"""A worker takes no messages while it cannot reach the database."""

from __future__ import annotations

import psycopg2
import pytest
from django.db import connection

from messaging.abstaining import ALIVE, Gate
from messaging.dispatch.pool import Pool
from tests.simulator_process import wait_until

pytestmark = pytest.mark.django_db(transaction=True)


def test_the_gate_closes_while_no_connection_can_be_had_and_opens_by_itself(monkeypatch, tmp_path):
    pool = Pool(size=2)
    gate = Gate(pool)
    pool.execute(ALIVE, {})
    assert gate.is_open()
    pool.close()
    with monkeypatch.context() as patch:
        patch.setitem(connection.settings_dict, "HOST", str(tmp_path))  # nobody listens there
        with pytest.raises(psycopg2.OperationalError):
            pool.execute(ALIVE, {})
        assert not gate.is_open()
        assert not gate.is_open()
    wait_until(gate.is_open, what="the gate to open", seconds=30)
    pool.close()


def test_a_statement_that_fails_is_no_reason(pool):
    gate = Gate(pool)
    with pytest.raises(psycopg2.Error), pool.transaction() as session:
        session.control("SELECT 1 / 0")
    assert gate.is_open()
