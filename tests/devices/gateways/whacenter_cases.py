"""Whacenter's part of the conformance suite."""

from __future__ import annotations

from typing import Any

from devices.gateways.base import Accepted, Deadlines, DeviceConfig, Outcome, Outgoing, Rejected, Temporary, Throttled
from devices.gateways.whacenter import LOGGED_OUT
from tests.devices.gateways.common_cases import LINK, NONSENSE, NOWHERE, TEXT, behaviours, media, unclear
from tests.devices.gateways.conformance import Exchange, Suite

TOKEN = "s3cret/tok en"
HEADERS = {"content-type": "application/x-www-form-urlencoded"}
PATH = "/whacenter/api/send"
TEXT_FORM = {"device_id": TOKEN, "number": "628110000001", "message": "Halo & ayo 👋"}
MEDIA_FORM = {"device_id": TOKEN, "number": "628110000002", "message": "a caption", "file": LINK}
SENT = b'{"status":true,"message":"Message sent"}'


def _config(url: str, token: str, deadlines: Deadlines) -> DeviceConfig:
    return DeviceConfig(
        device_id=41, base_url=f"{url}/whacenter/api", credentials={"device_id": token}, deadlines=deadlines
    )


def _case(
    name: str,
    answer: bytes,
    outcome: Outcome,
    *headers: str,
    status: int = 200,
    sends: Outgoing = TEXT,
    form: dict[str, Any] = TEXT_FORM,
) -> Exchange:
    return Exchange(name, sends, "POST", PATH, form, HEADERS, status, answer, outcome, headers)


def _media(kind: Any, *, text: str = "a caption", **more: str) -> Exchange:
    form = {**MEDIA_FORM, "message": text, **more}
    return _case(kind, SENT, Accepted(), sends=media(kind, text=text), form=form)


EXCHANGES = (
    _case("accepted", SENT, Accepted()),
    _case("accepted, as HTML", SENT, Accepted(), "Content-Type: text/html"),
    _media("image"),
    _media("document"),
    _media("video", type="video"),
    _media("audio", text="", type="audio"),
    _case("no status", b'{"message":"Message sent"}', NONSENSE),
    _case("a status in words", b'{"status":"true"}', NONSENSE),
    _case("no JSON", b"OK", NONSENSE),
    _case("bad number", b'{"status":false,"msg":"Number not valid"}', Rejected("refused", "Number not valid")),
    _case("not connected", b'{"status":false,"message":"device not connected or not found","data":[]}', LOGGED_OUT),
    _case("no reason known", b'{"status":false,"message":"oops"}', Temporary("not_sent", "oops")),
    _case("5xx, whatever it says", b'{"status":false,"message":"oops"}', unclear(500), status=500),
    _case("429", b"", Throttled("http_429", "The gateway asked for a rest.", 9.0), "Retry-After: 9", status=429),
    _case("wrong address", b"<html>", NOWHERE, status=404),
)

SUITE = Suite(
    kind="whacenter",
    config=_config,
    exchanges=EXCHANGES,
    behaviours=behaviours(banned=False, rejected={"code": "refused"}),
    names_messages=False,
    logs_out=False,
)
