"""Callers of the API, for tests: real tokens, the whole middleware, no shortcuts."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from queue import Empty
from typing import Any

from django.contrib.auth.models import User
from django.db import connection
from knox.models import get_token_model
from rest_framework.response import Response
from rest_framework.test import APIClient

from config.celery import app
from tests.factories import make_user

V1 = "/api/v1"


def caller(user: User | None = None, *, role: str = "staff") -> APIClient:
    """A client that sends a token of ``user``, or of a new user with ``role``; the user is its ``user``."""
    user = user or make_user(role=role)
    _, token = get_token_model().objects.create(user=user)
    client = APIClient()
    client.credentials(HTTP_AUTHORIZATION=f"Token {token}")
    client.user = user
    return client


def problem(response: Response, status: int, code: str) -> dict[str, Any]:
    """The problem document of ``response``, checked for everything each of them must have."""
    assert response.status_code == status, response.content
    assert response["Content-Type"] == "application/problem+json"
    body: dict[str, Any] = response.json()
    assert set(body) == {"type", "title", "status", "code", "detail", "errors"}
    assert (body["status"], body["code"]) == (status, code), body
    assert body["type"].startswith("urn:flotilla:problem:")
    assert body["title"]
    assert body["detail"]
    return body


def fields_of(body: dict[str, Any]) -> dict[str, str]:
    """``{field: code}`` of a problem's errors."""
    return {error["field"]: error["code"] for error in body["errors"]}


def published() -> list[tuple[str, dict[str, Any]]]:
    """Takes everything out of the control queue: ``(task name, its arguments)``, oldest first."""
    found = []
    with app.connection_for_read() as broker, closing(broker.SimpleQueue("control")) as queue:
        while True:
            try:
                message = queue.get(block=False)
            except Empty:
                return found
            found.append((message.headers["task"], message.payload[1]))
            message.ack()


@contextmanager
def broker_down() -> Iterator[None]:
    """While inside, publishing meets a port on which nothing listens."""
    before = app.conf.broker_url, app._pool, app.amqp._producer_pool
    app.conf.broker_url, app._pool, app.amqp._producer_pool = "redis://127.0.0.1:1/0", None, None
    try:
        yield
    finally:
        app.conf.broker_url, app._pool, app.amqp._producer_pool = before


def at_once(number: int, work: Callable[[int], Any]) -> list[Any]:
    """``work(0)`` … ``work(number - 1)`` in threads that start together; raises what any of them raised."""
    start, results, errors = threading.Barrier(number), [None] * number, []

    def run(index: int) -> None:
        try:
            start.wait(30)
            results[index] = work(index)
        except BaseException as error:  # noqa: BLE001 - told to the main thread
            errors.append(error)
        finally:
            connection.close()

    threads = [threading.Thread(target=run, args=(index,)) for index in range(number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    if errors:
        raise errors[0]
    return results
