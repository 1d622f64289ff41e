"""Webhooks as drivers read them: who is believed, what is understood, and that nothing of it is shown."""

from __future__ import annotations

import hashlib
import hmac
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from devices.gateways import registry
from devices.gateways.news import BadSignature, Hook, Malformed, Receipt, Reply
from messaging.simulator.dialects.base import Delivery
from messaging.simulator.dialects.native import Native

NOW = datetime(2026, 5, 1, 12, 0, tzinfo=UTC)
SECRET = "the secret"
RECEIPT = {
    "id": "evt-1", "timestamp": NOW.timestamp(), "event": "receipt", "sender": "41", "device": "ab",
    "message_id": "sim-1", "reference": "7-1-aaaaaaaaaaaa", "to": "+628110000001", "status": "read",
}  # fmt: skip
REPLY = {
    "id": "evt-2", "timestamp": NOW.timestamp(), "event": "message", "sender": "41", "device": "ab",
    "message_id": "in-1", "from": "+628110000001", "text": "Yes please",
}  # fmt: skip


def hook(body: Any, *, signed_with: str = SECRET, secrets: tuple[str, ...] = (SECRET,), now: datetime = NOW) -> Hook:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    digest = hmac.new(signed_with.encode(), raw, hashlib.sha256).hexdigest()
    return Hook(headers={"x-simulator-signature": f"sha256={digest}"}, body=raw, secrets=secrets, now=now)


def read(given: Hook) -> Any:
    return registry.driver_for("simulator").webhook(given)


def test_a_receipt_and_a_reply() -> None:
    assert read(hook(RECEIPT)) == (
        Receipt("evt-1", "read", NOW, reference="7-1-aaaaaaaaaaaa", external_id="sim-1", device_id=41),
    )
    assert read(hook(REPLY)) == (Reply("evt-2", "+628110000001", "Yes please", NOW, external_id="in-1", device_id=41),)


def test_what_the_simulator_posts_is_understood() -> None:
    dialect = Native()
    delivery = Delivery(dialect, "token", "41", "+628110000001", "7-1-aaaaaaaaaaaa", "sim-1")
    event = dialect.receipt(delivery, status="failed", event_id="evt-1", at=NOW.timestamp())
    body = json.dumps(event).encode()
    headers = {name.lower(): value for name, value in dialect.signature(secret=SECRET, body=body).items()}
    (receipt,) = read(Hook(headers=headers, body=body, secrets=(SECRET,), now=NOW))
    assert (receipt.status, receipt.reference, receipt.device_id) == ("failed", "7-1-aaaaaaaaaaaa", 41)


def test_secrets_are_rotated_by_naming_both() -> None:
    assert read(hook(RECEIPT, signed_with="old", secrets=("new", "old")))


@pytest.mark.parametrize(
    "given",
    [
        hook(RECEIPT, signed_with="another"),
        hook(RECEIPT, secrets=()),
        hook(RECEIPT, now=NOW + timedelta(minutes=6)),
        hook(RECEIPT, now=NOW - timedelta(minutes=6)),
        Hook(headers={}, body=json.dumps(RECEIPT).encode(), secrets=(SECRET,), now=NOW),
        Hook(headers={"x-simulator-signature": "ÿ☃"}, body=b"{}", secrets=(SECRET,), now=NOW),
        Hook(headers=hook(RECEIPT).headers, body=json.dumps(RECEIPT).encode() + b" ", secrets=(SECRET,), now=NOW),
    ],
    ids=["other secret", "no secret", "late", "early", "unsigned", "nonsense", "body changed"],
)
def test_who_does_not_know_the_secret_is_not_believed(given: Hook) -> None:
    with pytest.raises(BadSignature) as refused:
        read(given)
    assert SECRET not in f"{refused.value!r} {given!r}"
    assert "628110000001" not in f"{refused.value!r} {given!r}"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"[" * 100_000,
        {**RECEIPT, "status": "lost"},
        {**RECEIPT, "event": "holiday"},
        {**RECEIPT, "id": ""},
        {**RECEIPT, "id": "\0"},
        {**RECEIPT, "id": 7},
        {**RECEIPT, "reference": "r" * 121},
        {**RECEIPT, "timestamp": float("nan")},
        {**RECEIPT, "timestamp": True},
        {**REPLY, "from": "0123"},
        {**REPLY, "text": ["x"]},
    ],
)
def test_what_is_signed_and_makes_no_sense(body: Any) -> None:
    with pytest.raises(Malformed):
        read(hook(body))


def test_texts_are_made_storable() -> None:
    raw = json.dumps({**REPLY, "text": "a?b"}).replace("?", "\\u0000\\ud800").encode()
    (reply,) = read(hook(raw))
    assert reply.text == "a?b"
