"""The Evolution API driver's part of the conformance suite."""

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
from tests.devices.gateways.conformance import HASTY, SHORT, Behaviour, Exchange, Suite, media

INSTANCE = "s3cret%2Ftok%20en"
HEADERS = {"apikey": "simulated-key", "content-type": "application/json"}
TEXT = Outgoing(message_id=7, attempt=1, reference="7-1-aaaaaaaaaaaa", phone="+628110000001", text="Halo, Ayu 👋")
TEXT_BODY = {"number": "628110000001", "text": "Halo, Ayu 👋"}
ACCEPTED = b'{"key":{"remoteJid":"628110000001@s.whatsapp.net","fromMe":true,"id":"3EB0CC33"},"status":"PENDING"}'


def _config(url: str, token: str, deadlines: Deadlines) -> DeviceConfig:
    return DeviceConfig(41, url, {"instance": token, "apikey": "simulated-key"}, deadlines=deadlines)


def _stranger(url: str, token: str, deadlines: Deadlines) -> DeviceConfig:
    return DeviceConfig(41, url, {"instance": token, "apikey": "guessed"}, deadlines=deadlines)


def _text(name: str, status: int, answer: Any, outcome: Outcome) -> Exchange:
    raw = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
    return Exchange(name, TEXT, "POST", f"/message/sendText/{INSTANCE}", TEXT_BODY, HEADERS, status, raw, outcome)


def _error(status: int, message: Any) -> dict[str, Any]:
    return {"status": status, "error": "Error", "response": {"message": message}}


def _media(kind: str, path: str, extra: dict[str, Any], *, text: str = "a caption") -> Exchange:
    outgoing = Outgoing(8, 1, "8-1-aaaaaaaaaaaa", "+628110000002", text, kind, media("a/b", "a.bin"))  # type: ignore[arg-type]
    body = {"number": "628110000002", **extra}
    at = f"{path}/{INSTANCE}"
    return Exchange(f"{kind} goes along", outgoing, "POST", at, body, HEADERS, 201, ACCEPTED, Accepted("3EB0CC33"))


FILE = {"mimetype": "a/b", "fileName": "a.bin", "caption": "a caption", "media": "AP8NCi0teA=="}
NONSENSE = Unknown("broken_answer", "The gateway answered HTTP 201 and a body that makes no sense.")
IN_DOUBT = Unknown("http_400", "Evolution API answered with an error that it also gives after sending.")
SILENT = Unknown("http_500", "The gateway answered HTTP 500, which does not say whether it was sent.")
OFFLINE = Temporary("not_connected", "Not sent: the instance is not connected to WhatsApp.")
NOBODY = Rejected("not_on_whatsapp", "This number is not on WhatsApp.")
GONE = SessionLost("no_such_instance", "Evolution API knows no such instance: pair it to make it.")

EXCHANGES = (
    _text("accepted", 201, ACCEPTED, Accepted("3EB0CC33")),
    _text("accepted without an id", 201, {"key": {}}, NONSENSE),
    _text("accepted, empty", 201, b"", NONSENSE),
    _media("image", "/message/sendMedia", {**FILE, "mediatype": "image"}),
    _media("document", "/message/sendMedia", {**FILE, "mediatype": "document"}),
    _media("video", "/message/sendMedia", {**FILE, "mediatype": "video"}),
    _media("audio", "/message/sendWhatsAppAudio", {"audio": "AP8NCi0teA=="}, text=""),
    _text("not on WhatsApp", 400, _error(400, [{"jid": "x", "exists": False, "number": "6"}]), NOBODY),
    _text(
        "the schema's complaint",
        400,
        _error(400, [['requires property "text"', "s3cret/tok en"]]),
        Rejected("invalid_request", 'requires property "text"; ***'),
    ),
    _text("closed in the middle", 400, _error(400, ["Error: Connection Closed"]), IN_DOUBT),
    _text("timed out", 400, _error(400, ["Error: Timed Out"]), IN_DOUBT),
    _text("400 without words", 400, b"<html>", IN_DOUBT),
    _text("closed before", 500, _error(500, "Connection Closed"), OFFLINE),
    _text("never opened", 500, _error(500, "Cannot read properties of undefined (reading 'id')"), OFFLINE),
    _text("500", 500, _error(500, "Internal Server Error"), SILENT),
    _text("no such instance", 404, _error(404, ['The "x" instance does not exist']), GONE),
    _text("key", 401, _error(401, "x"), SessionLost("http_401", "The gateway refuses this device's credentials.")),
)

BEHAVIOURS = (
    Behaviour("accepted", Accepted, reached=True),
    Behaviour("not on WhatsApp", Rejected, reached=False, faults=({"fault": "reject"},)),
    Behaviour("schema", Rejected, reached=False, faults=({"fault": "reject", "code": "schema"},)),
    Behaviour("logged out", Temporary, reached=False, faults=({"fault": "unlink"},)),
    Behaviour("wrong key", SessionLost, reached=False, config=_stranger),
    Behaviour("400 before", Unknown, reached=False, faults=({"fault": "error", "status": 500},)),
    Behaviour("400 after", Unknown, reached=True, faults=({"fault": "error", "status": 500, "phase": "after"},)),
    Behaviour("broken json", Unknown, reached=True, faults=({"fault": "broken_json"},)),
    Behaviour("silence", Unknown, reached=True, faults=({"fault": "hang"},), deadlines=HASTY),
    Behaviour("drips", Unknown, reached=True, faults=({"fault": "drip", "interval_seconds": 0.1},), deadlines=SHORT),
)

SUITE = Suite(
    kind="evolution",
    config=_config,
    exchanges=EXCHANGES,
    behaviours=BEHAVIOURS,
    cannot={Throttled: "no answer of it asks for a rest: src/exceptions/ has no such status, and Baileys names none"},
    tells_bans=True,
    creates=True,
    device_news=True,
)
