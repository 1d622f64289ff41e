"""The described gateway's part of the conformance suite: the simulator's own format, put into options."""

from __future__ import annotations

from typing import Any

from devices.gateways.base import (
    Accepted,
    Deadlines,
    DeviceConfig,
    Outcome,
    Outgoing,
    Rejected,
    SessionLost,
    Temporary,
    Throttled,
    Unknown,
)
from tests.devices.gateways.common_cases import LINK, NOWHERE, TEXT, behaviours, media, unclear
from tests.devices.gateways.conformance import Exchange, Suite

PATH = "/generic/v1/devices/s3cret%2Ftok%20en/messages"
HEADERS = {"content-type": "application/json", "x-device": "41", "x-key": "s3cret/tok en"}
OPTIONS: dict[str, Any] = {
    "path": "/generic/v1/devices/{secret}/messages",
    "headers": {"X-Device": "{device_id}", "X-Key": "{secret}"},
    "body": {"to": "{phone}", "text": "{text}", "id": "{reference}", "deep": [{"n": 1, "of": "{digits}"}]},
    "media_body": {
        "to": "{phone}", "text": "{text}", "id": "{reference}", "type": "{type}", "media": {"url": "{media_url}"},
    },
    "success": {"statuses": [200], "path": "status", "values": ["accepted"]},
    "external_id": "id",
    "error_code": "error.code",
    "error_text": "error.text",
    "rejected": {"statuses": [400, 422], "words": ["nobody"]},
    "session_lost": {"statuses": [401]},
    "temporary": {"codes": ["unavailable", 17]},
    "check": {
        "path": "/generic/v1/devices/{secret}", "success": {"path": "status", "values": ["connected"]},
    },
}  # fmt: skip
TEXT_BODY = {
    "to": "+628110000001", "text": "Halo & ayo 👋", "id": "7-1-abcdefabcdef", "deep": [{"n": 1, "of": "628110000001"}],
}  # fmt: skip


def _config(url: str, token: str, deadlines: Deadlines) -> DeviceConfig:
    options = OPTIONS
    if not token.isascii() or not token.isprintable():  # a header would not take it; the path does
        options = {**OPTIONS, "headers": {"X-Device": "{device_id}"}}
    return DeviceConfig(41, url, {"secret": token}, options=options, deadlines=deadlines)


def _case(
    name: str,
    answer: bytes,
    outcome: Outcome,
    *headers: str,
    status: int = 200,
    sends: Outgoing = TEXT,
    body: dict[str, Any] = TEXT_BODY,
) -> Exchange:
    return Exchange(name, sends, "POST", PATH, body, HEADERS, status, answer, outcome, headers)


def _media(kind: Any) -> Exchange:
    body = {
        "to": "+628110000002", "text": "a caption", "id": "8-1-abcdefabcdef", "type": kind, "media": {"url": LINK},
    }  # fmt: skip
    return _case(kind, SENT, Accepted("g-1"), sends=media(kind), body=body)


SENT = b'{"id":"g-1","status":"accepted"}'
NO_ID = Unknown("broken_answer", "The gateway answered HTTP 200 without an id for the message.")

EXCHANGES = (
    _case("accepted", SENT, Accepted("g-1")),
    *(_media(kind) for kind in ("image", "document", "video", "audio")),
    _case("accepted without an id", b'{"status":"accepted"}', NO_ID),
    _case("another status", b'{"id":"g-1","status":"queued"}', unclear(200)),
    _case("empty", b"", unclear(200)),
    _case(
        "rejected by status", b'{"error":{"code":"x","text":"No s3cret/tok en"}}', Rejected("x", "No ***"), status=422
    ),
    _case("rejected by words", b'{"error":{"code":5,"text":"Nobody there"}}', Rejected("5", "Nobody there")),
    _case("temporary by code", b'{"error":{"code":17}}', Temporary("17", "The gateway answered HTTP 200.")),
    _case("throttled", b"", Throttled("http_429", "The gateway answered HTTP 429.", 9.0), "Retry-After: 9", status=429),
    _case("logged out", b"", SessionLost("http_401", "The gateway answered HTTP 401."), status=401),
    _case("500", b"{}", unclear(500), status=500),
    _case("wrong address", b"", NOWHERE, status=404),
)

SUITE = Suite(
    kind="generic",
    config=_config,
    exchanges=EXCHANGES,
    behaviours=behaviours(banned=False, rejected={"code": "invalid_phone"}),
)
