"""The wuzapi driver's part of the conformance suite."""

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
from devices.gateways.whatsmeow import REACHOUT_REST_SECONDS, REST_SECONDS
from tests.devices.gateways.conformance import HASTY, SHORT, Behaviour, Exchange, Suite, media

HEADERS = {"token": "s3cret/tok en", "content-type": "application/json"}
TEXT = Outgoing(message_id=7, attempt=1, reference="7-1-aaaaaaaaaaaa", phone="+628110000001", text="Halo, Ayu 👋")
TEXT_BODY = {"Phone": "628110000001", "Body": "Halo, Ayu 👋", "Id": "7-1-aaaaaaaaaaaa"}
ACCEPTED = b'{"code":200,"success":true,"data":{"Details":"Sent","Id":"3EB0DD44","Timestamp":1790000000}}'


def _config(url: str, token: str, deadlines: Deadlines) -> DeviceConfig:
    return DeviceConfig(41, url, {"token": token}, deadlines=deadlines)


def _text(name: str, status: int, answer: Any, outcome: Outcome) -> Exchange:
    raw = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
    return Exchange(name, TEXT, "POST", "/chat/send/text", TEXT_BODY, HEADERS, status, raw, outcome)


def _error(words: str, status: int, outcome: Outcome) -> Exchange:
    return _text(f"{status} {words[:60]}", status, {"code": status, "success": False, "error": words}, outcome)


def _media(kind: str, mime: str, uri: str, extra: dict[str, Any], *, text: str = "a caption") -> Exchange:
    outgoing = Outgoing(8, 1, "8-1-aaaaaaaaaaaa", "+628110000002", text, kind, media(mime, "a.bin"))  # type: ignore[arg-type]
    body = {"Phone": "628110000002", "Id": "8-1-aaaaaaaaaaaa", "MimeType": mime, **extra}
    body[kind.capitalize()] = f"data:{uri};base64,AP8NCi0teA=="
    at = f"/chat/send/{kind}"
    return Exchange(f"{kind} goes along", outgoing, "POST", at, body, HEADERS, 200, ACCEPTED, Accepted("3EB0DD44"))


NONSENSE = Unknown("broken_answer", "The gateway answered HTTP 200 and a body that makes no sense.")
LOGGED_OUT = SessionLost("logged_out", "The device is not linked to a phone: pair it again.")
LOCKED = "WhatsApp lets this account write to no new contacts for a while. People it has written to are not affected."
IN_DOUBT = Unknown("not_confirmed", "The gateway does not know whether WhatsApp took the message.")
OFFLINE = Temporary("not_connected", "Not sent: the gateway's connection to WhatsApp is down.")
OCTETS = "application/octet-stream"
CAPTION = {"Caption": "a caption"}

EXCHANGES = (
    _text("accepted", 200, ACCEPTED, Accepted("3EB0DD44")),
    _text("accepted without an id", 200, {"code": 200, "data": {}}, NONSENSE),
    _text("accepted without data", 200, {"code": 200}, NONSENSE),
    _media("image", "image/jpeg", "image/jpeg", CAPTION),
    _media("document", "application/pdf", OCTETS, {**CAPTION, "FileName": "a.bin"}),
    _media("video", "video/mp4", "video/mp4", CAPTION),
    _media("audio", "audio/ogg", "audio/ogg", {}, text=""),
    _error("missing Phone in Payload of s3cret/tok en", 400, Rejected("http_400", "missing Phone in Payload of ***")),
    _error("unauthorized", 401, SessionLost("http_401", "The gateway refuses this device's credentials.")),
    _error("No session", 500, LOGGED_OUT),
    _error("no session", 500, LOGGED_OUT),
    _error(
        "Failed to upload file: x",
        500,
        Temporary("upload_failed", "Not sent: the file could not be uploaded to WhatsApp."),
    ),
    _error("Error sending message: websocket not connected", 500, OFFLINE),
    _error("error sending message: failed to get LID for PN x", 500, OFFLINE),
    _error(
        "error sending message: the store doesn't contain a device JID",
        500,
        SessionLost("logged_out", "The device is logged out: pair it with its phone again."),
    ),
    _error(
        "error sending message: no LID found for 628110000001@s.whatsapp.net",
        500,
        Rejected("not_on_whatsapp", "This number is not on WhatsApp."),
    ),
    _error(
        "error sending message: message recipient must be a user JID",
        500,
        Rejected("bad_recipient", "WhatsApp does not send to this kind of recipient."),
    ),
    _error(
        "error sending message: info query returned status 429: rate-overlimit",
        500,
        Throttled("rate_overlimit", "WhatsApp asked for a rest.", REST_SECONDS),
    ),
    _error(
        "error sending message: server returned error 463",
        500,
        Throttled("463", LOCKED, REACHOUT_REST_SECONDS, "new_contacts"),
    ),
    _error(
        "error sending message: server returned error 479",
        500,
        Rejected("server_479", "WhatsApp's server refused the message with error 479."),
    ),
    _error("error sending message: timed out waiting for message send response", 500, IN_DOUBT),
    _error("error sending message: websocket disconnected before message send returned response", 500, IN_DOUBT),
    _error("something new", 500, IN_DOUBT),
)

BEHAVIOURS = (
    Behaviour("accepted", Accepted, reached=True, details={"external_id": "ref-1"}),
    Behaviour("rejected", Rejected, reached=False, faults=({"fault": "reject"},)),
    Behaviour(
        "not on WhatsApp", Rejected, reached=False, faults=({"fault": "reject", "code": "not_on_whatsapp"},)
    ),
    Behaviour("temporary", Temporary, reached=False, faults=({"fault": "error", "status": 503},)),
    Behaviour(
        "throttled",
        Throttled,
        reached=False,
        faults=({"fault": "throttle"},),
        details={"retry_after_seconds": REST_SECONDS, "scope": "device"},
    ),
    Behaviour("logged out", SessionLost, reached=False, faults=({"fault": "unlink"},), details={"code": "logged_out"}),
    Behaviour("500 before", Unknown, reached=False, faults=({"fault": "error", "status": 500},)),
    Behaviour("500 after", Unknown, reached=True, faults=({"fault": "error", "status": 500, "phase": "after"},)),
    Behaviour("broken json", Unknown, reached=True, faults=({"fault": "broken_json"},)),
    Behaviour("silence", Unknown, reached=True, faults=({"fault": "hang"},), deadlines=HASTY),
    Behaviour("drips", Unknown, reached=True, faults=({"fault": "drip", "interval_seconds": 0.1},), deadlines=SHORT),
)  # fmt: skip

SUITE = Suite(
    kind="wuzapi",
    config=_config,
    exchanges=EXCHANGES,
    behaviours=BEHAVIOURS,
    token=lambda token: token.encode("ascii", "ignore").decode(),  # it travels in a header
    tells=frozenset({"delivered", "read"}),
    device_news=True,
)
