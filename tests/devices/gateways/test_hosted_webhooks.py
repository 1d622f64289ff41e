"""Webhooks of hosted gateways as their drivers read them: examples from their documentation, one by one."""

from __future__ import annotations

import hashlib
import hmac
import json
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlencode

import pytest

from devices.gateways import registry
from devices.gateways.news import BadSignature, DeviceEvent, Hook, Malformed, News, Receipt, Reply

NOW = datetime(2026, 5, 1, 12, 0, tzinfo=UTC)
AT = datetime.fromtimestamp(1_790_000_000, tz=UTC)
PHONE = "+628110000001"


def read(
    kind: str,
    body: Any,
    *,
    form: bool = False,
    device_id: int = 41,
    now: datetime = NOW,
    secret: str = "app",  # noqa: S107
) -> tuple[News, ...]:
    raw = urlencode(body).encode() if form else json.dumps(body).encode()
    signature = "sha256=" + hmac.new(secret.encode(), raw, hashlib.sha256).hexdigest()
    given = Hook({"x-hub-signature-256": signature}, raw, ("old", "app"), now, device_id=device_id)
    return registry.driver_for(kind).webhook(given)


TRACKING = {"id": "0f0e-01", "phone": "628110000001", "status": "read", "note": "", "deviceId": "AB12CD"}
INBOUND = {
    "id": "in-1", "phone": "628110000001", "message": "Yes please", "messageType": "text", "isGroup": False,
    "isFromMe": False, "deviceId": "AB12CD", "timestamp": 1_790_000_000_123,
}  # fmt: skip


@pytest.mark.parametrize("form", [False, True])
def test_wablas(form: bool) -> None:
    (receipt,) = read("wablas", TRACKING, form=form)
    assert receipt == Receipt(receipt.event_id, "read", NOW, external_id="0f0e-01", device_id=41)
    (reply,) = read("wablas", INBOUND, form=form)
    assert isinstance(reply, Reply)
    assert (reply.phone, reply.text, reply.external_id, reply.device_id) == (PHONE, "Yes please", "in-1", 41)
    assert reply.at == AT + timedelta(milliseconds=123)


def test_wablas_words_of_tracking() -> None:
    words = {"sent": "sent", "delivered": "delivered", "received": "delivered", "cancel": "failed", "reject": "failed"}
    for word, status in words.items():
        (receipt,) = read("wablas", {**TRACKING, "status": word, "note": "because"})
        assert isinstance(receipt, Receipt)
        assert receipt.status == status
        assert (receipt.code, receipt.text) == ((word, "because") if status == "failed" else ("", ""))
    assert read("wablas", {**TRACKING, "status": "pending"}) == ()
    assert read("wablas", {**INBOUND, "isGroup": "true"}) == read("wablas", {**INBOUND, "isFromMe": True}) == ()


def test_wablas_tells_of_the_device() -> None:
    told = {"deviceId": "AB12CD", "sender": "62855", "status": "disconnected", "note": "", "timestamp": 1_790_000_000}
    (event,) = read("wablas", told)
    assert isinstance(event, DeviceEvent)
    assert (event.status, event.at, event.device_id) == ("disconnected", AT, 41)


def test_news_told_again_has_the_same_name_and_no_other_devices_name() -> None:
    for kind, body in (("wablas", TRACKING), ("wablas", INBOUND), ("whacenter", {"from": PHONE[1:], "message": "Hi"})):
        first, again = read(kind, body)[0], read(kind, body)[0]
        assert first.event_id == again.event_id
        assert first.event_id != read(kind, body, device_id=42)[0].event_id
    assert read("wablas", TRACKING)[0].event_id != read("wablas", {**TRACKING, "status": "sent"})[0].event_id


@pytest.mark.parametrize("form", [False, True])
def test_whacenter(form: bool) -> None:
    told = {"from": "628110000001", "message": "Yes please", "pushName": "Ayu"}
    (reply,) = read("whacenter", told, form=form)
    assert reply == Reply(reply.event_id, PHONE, "Yes please", NOW, device_id=41)
    (later,) = read("whacenter", told, form=form, now=NOW + timedelta(minutes=6))
    assert later.event_id != reply.event_id
    assert read("whacenter", {**told, "isGroup": "1"}, form=form) == ()
    with pytest.raises(Malformed):
        read("whacenter", {"from": "somebody", "message": "Hi"}, form=form)


def meta(**value: Any) -> dict[str, Any]:
    change = {"field": "messages", "value": {"metadata": {"phone_number_id": "200"}, **value}}
    return {"object": "whatsapp_business_account", "entry": [{"id": "100", "changes": [change]}]}


STATUS = {
    "id": "wamid.A1", "status": "failed", "timestamp": "1790000000", "recipient_id": "628110000001",
    "biz_opaque_callback_data": "7-1-abcdefabcdef",
    "errors": [{"code": 131026, "title": "Message undeliverable", "error_data": {"details": "no such user"}}],
}  # fmt: skip


def test_meta() -> None:
    text = {"id": "wamid.B", "from": "628110000001", "timestamp": "1790000000", "type": "text", "text": {"body": "Yes"}}
    chosen = {**text, "type": "interactive", "interactive": {"button_reply": {"id": "1", "title": "Later"}}}
    del chosen["text"]
    hidden = {**text, "from_user_id": "u-1"}
    del hidden["from"]
    picture = {**text, "id": "wamid.C", "type": "image", "text": None, "image": {"id": "9"}}
    body = meta(statuses=[STATUS, {**STATUS, "status": "warning"}], messages=[text, chosen, hidden, picture, "?"])
    receipt, *replies = read("meta", body)
    assert receipt == Receipt(
        receipt.event_id, "failed", AT, reference="7-1-abcdefabcdef", external_id="wamid.A1", device_id=41,
        code="131026", text="Message undeliverable: no such user",
    )  # fmt: skip
    assert [(each.phone, each.text, each.at) for each in replies if isinstance(each, Reply)] == [
        (PHONE, "Yes", AT), (PHONE, "Later", AT), (PHONE, "[image]", AT),
    ]  # fmt: skip
    assert read("meta", {"object": "whatsapp_business_account"}) == ()
    with pytest.raises(BadSignature):
        read("meta", body, secret="another")


def test_the_described_gateways_plain_format() -> None:
    told = {"event": "receipt", "message_id": "g-1", "status": "delivered", "timestamp": "2026-09-21T21:13:20+07:00"}
    (receipt,) = read("generic", told)
    assert receipt == Receipt(receipt.event_id, "delivered", AT, external_id="g-1", device_id=41)
    (reply,) = read("generic", {"event": "message", "from": PHONE, "text": "Yes"}, form=True)
    assert reply == Reply(reply.event_id, PHONE, "Yes", NOW, device_id=41)
    for wrong in ({"event": "receipt", "status": "delivered"}, {"event": "message", "from": PHONE}, {"event": "x"}):
        with pytest.raises(Malformed):
            read("generic", wrong)
