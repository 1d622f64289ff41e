"""The WAHA driver's part of the conformance suite."""

from __future__ import annotations

import json
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
from devices.gateways.whatsmeow import REACHOUT_REST_SECONDS
from tests.devices.gateways.conformance import HASTY, SHORT, Behaviour, Exchange, Suite, media

HEADERS = {"x-api-key": "simulated-key", "content-type": "application/json"}
TEXT = Outgoing(message_id=7, attempt=1, reference="7-1-aaaaaaaaaaaa", phone="+628110000001", text="Halo, Ayu 👋")
TEXT_BODY = {"session": "s3cret/tok en", "chatId": "628110000001@c.us", "text": "Halo, Ayu 👋"}


def _config(url: str, token: str, deadlines: Deadlines) -> DeviceConfig:
    return DeviceConfig(41, url, {"session": token, "api_key": "simulated-key"}, deadlines=deadlines)


def _stranger(url: str, token: str, deadlines: Deadlines) -> DeviceConfig:
    return DeviceConfig(41, url, {"session": token, "api_key": "guessed"}, deadlines=deadlines)


def _text(name: str, status: int, answer: Any, outcome: Outcome) -> Exchange:
    raw = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
    return Exchange(name, TEXT, "POST", "/api/sendText", TEXT_BODY, HEADERS, status, raw, outcome)


def _media(kind: str, path: str, mime: str, extra: dict[str, Any], *, text: str = "a caption") -> Exchange:
    outgoing = Outgoing(8, 1, "8-1-aaaaaaaaaaaa", "+628110000002", text, kind, media(mime, "a.bin"))  # type: ignore[arg-type]
    file = {"mimetype": mime, "filename": "a.bin", "data": "AP8NCi0teA=="}
    body = {"session": "s3cret/tok en", "chatId": "628110000002@c.us", "file": file, **extra}
    answer = b'{"key":{"id":"3EB0BB22"},"status":"PENDING"}'
    return Exchange(f"{kind} goes along", outgoing, "POST", path, body, HEADERS, 201, answer, Accepted("3EB0BB22"))


NONSENSE = Unknown("broken_answer", "The gateway answered HTTP 201 and a body that makes no sense.")
LOGGED_OUT = SessionLost("logged_out", "The device is not linked to a phone: pair it again.")
LOCKED = "WhatsApp lets this account write to no new contacts for a while. People it has written to are not affected."
LOCK = Throttled("463", LOCKED, REACHOUT_REST_SECONDS, "new_contacts")
IN_DOUBT = Unknown("http_500", "The gateway answered HTTP 500, which does not say whether it was sent.")
CAPTION = {"caption": "a caption"}


def _not_working(status: str) -> dict[str, Any]:
    return {"error": "Session status is not as expected", "session": "s", "status": status, "expected": ["WORKING"]}


EXCHANGES = (
    _text("NOWEB", 201, {"key": {"remoteJid": "x", "fromMe": True, "id": "3EB0BB22"}}, Accepted("3EB0BB22")),
    _text("GOWS", 201, {"id": "true_628110000001@c.us_3EB0BB22"}, Accepted("3EB0BB22")),
    _text("WEBJS", 201, {"id": {"_serialized": "true_6281@c.us_3EB0BB22", "id": "3EB0BB22"}}, Accepted("3EB0BB22")),
    _text("WEBJS while its browser is offline", 201, b"", NONSENSE),
    _text("accepted without an id", 201, {"id": {}}, NONSENSE),
    _media("image", "/api/sendImage", "image/jpeg", CAPTION),
    _media("document", "/api/sendFile", "application/pdf", CAPTION),
    _media("video", "/api/sendVideo", "video/mp4", CAPTION),
    _media("audio", "/api/sendVoice", "audio/mpeg", {"convert": True}, text=""),
    _text("logged out", 422, _not_working("SCAN_QR_CODE"), LOGGED_OUT),
    _text("failed", 422, _not_working("FAILED"), LOGGED_OUT),
    _text("starting", 422, _not_working("STARTING"), Temporary("starting", "Not sent: the session is starting.")),
    _text(
        "no such session",
        422,
        {"statusCode": 422, "message": 'Session "s3cret/tok en" does not exist'},
        SessionLost("no_such_session", 'Session "***" does not exist'),
    ),
    _text("wrong key", 401, b"{}", SessionLost("http_401", "The gateway refuses this device's credentials.")),
    _text("rejected", 400, {"message": ["bad", "phone 628110000001"]}, Rejected("http_400", "bad phone …001")),
    _text("rejected as 422", 422, {"message": "no"}, Rejected("http_422", "no")),
    _text("locked", 500, {"statusCode": 500, "exception": {"message": "server returned error 463"}}, LOCK),
    _text("an exception", 500, {"statusCode": 500, "exception": {"message": "Evaluation failed"}}, IN_DOUBT),
    _text("an exception without words", 500, b"oops", IN_DOUBT),
)

BEHAVIOURS = (
    Behaviour("accepted", Accepted, reached=True),
    Behaviour("rejected", Rejected, reached=False, faults=({"fault": "reject"},)),
    Behaviour("temporary", Temporary, reached=False, faults=({"fault": "error", "status": 503},)),
    Behaviour(
        "throttled",
        Throttled,
        reached=False,
        faults=({"fault": "throttle"},),
        details={"retry_after_seconds": REACHOUT_REST_SECONDS, "scope": "new_contacts"},
    ),
    Behaviour("logged out", SessionLost, reached=False, faults=({"fault": "unlink"},), details={"code": "logged_out"}),
    Behaviour("wrong key", SessionLost, reached=False, config=_stranger),
    Behaviour("500 after", Unknown, reached=True, faults=({"fault": "error", "status": 500, "phase": "after"},)),
    Behaviour("broken json", Unknown, reached=True, faults=({"fault": "broken_json"},)),
    Behaviour("silence", Unknown, reached=True, faults=({"fault": "hang"},), deadlines=HASTY),
    Behaviour("drips", Unknown, reached=True, faults=({"fault": "drip", "interval_seconds": 0.1},), deadlines=SHORT),
)

SUITE = Suite(
    kind="waha", config=_config, exchanges=EXCHANGES, behaviours=BEHAVIOURS, creates=True, device_news=True
)  # fmt: skip
