"""Wablas's part of the conformance suite."""

from __future__ import annotations

from typing import Any

from devices.gateways.base import Accepted, Deadlines, DeviceConfig, Outcome, Outgoing, Rejected, Temporary, Throttled
from devices.gateways.wablas import LOGGED_OUT, WORDS
from tests.devices.gateways.common_cases import (
    LINK,
    NONSENSE,
    NOWHERE,
    TEXT,
    behaviours,
    media,
    unclear,
)
from tests.devices.gateways.conformance import Exchange, Suite

TOKEN = "s3cret/tok en"
HEADERS = {"content-type": "application/x-www-form-urlencoded", "authorization": f"{TOKEN}.k3y"}
TEXT_FORM = {"phone": "628110000001", "ref_id": "7-1-abcdefabcdef", "message": "Halo & ayo 👋"}
MEDIA_FORM = {"phone": "628110000002", "ref_id": "8-1-abcdefabcdef"}
QUEUED = b'{"status":true,"message":"Pending","data":{"quota":88,"messages":[{"id":"0f0e-01","status":"pending"}]}}'
BY_SEVERAL = (
    b'{"status":true,"data":[{"device_id":"A","message":{"id":"0f0e-02","status":"pending"}},{"device_id":"B"}]}'
)


def _config(url: str, token: str, deadlines: Deadlines) -> DeviceConfig:
    credentials = {"token": token, "secret_key": "k3y"}
    return DeviceConfig(device_id=41, base_url=f"{url}/wablas", credentials=credentials, deadlines=deadlines)


def _case(
    name: str,
    answer: bytes,
    outcome: Outcome,
    *headers: str,
    status: int = 200,
    sends: Outgoing = TEXT,
    path: str = "message",
    form: dict[str, Any] = TEXT_FORM,
) -> Exchange:
    target = f"/wablas/api/send-{path}"
    return Exchange(name, sends, "POST", target, form, HEADERS, status, answer, outcome, headers)


def _media(kind: Any, *, caption: bool = True) -> Exchange:
    form = {**MEDIA_FORM, kind: LINK, **({"caption": "a caption"} if caption else {})}
    return _case(
        kind, QUEUED, Accepted("0f0e-01"), sends=media(kind, text="a caption" if caption else ""), path=kind, form=form
    )


def _no(words: str) -> bytes:
    return b'{"status":false,"message":"%s"}' % words.encode()


CREDENTIALS = WORDS[0][1]

EXCHANGES = (
    _case("accepted", QUEUED, Accepted("0f0e-01")),
    _case("accepted, the other way to say it", BY_SEVERAL, Accepted("0f0e-02")),
    _media("image"),
    _media("document"),
    _media("video"),
    _media("audio", caption=False),
    _case("accepted without an id", b'{"status":true,"data":{}}', NONSENSE),
    _case("no status", b'{"message":"hello"}', NONSENSE),
    _case("empty", b"", NONSENSE),
    _case("bad token", _no("token invalid or device expired"), CREDENTIALS, status=500),
    _case("bad secret key", _no("secret key invalid"), CREDENTIALS, status=200),
    _case("logged out", _no("Device disconnected, need to scan QR code again"), LOGGED_OUT, status=500),
    _case("not on whatsapp", _no("phone is not registered"), Rejected("refused", "phone is not registered")),
    _case("an echo of our token", _no(f"not valid: {TOKEN}"), Rejected("refused", "not valid: ***")),
    _case("no reason known", _no("try later"), Temporary("not_sent", "try later"), status=500),
    _case("limit", _no("limit exceeded"), Throttled("limit_exceeded", "Wablas asked for a rest.", 60.0)),
    _case("429", b"", Throttled("http_429", "The gateway asked for a rest.", 9.0), "Retry-After: 9", status=429),
    _case("500 without words", b"<html>", unclear(500), status=500),
    _case("wrong address", b"<html>", NOWHERE, status=404),
)

SUITE = Suite(
    kind="wablas",
    config=_config,
    exchanges=EXCHANGES,
    behaviours=behaviours(banned=False, rejected={"code": "refused"}),
)
