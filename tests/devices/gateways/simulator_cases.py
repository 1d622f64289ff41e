"""The simulator driver's part of the conformance suite."""

from __future__ import annotations

from devices.gateways.base import (
    Accepted,
    Deadlines,
    DeviceConfig,
    Media,
    Outgoing,
    Rejected,
    SessionLost,
    Temporary,
    Throttled,
    Unknown,
)
from tests.devices.gateways.conformance import HASTY, SHORT, Behaviour, Exchange, Suite

TOKEN = "s3cret/tok en"
PATH = "/sim/v1/devices/s3cret%2Ftok%20en/messages"
TEXT = Outgoing(message_id=7, attempt=2, reference="ref-7", phone="+628110000001", text="Halo, Ayu 👋")
TEXT_BODY = {
    "id": "ref-7",
    "to": "+628110000001",
    "type": "text",
    "text": "Halo, Ayu 👋",
    "message": 7,
    "attempt": 2,
    "sender": "41",
}
PICTURE = Outgoing(
    message_id=8,
    attempt=1,
    reference="ref-8",
    phone="+628110000002",
    text="a caption",
    type="image",
    media=Media(
        mime_type="image/jpeg", filename="a.jpg", size_bytes=1, url="https://example.com/a.jpg", read=lambda: b"x"
    ),
)
PICTURE_BODY = {
    "id": "ref-8",
    "to": "+628110000002",
    "type": "image",
    "text": "a caption",
    "message": 8,
    "attempt": 1,
    "sender": "41",
    "media": {"url": "https://example.com/a.jpg", "mime_type": "image/jpeg", "filename": "a.jpg"},
}
HEADERS = {"content-type": "application/json", "accept-encoding": "identity"}


def _config(url: str, token: str, deadlines: Deadlines) -> DeviceConfig:
    return DeviceConfig(device_id=41, base_url=url, credentials={"token": token}, deadlines=deadlines)


def _text(name: str, status: int, answer: bytes, outcome: object, *answer_headers: str) -> Exchange:
    return Exchange(name, TEXT, "POST", PATH, TEXT_BODY, HEADERS, status, answer, outcome, answer_headers)  # type: ignore[arg-type]


HTTP_STATUS = "The gateway answered HTTP {}, which does not say whether it was sent."
NONSENSE = "The gateway answered HTTP 200 and a body that makes no sense."

EXCHANGES = (
    _text("accepted", 200, b'{"id":"sim-1","status":"accepted"}', Accepted("sim-1")),
    Exchange("picture", PICTURE, "POST", PATH, PICTURE_BODY, HEADERS, 200, b'{"id":"sim-2"}', Accepted("sim-2")),
    _text("accepted without an id", 200, b'{"status":"accepted"}', Unknown("broken_answer", NONSENSE)),
    _text("accepted, not an object", 200, b'["sim-1"]', Unknown("broken_answer", NONSENSE)),
    _text("accepted, empty", 200, b"", Unknown("broken_answer", NONSENSE)),
    _text("accepted, deep nonsense", 200, b"[" * 200_000, Unknown("broken_answer", NONSENSE)),
    _text("rejected", 422, b'{"error":{"code":"no_phone","text":"Nobody."}}', Rejected("no_phone", "Nobody.")),
    _text("rejected, words lost", 422, b"<html>", Rejected("http_422", "The gateway answered HTTP 422.")),
    _text(
        "rejected, echoing our secret",
        422,
        b'{"error":{"code":"x","text":"s3cret/tok en and\\ns3cret%2Ftok%20en and s3cret%2Ftok+en"}}',
        Rejected("x", "*** and *** and ***"),
    ),
    _text("throttled", 429, b'{"error":{"code":"slow","text":"W"}}', Throttled("slow", "W", 7.0), "Retry-After: 7"),
    _text("throttled, no hint", 429, b"", Throttled("http_429", "The gateway answered HTTP 429.", 60.0)),
    _text("logged out", 401, b'{"error":{"code":"unknown","text":"Who?"}}', SessionLost("unknown", "Who?")),
    _text("banned", 401, b'{"error":{"code":"banned","text":"Out."}}', SessionLost("banned", "Out.", banned=True)),
    _text("nothing taken", 503, b'{"error":{"code":"unavailable","text":"Wait."}}', Temporary("unavailable", "Wait.")),
    _text("503 without that promise", 503, b"busy", Unknown("http_503", HTTP_STATUS.format(503))),
    _text("502", 502, b"<html>", Unknown("http_502", HTTP_STATUS.format(502))),
    _text("redirect is not followed", 302, b"", Unknown("http_302", HTTP_STATUS.format(302)), "Location: /elsewhere"),
    _text(
        "wrong address",
        404,
        b"<html>",
        SessionLost("http_404", "Nothing lives at this address: check the gateway address of the device."),
    ),
)

BEHAVIOURS = (
    Behaviour("accepted", Accepted, reached=True),
    Behaviour("accepted, slowly", Accepted, reached=True, faults=({"fault": "latency", "seconds": 0.3},)),
    Behaviour(
        "accepted, in drips",
        Accepted,
        reached=True,
        faults=({"fault": "drip", "interval_seconds": 0.001, "chunk_bytes": 3},),
    ),
    Behaviour(
        "rejected",
        Rejected,
        reached=False,
        faults=({"fault": "reject", "code": "no_such_phone", "text": "Nobody there."},),
        details={"code": "no_such_phone", "text": "Nobody there."},
    ),
    Behaviour("temporary", Temporary, reached=False, faults=({"fault": "error", "status": 503},)),
    Behaviour(
        "throttled",
        Throttled,
        reached=False,
        faults=({"fault": "throttle", "retry_after_seconds": 37},),
        details={"retry_after_seconds": 37.0, "scope": "device"},
    ),
    Behaviour("banned", SessionLost, reached=False, faults=({"fault": "ban"},), details={"banned": True}),
    Behaviour("reset before", Unknown, reached=False, faults=({"fault": "reset", "phase": "before"},)),
    Behaviour("reset after", Unknown, reached=True, faults=({"fault": "reset", "phase": "after"},)),
    Behaviour("500 before", Unknown, reached=False, faults=({"fault": "error", "status": 500},)),
    Behaviour("502 after", Unknown, reached=True, faults=({"fault": "error", "status": 502, "phase": "after"},)),
    Behaviour("503 after", Unknown, reached=True, faults=({"fault": "error", "status": 503, "phase": "after"},)),
    Behaviour("broken json", Unknown, reached=True, faults=({"fault": "broken_json"},)),
    Behaviour(
        "silence before", Unknown, reached=False, faults=({"fault": "hang", "phase": "before"},), deadlines=HASTY
    ),
    Behaviour("silence after", Unknown, reached=True, faults=({"fault": "hang"},), deadlines=HASTY),
    Behaviour("silence, total deadline", Unknown, reached=True, faults=({"fault": "hang"},), deadlines=SHORT),
    Behaviour(
        "drips past the total deadline",
        Unknown,
        reached=True,
        faults=({"fault": "drip", "interval_seconds": 0.1},),
        deadlines=SHORT,
    ),
)

SUITE = Suite(
    kind="simulator",
    config=_config,
    exchanges=EXCHANGES,
    behaviours=BEHAVIOURS,
    carries_numbers=True,
    tells_bans=True,
)
