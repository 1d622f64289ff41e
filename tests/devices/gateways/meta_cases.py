"""Meta's part of the conformance suite."""

from __future__ import annotations

import json
from dataclasses import replace
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
from tests.devices.gateways.common_cases import (
    LINK,
    NONSENSE,
    NOWHERE,
    REFUSED,
    TEMPLATE,
    TEXT,
    behaviours,
    media,
    unclear,
)
from tests.devices.gateways.conformance import Exchange, Suite

TOKEN = "s3cret/tok en"
HEADERS = {"content-type": "application/json", "authorization": f"Bearer {TOKEN}"}
PATH = "/meta/v23.0/200/messages"
SENT = b'{"messaging_product":"whatsapp","messages":[{"id":"wamid.A1","message_status":"accepted"}]}'
FILLED = [{"type": "text", "text": "Ayu"}, {"type": "text", "text": "4711"}]
PICTURE_HEADER = {"type": "header", "parameters": [{"type": "image", "image": {"link": LINK}}]}
BODY = {"type": "body", "parameters": FILLED}


def _config(url: str, token: str, deadlines: Deadlines) -> DeviceConfig:
    credentials = {"access_token": token, "phone_number_id": "200", "app_secret": "app-s3cret"}
    return DeviceConfig(device_id=41, base_url=f"{url}/meta", credentials=credentials, deadlines=deadlines)


def _case(
    name: str,
    answer: bytes,
    outcome: Outcome,
    *headers: str,
    status: int = 200,
    sends: Outgoing = TEXT,
    content: dict[str, Any] | None = None,
) -> Exchange:
    body = {
        "messaging_product": "whatsapp",
        "recipient_type": "individual",
        "to": sends.phone[1:],
        "type": sends.type,
        sends.type: content or {"body": sends.text, "preview_url": False},
        "biz_opaque_callback_data": sends.reference,
    }
    return Exchange(name, sends, "POST", PATH, body, HEADERS, status, answer, outcome, headers)


def _sent(name: str, sends: Outgoing, content: dict[str, Any]) -> Exchange:
    return _case(name, SENT, Accepted("wamid.A1"), sends=sends, content=content)


def _error(code: int, outcome: Outcome, *headers: str, status: int = 400) -> Exchange:
    answer = json.dumps({"error": {"message": f"(#{code}) Told", "code": code, "error_data": {"details": "why"}}})
    return _case(f"code {code}", answer.encode(), outcome, *headers, status=status)


def _words(code: int) -> tuple[str, str]:
    return f"meta_{code}", f"(#{code}) Told: why"


NAMED = {"name": "order_ready", "language": {"code": "en_US"}}
WITH_PICTURE = replace(TEMPLATE, media=media("image").media)

EXCHANGES = (
    _case("accepted", SENT, Accepted("wamid.A1")),
    _sent("image", media("image"), {"link": LINK, "caption": "a caption"}),
    _sent("document", media("document"), {"link": LINK, "caption": "a caption", "filename": "a.bin"}),
    _sent("video", media("video", text=""), {"link": LINK}),
    _sent("audio", media("audio", text=""), {"link": LINK}),
    _sent("template", TEMPLATE, {**NAMED, "components": [BODY]}),
    _sent("template with a picture", WITH_PICTURE, {**NAMED, "components": [PICTURE_HEADER, BODY]}),
    _case("accepted without an id", b'{"messages":[]}', NONSENSE),
    _case("empty", b"", NONSENSE),
    _error(130429, Throttled(*_words(130429), 7.0), "Retry-After: 7", status=429),
    _error(80007, Throttled(*_words(80007), 60.0)),
    _error(131056, Throttled(*_words(131056), 64.0, scope="lead")),
    _error(131049, Throttled(*_words(131049), 86_400.0, scope="lead")),
    _error(131048, Throttled(*_words(131048), 3600.0)),
    _error(
        131047,
        Rejected("meta_131047", "This person has not written for 24 hours: use a template. ((#131047) Told: why)"),
    ),
    _error(131026, Rejected(*_words(131026))),
    _error(132001, Rejected(*_words(132001)), status=404),
    _error(100, Rejected(*_words(100))),
    _error(190, SessionLost(*_words(190)), status=401),
    _error(215, SessionLost(*_words(215)), status=403),
    _error(133010, SessionLost(*_words(133010))),
    _error(368, SessionLost(*_words(368), banned=True), status=403),
    _error(131000, Temporary(*_words(131000)), status=500),
    _error(1, Unknown(*_words(1)), status=500),
    _error(987654, unclear(500), status=500),
    _error(987654, REFUSED, status=401),
    _case("a code in words", b'{"error":{"code":"190"}}', unclear(400), status=400),
    _case("502", b"<html>", unclear(502), status=502),
    _case("wrong address", b"<html>", NOWHERE, status=404),
)

SUITE = Suite(
    kind="meta",
    config=_config,
    exchanges=EXCHANGES,
    behaviours=behaviours(banned=True, rejected={"code": "meta_131026"}),
    tells_bans=True,
)
