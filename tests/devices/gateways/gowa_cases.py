"""The GOWA driver's part of the conformance suite."""

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

QUERY = "?device_id=s3cret%2Ftok%20en"
HEADERS = {"authorization": "Basic ZmxvdGlsbGE6c2ltdWxhdGVk"}
TEXT = Outgoing(message_id=7, attempt=1, reference="7-1-aaaaaaaaaaaa", phone="+628110000001", text="Halo, Ayu 👋")
AGAIN = Outgoing(message_id=7, attempt=2, reference="7-1-aaaaaaaaaaaa", phone="+628110000001", text="Halo, Ayu 👋")
TEXT_BODY = {"phone": "628110000001", "message": "Halo, Ayu 👋"}
FILE = b"\x00\xff\r\n--x"


def _config(url: str, token: str, deadlines: Deadlines) -> DeviceConfig:
    credentials = {"device_id": token, "username": "flotilla", "password": "simulated"}
    return DeviceConfig(device_id=41, base_url=url, credentials=credentials, deadlines=deadlines)


def _stranger(url: str, token: str, deadlines: Deadlines) -> DeviceConfig:
    credentials = {"device_id": token, "username": "flotilla", "password": "guessed"}
    return DeviceConfig(device_id=41, base_url=url, credentials=credentials, deadlines=deadlines)


def _text(name: str, status: int, answer: Any, outcome: Outcome, *, outgoing: Outgoing = TEXT) -> Exchange:
    raw = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
    return Exchange(name, outgoing, "POST", f"/send/message{QUERY}", TEXT_BODY, HEADERS, status, raw, outcome)


def _refused(code: str, status: int, outcome: Outcome, *, words: str = "W", outgoing: Outgoing = TEXT) -> Exchange:
    return _text(f"{code} {words}", status, {"code": code, "message": words}, outcome, outgoing=outgoing)


def _media(kind: str, path: str, name: str, mime: str, *, fields: dict[str, str], text: str = "a caption") -> Exchange:
    outgoing = Outgoing(8, 1, "8-1-aaaaaaaaaaaa", "+628110000002", text, kind, media(mime, "a.bin"))  # type: ignore[arg-type]
    body = {"phone": "628110000002", **fields, name: ("a.bin", mime, FILE)}
    return Exchange(f"{kind} goes along", outgoing, "POST", f"{path}{QUERY}", body, HEADERS, 200, OK, Accepted("3EB0"))


OK = b'{"code":"SUCCESS","message":"m","results":{"message_id":"3EB0","status":"s"}}'
NONSENSE = Unknown("broken_answer", "The gateway answered HTTP 200 and a body that makes no sense.")
NOT_SENT = Temporary("invalid_jid", "Not sent: the number is not on WhatsApp, or could not be looked up.")
LOCKED = "WhatsApp lets this account write to no new contacts for a while. People it has written to are not affected."
LOCK = Throttled("463", LOCKED, REACHOUT_REST_SECONDS, "new_contacts")
PROXY = Unknown("http_502", "The gateway answered HTTP 502, which does not say whether it was sent.")
IN_DOUBT = Unknown("not_confirmed", "The gateway does not know whether WhatsApp took the message.")
CAPTION = {"caption": "a caption"}

EXCHANGES = (
    _text("accepted", 200, OK, Accepted("3EB0")),
    _media("image", "/send/image", "image", "image/jpeg", fields={**CAPTION, "compress": "false"}),
    _media("document", "/send/file", "file", "application/pdf", fields=CAPTION),
    _media("video", "/send/video", "video", "video/mp4", fields={**CAPTION, "compress": "false"}),
    _media("audio", "/send/audio", "audio", "audio/ogg", fields={}, text=""),
    _text("accepted without an id", 200, {"code": "SUCCESS", "results": {}}, NONSENSE),
    _text("accepted, empty", 200, b"", NONSENSE),
    _refused("VALIDATION_ERROR", 400, Rejected("validation_error", "message: …001"), words="message: 628110000001"),
    _refused("VALIDATION_ERROR", 400, Rejected("validation_error", "our *** back"), words="our s3cret/tok en back"),
    _refused("BAD_REQUEST", 400, Rejected("bad_request", "W")),
    _refused("INVALID_REQUEST", 400, Rejected("invalid_request", "W")),
    _refused("INVALID_JID", 400, NOT_SENT),
    _refused("INVALID_JID", 400, Rejected("not_on_whatsapp", "This number is not on WhatsApp."), outgoing=AGAIN),
    _refused("DEVICE_ID_REQUIRED", 400, SessionLost("device_id_required", "W")),
    _refused("DEVICE_NOT_FOUND", 404, SessionLost("device_not_found", "W")),
    _refused("NOT_FOUND", 404, SessionLost("not_found", "W")),
    _refused("DEVICE_MANAGER_UNAVAILABLE", 503, SessionLost("device_manager_unavailable", "W")),
    _refused(
        "AUTHENTICATION_ERROR",
        401,
        SessionLost("logged_out", "The device is not linked to a phone: pair it again."),
    ),
    _refused("WA_REACHOUT_TIMELOCK", 429, LOCK),
    _refused("INVALID_WA_CLI", 500, Temporary("invalid_wa_cli", "W")),
    _refused("UPLOAD_MEDIA_ERROR", 500, Temporary("upload_media_error", "W")),
    _refused("QR_CHANNEL_ERROR", 500, Temporary("qr_channel_error", "W")),
    _refused("SESSION_SAVED_ERROR", 500, Temporary("session_saved_error", "W")),
    _refused("WEBHOOK_ERROR", 500, Temporary("webhook_error", "W")),
    _refused("INTERNAL_SERVER_ERROR", 500, IN_DOUBT),
    _refused("INTERNAL_SERVER_ERROR", 500, LOCK, words="server returned error 463"),
    _refused(
        "INTERNAL_SERVER_ERROR",
        500,
        Temporary("not_connected", "Not sent: the gateway's connection to WhatsApp is down."),
        words="websocket not connected",
    ),
    _refused("CONTEXT_ERROR", 408, Unknown("context_error", "The gateway gave up waiting for WhatsApp.")),
    _refused("GATEWAY_TIMEOUT", 504, Unknown("gateway_timeout", "The gateway gave up waiting for WhatsApp.")),
    _text("log-in", 401, b"Unauthorized", SessionLost("http_401", "The gateway refuses this device's credentials.")),
    _text("a proxy", 502, b"<html>", PROXY),
)  # fmt: skip

BEHAVIOURS = (
    Behaviour("accepted", Accepted, reached=True),
    Behaviour("rejected", Rejected, reached=False, faults=({"fault": "reject"},)),
    Behaviour(
        "not found, first time", Temporary, reached=False, faults=({"fault": "reject", "code": "INVALID_JID"},)
    ),
    Behaviour(
        "not found, second time",
        Rejected,
        reached=False,
        faults=({"fault": "reject", "code": "INVALID_JID"},),
        attempt=2,
    ),
    Behaviour("temporary", Temporary, reached=False, faults=({"fault": "error", "status": 503},)),
    Behaviour(
        "throttled",
        Throttled,
        reached=False,
        faults=({"fault": "throttle"},),
        details={"retry_after_seconds": REACHOUT_REST_SECONDS, "scope": "new_contacts"},
    ),
    Behaviour("logged out", SessionLost, reached=False, faults=({"fault": "unlink"},), details={"code": "logged_out"}),
    Behaviour("wrong password", SessionLost, reached=False, config=_stranger),
    Behaviour("504 after", Unknown, reached=True, faults=({"fault": "error", "status": 504, "phase": "after"},)),
    Behaviour("500 after", Unknown, reached=True, faults=({"fault": "error", "status": 500, "phase": "after"},)),
    Behaviour("broken json", Unknown, reached=True, faults=({"fault": "broken_json"},)),
    Behaviour("silence", Unknown, reached=True, faults=({"fault": "hang"},), deadlines=HASTY),
    Behaviour(
        "drips", Unknown, reached=True, faults=({"fault": "drip", "interval_seconds": 0.1},), deadlines=SHORT
    ),
)  # fmt: skip

SUITE = Suite(
    kind="gowa",
    config=_config,
    exchanges=EXCHANGES,
    behaviours=BEHAVIOURS,
    creates=True,
    tells=frozenset({"delivered", "read"}),
)
