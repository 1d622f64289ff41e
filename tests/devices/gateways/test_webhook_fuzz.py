"""Whatever is posted to a webhook is understood or refused, by every driver; and what is understood can be stored."""

from __future__ import annotations

import hashlib
import hmac
import json
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devices.gateways import registry
from devices.gateways.news import DeviceEvent, Hook, HookRefused, News, Receipt, Reply
from devices.gateways.webhooks import MAX_ID, MAX_REPLY, MAX_TEXT

NOW = datetime(2026, 5, 1, 12, 0, tzinfo=UTC)
SECRET = "the secret"
KINDS = sorted(kind for kind in registry.kinds() if registry.driver_for(kind).transport == "http")

NAMES = (
    "id", "phone", "message", "messageType", "status", "note", "deviceId", "timestamp", "isGroup", "isFromMe", "from",
    "text", "event", "message_id", "reference", "code", "sender", "type", "body", "errors", "title", "entry", "changes",
    "value", "statuses", "messages", "biz_opaque_callback_data", "interactive", "button_reply", "error_data", "details",
)  # fmt: skip
WORDS = (
    "sent", "delivered", "read", "failed", "reject", "connected", "disconnected", "receipt", "message", "text", "true",
    "628110000001", "+628110000001", "628110000001@c.us", "1790000000", "1790000000123", "2026-05-01T12:00:00+07:00",
    "9999-12-31T23:59:59+00:00", "nan", "inf", "-1", "1e400", "\0", "\ud800", "", "x" * 30_000,
)  # fmt: skip
LEAVES = st.one_of(
    st.sampled_from(WORDS), st.text(max_size=30), st.none(), st.booleans(), st.floats(), st.integers(),
    st.integers(min_value=10**30, max_value=10**40),
)  # fmt: skip
NAMED = st.one_of(st.sampled_from(NAMES), st.text(max_size=5))
VALUES: st.SearchStrategy[Any] = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMED, inner, max_size=6), max_leaves=20
)
OBJECTS = st.dictionaries(NAMED, VALUES, max_size=10)


def _meta(news: dict[str, Any]) -> dict[str, Any]:
    return {"entry": [{"changes": [{"value": {"statuses": [news], "messages": [news]}}]}]}


BODIES = st.one_of(
    st.binary(max_size=200),
    VALUES.map(lambda value: json.dumps(value).encode()),
    OBJECTS.map(lambda value: json.dumps(value).encode()),
    OBJECTS.map(lambda value: json.dumps(_meta(value)).encode()),
    st.dictionaries(NAMED, st.text(max_size=20) | st.sampled_from(WORDS), max_size=8).map(
        lambda value: urlencode(value, errors="replace").encode()
    ),
)


def hook(body: bytes) -> Hook:
    digest = hmac.new(SECRET.encode(), body, hashlib.sha256).hexdigest()
    signed = {"x-simulator-signature": f"sha256={digest}", "x-hub-signature-256": f"sha256={digest}"}
    return Hook(headers=signed, body=body, secrets=(SECRET,), now=NOW, device_id=41)


def assert_storable(news: News) -> None:
    texts = {"event_id": MAX_ID}
    if isinstance(news, Receipt):
        texts |= {"reference": MAX_ID, "external_id": MAX_ID, "code": 60, "text": MAX_TEXT}
    elif isinstance(news, Reply):
        texts |= {"external_id": MAX_ID, "text": MAX_REPLY, "phone": 20}
        assert news.text
    else:
        assert isinstance(news, DeviceEvent)
    for name, most in texts.items():
        text = getattr(news, name)
        assert len(text) <= most
        assert "\0" not in text
        text.encode()
    assert news.event_id
    assert 2000 <= news.at.year < 2100
    assert news.at.tzinfo is not None


@pytest.mark.parametrize("kind", KINDS)
@given(body=BODIES)
def test_any_body_is_understood_or_refused(kind: str, body: bytes) -> None:
    with suppress(HookRefused):
        for news in registry.driver_for(kind).webhook(hook(body)):
            assert_storable(news)
