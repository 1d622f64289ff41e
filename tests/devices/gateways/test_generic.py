"""A gateway described by options: what is wrong is named, what is sent is as described."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from devices.gateways import registry
from devices.gateways.base import Accepted, Client, DeviceConfig, Rejected, SessionLost
from devices.gateways.generic_options import problems_of
from tests.devices.gateways.common_cases import TEXT, media
from tests.devices.gateways.conformance import PATIENT
from tests.devices.gateways.generic_cases import OPTIONS
from tests.devices.gateways.raw_server import Connection, raw_server

LEAST: dict[str, Any] = {"path": "/send", "body": {"to": "{phone}", "text": "{text}"}}


def client(url: str, options: dict[str, Any]) -> Client:
    credentials = {"secret": "s3cret&", "username": "ayu"}
    config = DeviceConfig(41, url, credentials, options=options, deadlines=PATIENT)
    return registry.driver_for("generic").connect(config)


def test_options_that_make_sense() -> None:
    assert problems_of(LEAST) == ()
    assert problems_of(OPTIONS) == ()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"path": None}, "path: write a text"),
        ({"path": "send"}, "path: write a path below"),
        ({"path": "@evil.example/"}, "path: write a path below"),
        ({"path": "//evil.example/"}, "path: write a path below"),
        ({"path": "/{token}"}, "path: there is no {token} here"),
        ({"body": "text"}, "body: write an object"),
        ({"body": {"a": [{"b": "{words}"}]}}, "body.a.0.b: there is no {words} here"),
        ({"method": "DELETE"}, "method: write one of POST, PUT, GET"),
        ({"format": "xml"}, "format: write one of json, form, query"),
        ({"format": "form", "body": {"a": {}}}, "body: a form or a query holds texts only"),
        ({"method": "GET"}, "format: a GET has no body"),
        ({"headers": {"Host": "x"}}, "headers: “Host” cannot be set"),
        ({"headers": {"X": "a\nb"}}, "headers.X: write a text on one line"),
        ({"headers": {"X": "{text}"}}, "headers.X: there is no {text} here"),
        ({"success": {"path": "a"}}, "success: path and values belong together"),
        ({"success": {"statuses": ["200"]}}, "success.statuses: write a list of HTTP statuses"),
        ({"rejected": {}}, "rejected: name at least one"),
        ({"rejected": {"code": [1]}}, "rejected.code: there is no such part"),
        ({"throttled": {"words": [None]}}, "throttled.words: write a list"),
        ({"check": {}}, "check.path: write a text"),
        ({"url": "https://evil.example"}, "url: there is no such option; there are path, method"),
    ],
)
def test_an_option_that_makes_no_sense_is_named(change: dict[str, Any], words: str) -> None:
    (problem,) = problems_of({**LEAST, **change})
    assert problem.startswith(words)
    refused = client("http://127.0.0.1:1", {**LEAST, **change}).send(TEXT)
    assert isinstance(refused, SessionLost)
    assert refused.code == "bad_options"


def test_what_is_missing_is_named() -> None:
    assert problems_of({}) == ("path: it is required.", "body: it is required.")


@pytest.mark.parametrize(
    ("options", "method", "path", "body"),
    [
        ({}, "POST", "/send", b'{"to":"+628110000001","text":"a\\"b {phone}\\n&"}'),
        ({"format": "form"}, "POST", "/send", b"to=%2B628110000001&text=a%22b+%7Bphone%7D%0A%26"),
        ({"format": "form", "method": "PUT", "body": {"n": 1, "b": True}}, "PUT", "/send", b"n=1&b=true"),
        (
            {"format": "query", "method": "GET", "path": "/send?key={secret}"},
            *("GET", "/send?key=s3cret%26&to=%2B628110000001&text=a%22b+%7Bphone%7D%0A%26", b""),
        ),
        ({"path": "/u/{username}/{text}", "body": {}}, "POST", "/u/ayu/a%22b%20%7Bphone%7D%0A%26", b"{}"),
    ],
)
def test_what_is_sent(options: dict[str, Any], method: str, path: str, body: bytes) -> None:
    """A person's words are never taken for a placeholder, a parameter or a part of the path."""

    def script(connection: Connection) -> None:
        while connection.request():
            connection.answer(204, b"")

    with raw_server(script) as server:
        sent = client(server.url, {**LEAST, **options}).send(replace(TEXT, text='a"b {phone}\n&'))
        (request,) = server.requests
    assert sent == Accepted()
    assert (request.method, request.path, request.body) == (method, path, body)


def test_attachments_need_a_description() -> None:
    refused = client("http://127.0.0.1:1", LEAST).send(media("image"))
    assert refused == Rejected("not_supported", "This device's options describe no image.")


def test_without_a_described_check_a_device_is_taken_to_be_able() -> None:
    assert client("http://127.0.0.1:1", LEAST).check() == Accepted()
