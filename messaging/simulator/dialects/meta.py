"""Meta's WhatsApp Cloud API as its description has it, under ``/meta``: JSON, bearer tokens, errors by code.

Statuses carry the client's own ``biz_opaque_callback_data`` back; webhooks are signed by HMAC-SHA256.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import Any

from aiohttp import web

from messaging.simulator.dialects.base import (
    Asked,
    BadRequest,
    Delivery,
    Dialect,
    Parsed,
    Reply,
    Route,
    json_body,
    json_reply,
)
from messaging.simulator.dialects.wire import header, phone_of

MEDIA = ("image", "document", "video", "audio")


def _error(status: int, code: int, text: str, **headers: str) -> Reply:
    error = {"message": f"(#{code}) {text}", "type": "OAuthException", "code": code, "fbtrace_id": "F1"}
    return json_reply(status, {"error": error}, **headers)


def _part(value: dict[str, Any], name: str) -> dict[str, Any]:
    part = value.get(name)
    return part if isinstance(part, dict) else {}


class Meta(Dialect):
    """A gateway that returns the client's id, and neither drops repeats nor can be searched."""

    name = "meta"

    def routes(self) -> tuple[Route, ...]:
        """One address to send to, one to ask for the number's status."""
        return (
            Route("POST", "/meta/{version}/{number}/messages", "send"),
            Route("GET", "/meta/{version}/{number}", "check"),
        )

    def device(self, request: web.Request, body: bytes) -> str:
        """The bearer token."""
        del body
        scheme, _, token = header(request, "Authorization").partition(" ")
        return token if scheme == "Bearer" else ""

    def parse(self, request: web.Request, body: bytes) -> Parsed:
        """The message in the body. Raises :class:`BadRequest`."""
        value = json_body(request, body)
        if value.get("messaging_product") != "whatsapp":
            raise BadRequest(_error(400, 100, "The parameter messaging_product is required."))
        phone, kind = phone_of(str(value.get("to", ""))), str(value.get("type", "text"))
        if not phone:
            raise BadRequest(_error(400, 131009, "Parameter value is not valid"))
        content = _part(value, kind)
        opaque = value.get("biz_opaque_callback_data")
        fits = {
            "text": bool(_part(value, "text").get("body")),
            "template": bool(content.get("name")) and bool(_part(content, "language").get("code")),
        }
        if not fits.get(kind, kind in MEDIA and bool(content.get("link"))):
            raise BadRequest(_error(400, 131008, f"Required parameter is missing: {kind}"))
        text = content.get("body") or content.get("caption") or content.get("name") or ""
        return Parsed(
            phone=phone, text=str(text), type=kind, sender=request.match_info["number"],
            reference=opaque if isinstance(opaque, str) else None,
        )  # fmt: skip

    def accepted(self, external_id: str, parsed: Parsed) -> Reply:
        """Taken; a status follows."""
        number = parsed.phone[1:]
        return json_reply(
            200,
            {
                "messaging_product": "whatsapp",
                "contacts": [{"input": number, "wa_id": number}],
                "messages": [{"id": f"wamid.{external_id}", "message_status": "accepted"}],
            },
        )

    def rejected(self, code: str, text: str) -> Reply:
        """Nobody there."""
        return _error(400, 131026, f"Message undeliverable: {code} {text}")

    def throttled(self, retry_after_seconds: float | None) -> Reply:
        """Too many of this number."""
        hint = {} if retry_after_seconds is None else {"Retry_After": f"{retry_after_seconds:g}"}
        return _error(429, 130429, "Rate limit hit", **hint)

    def refused(self, *, banned: bool) -> Reply:
        """Blocked for its conduct, or no valid token."""
        if banned:
            return _error(403, 368, "Temporarily blocked for policies violations")
        return _error(401, 190, "Access token has expired")

    def failed(self, status: int, *, taken: bool) -> Reply:
        """A 503 before taking says so by its code; nothing else promises anything."""
        if status == 503 and not taken:
            return _error(503, 131016, "Service unavailable")
        return super().failed(status, taken=taken)

    def connected(self) -> Reply:
        """What the status of an able number looks like."""
        return self._number("CONNECTED")

    def _number(self, status: str) -> Reply:
        told = {"id": "200", "display_phone_number": "+62 855", "quality_rating": "GREEN", "status": status}
        return json_reply(200, told)

    def asked(self, asked: Asked) -> Reply:
        """The number's status: a banned one can still be asked about."""
        words = {"linked": "CONNECTED", "unlinked": "DISCONNECTED", "banned": "BANNED"}
        return self._number(words[asked.state]) if asked.state in words else self.refused(banned=False)

    def receipt(self, delivery: Delivery, *, status: str, event_id: str, at: float) -> dict[str, Any]:
        """One status."""
        del event_id
        told: dict[str, Any] = {
            "id": f"wamid.{delivery.external_id}", "status": status, "timestamp": str(int(at)),
            "recipient_id": delivery.phone[1:],
        }  # fmt: skip
        if delivery.reference is not None:
            told["biz_opaque_callback_data"] = delivery.reference
        if status == "failed":
            told["errors"] = [{"code": 131026, "title": "Message undeliverable"}]
        return _event(delivery.sender, statuses=[told])

    def inbound(self, *, device: str, sender: str, phone: str, text: str, event_id: str, at: float) -> dict[str, Any]:
        """One text message."""
        del device
        message = {
            "id": f"wamid.in-{event_id}", "from": phone[1:], "timestamp": str(int(at)), "type": "text",
            "text": {"body": text},
        }  # fmt: skip
        return _event(sender, messages=[message])

    def signature(self, *, secret: str, body: bytes) -> dict[str, str]:
        """HMAC-SHA256 of the raw body, by the app's secret."""
        return {"X-Hub-Signature-256": "sha256=" + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()}


def _event(number: str, **news: list[dict[str, Any]]) -> dict[str, Any]:
    value = {"messaging_product": "whatsapp", "metadata": {"phone_number_id": number}, **news}
    entry = {"id": "100", "changes": [{"field": "messages", "value": value}]}
    return {"object": "whatsapp_business_account", "entry": [entry]}
