"""Connections whose other end vanished are given up: what is asked of the kernel, and that the clients really ask."""

from __future__ import annotations

import socket

import pytest
from django.conf import settings
from django.db import connection

from config.celery import app
from config.lifelines import Patience, broker_options, database_options


@pytest.mark.parametrize("seconds", [1, 2, 5, 10, 60])
def test_probes_end_no_later_than_the_patience_and_one_more_interval(seconds):
    patience = Patience(seconds)
    assert min(patience.idle, patience.interval) >= 1
    assert patience.idle + patience.interval * patience.count <= seconds + max(3, patience.interval)


def test_the_address_of_the_database_has_the_last_word():
    given = {"sslmode": "require", "tcp_user_timeout": "3000", "options": "-c tcp_keepalives_idle=60 -c jit=off"}
    options = database_options(given=given, seconds=10)
    assert (options["sslmode"], options["tcp_user_timeout"]) == ("require", "3000")
    assert options["options"].count("tcp_keepalives_idle=") == 1
    assert options["options"].endswith("-c tcp_keepalives_idle=60 -c jit=off")
    assert "-c tcp_user_timeout=10000" in options["options"]


@pytest.mark.django_db
def test_the_database_takes_them_and_the_driver_knows_them():
    connection.ensure_connection()
    told = connection.connection.get_dsn_parameters()
    seconds = settings.FLOTILLA_SILENCE_SECONDS
    assert told["tcp_user_timeout"] == str(1000 * seconds)
    assert told["keepalives_idle"] == str(Patience(seconds).idle)
    assert "tcp_keepalives_interval" in told["options"]


def test_sockets_to_the_broker_have_them():
    wanted = broker_options(seconds=settings.FLOTILLA_SILENCE_SECONDS)["socket_keepalive_options"]
    with app.connection_for_write() as broker, broker.default_channel.conn_or_acquire() as client:
        found = client.connection_pool.get_connection()
        try:
            sock = found._sock
            assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            assert {name: sock.getsockopt(socket.IPPROTO_TCP, name) for name in wanted} == wanted
        finally:
            client.connection_pool.release(found)
