"""A process that sleeps in the middle of a transaction does not keep what it locked."""

from __future__ import annotations

import psycopg2
import pytest
from django.conf import settings
from django.db import connection

from messaging.dispatch.pool import Pool, is_away
from messaging.dispatch.prepared import Statement
from tests.factories import make_device, make_user

pytestmark = pytest.mark.django_db(transaction=True)

RENAME = Statement(
    "test_rename", "UPDATE devices_device SET hold_reason = %(reason)s WHERE id = %(device)s RETURNING hold_reason"
)
SHOW = Statement("test_show", "SELECT current_setting('idle_in_transaction_session_timeout')::interval")


def test_every_connection_knows_how_long_a_transaction_may_sleep() -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT current_setting('idle_in_transaction_session_timeout')::interval")
        (django,) = cursor.fetchone()
    pool = Pool(size=1)
    ours = pool.execute(SHOW, {})[0][0]
    pool.close()
    assert django.total_seconds() == ours.total_seconds() == settings.FLOTILLA_IDLE_TRANSACTION_SECONDS
    assert 0 < settings.FLOTILLA_IDLE_TRANSACTION_SECONDS < settings.FLOTILLA_LEASE_SECONDS


def test_others_get_its_rows_and_it_hears_of_it_when_it_wakes() -> None:
    device = make_device(owner=make_user())
    pool = Pool(size=2)

    def sleep_while_another_renames() -> None:
        with pool.transaction() as sleeper:
            sleeper.control("SET LOCAL idle_in_transaction_session_timeout = '200ms'")
            sleeper.execute(RENAME, {"device": device.pk, "reason": "asleep"})
            assert pool.execute(RENAME, {"device": device.pk, "reason": "awake"}) == [("awake",)]  # waits, and gets it
            sleeper.execute(RENAME, {"device": device.pk, "reason": "asleep again"})

    try:
        with pytest.raises(psycopg2.Error) as raised:
            sleep_while_another_renames()
    finally:
        pool.close()
    assert is_away(raised.value)
    device.refresh_from_db()
    assert device.hold_reason == "awake"
