"""Webhooks of WhatsApp gateways as their docs show them: what becomes news, under which name, and what is left out."""

from __future__ import annotations

import hashlib
import hmac
import json
from base64 import urlsafe_b64encode
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlencode

import pytest

from devices.gateways import registry, whatsmeow
from devices.gateways.news import BadSignature, DeviceEvent, Hook, Malformed, News, Receipt, Reply
from devices.gateways.whatsapp_news import digest, moment, reply_text

NOW = datetime(2026, 9, 1, 12, 0, tzinfo=UTC)
SECRET = "a secret of more than thirty-two characters"


def token(*, secret: str = SECRET, alg: str = "HS256", expires: float = NOW.timestamp() + 60) -> str:
    parts = ({"alg": alg, "typ": "JWT"}, {"iat": NOW.timestamp(), "exp": expires})
    signed = b".".join(urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=") for part in parts)
    signature = urlsafe_b64encode(hmac.digest(secret.encode(), signed, "sha256")).rstrip(b"=")
    return f"Bearer {(signed + b'.' + signature).decode()}"


def read(kind: str, event: Any, **headers: str) -> tuple[News, ...]:
    body = event if isinstance(event, bytes) else json.dumps(event).encode()
    signed = {
        "gowa": {"x-hub-signature-256": "sha256=" + hmac.new(SECRET.encode(), body, "sha256").hexdigest()},
        "waha": {"x-webhook-hmac": hmac.new(SECRET.encode(), body, hashlib.sha512).hexdigest()},
        "evolution": {"authorization": token()},
        "wuzapi": {"x-hmac-signature": hmac.new(SECRET.encode(), body, "sha256").hexdigest()},
    }[kind]
    hook = Hook({**signed, **headers}, body, (SECRET,), NOW, device_id=41)
    return registry.driver_for(kind).webhook(hook)


def gowa_message(**changes: Any) -> dict[str, Any]:
    payload = {
        "id": "3EB0", "chat_id": "628110000001@s.whatsapp.net", "from": "628110000001@s.whatsapp.net",
        "timestamp": "2026-09-01T11:59:00Z", "is_from_me": False, "body": "Ya",
    }  # fmt: skip
    return {"event": "message", "device_id": "628550000001@s.whatsapp.net", "payload": {**payload, **changes}}


def gowa_ack(kind: str) -> dict[str, Any]:
    payload = {"ids": ["3EB0AA11", "3EB0AA12"], "chat_id": "x", "receipt_type": kind}
    return {"event": "message.ack", "device_id": "628@s.whatsapp.net", "session_id": "dev-7", "payload": payload}


def test_gowa() -> None:
    read_them = read("gowa", gowa_ack("read"))
    assert [(each.external_id, each.status, each.at) for each in read_them if isinstance(each, Receipt)] == [
        ("3EB0AA11", "read", NOW),
        ("3EB0AA12", "read", NOW),
    ]
    assert len({each.event_id for each in (*read_them, *read("gowa", gowa_ack("delivered")))}) == 4
    assert read("gowa", gowa_ack("played")) == read_them, "played is read"
    for kind in ("sender", "retry", "read-self", "server-error", "tomorrow's"):
        assert read("gowa", gowa_ack(kind)) == ()
    (reply,) = read("gowa", gowa_message())
    assert isinstance(reply, Reply)
    assert (reply.phone, reply.text, reply.at) == ("+628110000001", "Ya", NOW - timedelta(minutes=1))
    (picture,) = read("gowa", gowa_message(body="", image={"path": "x"}))
    assert isinstance(picture, Reply)
    assert picture.text == "[image]"
    for change in (
        {"is_from_me": True},
        {"chat_id": "628110000001-1@g.us"},
        {"from": "77@lid", "chat_id": "77@lid"},
        {"chat_id": "status@broadcast"},
    ):
        assert read("gowa", gowa_message(**change)) == (), change


def waha(event: str, payload: dict[str, Any]) -> tuple[News, ...]:
    whole = {"id": "evt_01", "timestamp": 1788264000123, "event": event, "session": "s1", "payload": payload}
    return read("waha", whole)


@pytest.mark.parametrize(
    ("ack", "status"),
    [(-1, "failed"), (0, None), (1, "sent"), (2, "delivered"), (3, "read"), (4, "read"), ("3", None), (None, None)],
)
def test_waha_acks(ack: Any, status: str | None) -> None:
    news = waha("message.ack", {"id": "true_628110000001@c.us_3EB0BB22", "fromMe": True, "ack": ack})
    assert [(each.external_id, each.status) for each in news if isinstance(each, Receipt)] == (
        [("3EB0BB22", status)] if status else []
    )
    assert waha("message.ack", {"id": "false_6281@c.us_3EB0BB22", "fromMe": False, "ack": ack}) == ()


def test_waha() -> None:
    said = {"id": "false_628110000001@c.us_AA", "timestamp": 1788263940, "from": "628110000001@c.us", "body": "Ya"}
    (reply,) = waha("message", {**said, "fromMe": False})
    assert isinstance(reply, Reply)
    assert (reply.phone, reply.text, reply.external_id) == ("+628110000001", "Ya", "AA")
    assert reply.at == datetime.fromtimestamp(1788263940, tz=UTC)
    assert waha("message", {**said, "fromMe": True}) == ()
    assert waha("message", {**said, "from": "1-2@g.us"}) == ()
    for status, told in (("WORKING", "connected"), ("SCAN_QR_CODE", "logged_out"), ("FAILED", "disconnected")):
        (event,) = waha("session.status", {"status": status})
        assert isinstance(event, DeviceEvent)
        assert (event.status, event.device_id) == (told, 41)
    assert waha("session.status", {"status": "STARTING"}) == ()


def evolution(event: str, data: Any) -> tuple[News, ...]:
    return read("evolution", {"event": event, "instance": "n1", "data": data, "date_time": "x", "apikey": "k"})


def test_evolution() -> None:
    for status, told in (
        ("SERVER_ACK", "sent"),
        ("DELIVERY_ACK", "delivered"),
        ("PLAYED", "read"),
        ("ERROR", "failed"),
    ):
        (receipt,) = evolution("messages.update", {"keyId": "3EB0CC33", "fromMe": True, "status": status})
        assert isinstance(receipt, Receipt)
        assert (receipt.external_id, receipt.status) == ("3EB0CC33", told)
    assert evolution("messages.update", {"keyId": "3EB0CC33", "fromMe": True, "status": "PENDING"}) == ()
    key = {"remoteJid": "77@lid", "remoteJidAlt": "628110000001@s.whatsapp.net", "fromMe": False, "id": "AA"}
    said = {"key": key, "message": {"extendedTextMessage": {"text": "Ya"}}, "messageTimestamp": 1788263940}
    (reply,) = evolution("messages.upsert", said)
    assert isinstance(reply, Reply)
    assert (reply.phone, reply.text) == ("+628110000001", "Ya")
    picture = {**said, "messageType": "imageMessage", "message": {"imageMessage": {"caption": "Lihat"}}}
    assert [each.text for each in evolution("messages.upsert", [picture, said]) if isinstance(each, Reply)] == [
        "Lihat",
        "Ya",
    ]
    assert evolution("messages.upsert", {**said, "key": {**key, "fromMe": True}}) == ()
    assert evolution("messages.upsert", {**said, "key": {**key, "remoteJid": "1-2@g.us"}}) == ()
    closed = [(401, "logged_out"), (402, "banned"), (403, "logged_out"), (406, "logged_out"), (428, "disconnected")]
    for reason, told in closed:
        (event,) = evolution("connection.update", {"state": "close", "statusReason": reason})
        assert isinstance(event, DeviceEvent)
        assert event.status == told


@pytest.mark.parametrize(
    "given",
    [
        token(secret="another"),
        token(alg="none"),
        token(expires=NOW.timestamp() - 1),
        token(expires=float("nan")),
        token()[:-4],
        "Bearer",
        "Bearer a.b.c",
        "Bearer ☃.☃.☃",
        "",
    ],
)
def test_evolution_believes_only_good_tokens(given: str) -> None:
    with pytest.raises(BadSignature):
        read("evolution", {"event": "connection.update", "data": {"state": "open"}}, authorization=given)


def test_wuzapi_in_both_of_its_formats() -> None:
    told = {
        "type": "ReadReceipt", "state": "Delivered",
        "event": {"MessageIDs": ["7-1-aaaaaaaaaaaa"], "Chat": "628110000001@s.whatsapp.net", "Timestamp": 1788263940},
    }  # fmt: skip
    form = urlencode([("instanceName", "shop"), ("jsonData", json.dumps(told)), ("userID", "u1")]).encode()
    by_form = read("wuzapi", form, **{"content-type": "application/x-www-form-urlencoded"})
    by_json = read("wuzapi", {**told, "instanceName": "shop", "userID": "u1"}, **{"content-type": "application/json"})
    assert by_form == by_json
    (receipt,) = by_form
    assert isinstance(receipt, Receipt)
    assert (receipt.reference, receipt.external_id, receipt.status) == ("7-1-aaaaaaaaaaaa",) * 2 + ("delivered",)
    assert read("wuzapi", {**told, "state": "ReadSelf"}) == ()
    info = {
        "ID": "AA", "Chat": "77@lid", "Sender": "77@lid", "SenderAlt": "628110000001:12@s.whatsapp.net",
        "IsFromMe": False, "Timestamp": "2026-09-01T11:59:00Z",
    }  # fmt: skip
    (reply,) = read("wuzapi", {"type": "Message", "event": {"Info": info, "Message": {"conversation": "Ya"}}})
    assert isinstance(reply, Reply)
    assert (reply.phone, reply.text, reply.at) == ("+628110000001", "Ya", NOW - timedelta(minutes=1))
    for change in ({"IsFromMe": True}, {"IsGroup": True}, {"SenderAlt": ""}, {"Chat": "1-2@g.us"}):
        assert read("wuzapi", {"type": "Message", "event": {"Info": {**info, **change}}}) == (), change
    with pytest.raises(Malformed):
        read("wuzapi", b"token=x", **{"content-type": "application/x-www-form-urlencoded"})
    for kind, told_of in (("TemporaryBan", "banned"), ("StreamReplaced", "replaced"), ("Disconnected", "disconnected")):
        (event,) = read("wuzapi", {"type": kind, "event": {}})
        assert isinstance(event, DeviceEvent)
        assert event.status == told_of


def test_moments_texts_and_names() -> None:
    for value in (1788264000, 1788264000.0, 1788264000000, "1788264000", "2026-09-01T12:00:00Z"):
        assert moment(value, default=NOW - timedelta(days=1)) == NOW
    for value in (None, True, "", "soon", "2026-09-01T12:00:00", -1, 1e300, float("nan"), "9" * 15, []):
        assert moment(value, default=NOW) == NOW
    assert (reply_text("a\0b"), reply_text(" ", media="audio"), reply_text(None)) == ("ab", "[audio]", "[message]")
    assert digest("a", "b") == digest("a", "b") != digest("ab", "")
    assert whatsmeow.phone_of("628110000001:3@s.whatsapp.net") == "+628110000001"
    for jid in ("1@lid", "1-2@g.us", "status@broadcast", "0811@c.us", None, 7, "628110000001"):
        assert whatsmeow.phone_of(jid) == ""
