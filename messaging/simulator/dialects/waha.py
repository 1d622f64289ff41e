"""WAHA with its GOWS engine, as far as sending, pairing and webhooks go.

The session stands in the body or the path, the server's key (:data:`KEY`) in ``X-Api-Key``. Its docs:
devlikeapro/waha-docs ``static/swagger/openapi.json``.
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
    DeviceState,
    Dialect,
    Parsed,
    Reply,
    Route,
    json_body,
    json_reply,
)
from messaging.simulator.dialects.bodies import in_base64, jid, phone_of

KEY = "simulated-key"
_MEDIA = {"sendImage": "image", "sendFile": "document", "sendVideo": "video", "sendVoice": "audio"}
_STATUS: dict[DeviceState, str] = {"linked": "WORKING", "unlinked": "SCAN_QR_CODE", "banned": "FAILED"}
_ACKS = {"failed": (-1, "ERROR"), "delivered": (2, "DEVICE"), "read": (3, "READ")}


def _problem(status: int, error: str, message: str) -> Reply:
    return json_reply(status, {"statusCode": status, "error": error, "message": message})


def _not_working(status: str) -> Reply:
    words = "Session status is not as expected. Try again later or restart the session"
    return json_reply(422, {"error": words, "session": "s", "status": status, "expected": ["WORKING"]})


class Waha(Dialect):
    """A server of many sessions behind one key."""

    name = "waha"

    def routes(self) -> tuple[Route, ...]:
        """Five addresses to send to, and those of the sessions."""
        return (
            *(Route("POST", f"/api/{{what:{what}}}", "send") for what in ("sendText", *_MEDIA)),
            Route("POST", "/api/sessions", "create"),
            Route("GET", "/api/sessions/{session}", "check"),
            Route("POST", "/api/sessions/{session}/restart", "restart"),
            Route("POST", "/api/sessions/{session}/logout", "log_out"),
            Route("GET", "/api/{session}/auth/qr", "pair"),
            Route("POST", "/api/{session}/auth/{request:request-code}", "pair"),
        )

    def device(self, request: web.Request, body: bytes) -> str:
        """The session, in the path or the body."""
        said = json_body(request, body)
        return request.match_info.get("session") or str(said.get("session") or said.get("name") or "")

    def refuses(self, request: web.Request) -> Reply | None:
        """401 without the key."""
        given = request.headers.get("X-Api-Key", "").encode("utf-8", "surrogateescape")
        return None if hmac.compare_digest(given, KEY.encode()) else _problem(401, "", "Unauthorized")

    def parse(self, request: web.Request, body: bytes) -> Parsed:
        """JSON, files in base64. Raises :class:`BadRequest`."""
        said, what = json_body(request, body), request.match_info["what"]
        phone = phone_of(said.get("chatId"))
        if not phone:
            raise BadRequest(_problem(400, "Bad Request", "chatId must be a phone@c.us"))
        if what == "sendText":
            if not isinstance(said.get("text"), str) or not said["text"]:
                raise BadRequest(_problem(400, "Bad Request", "text must be a string"))
            return Parsed(phone, said["text"])
        file = said.get("file")
        data = in_base64(file.get("data")) if isinstance(file, dict) and file.get("mimetype") else None
        if not data:
            raise BadRequest(_problem(400, "Bad Request", "file must have a mimetype and data"))
        return Parsed(phone, str(said.get("caption", "")), type=_MEDIA[what], media_bytes=len(data))

    def accepted(self, external_id: str, parsed: Parsed) -> Reply:
        """201 with the id as GOWS serializes it."""
        return json_reply(201, {"id": f"true_{jid(parsed.phone, 'c.us')}_{external_id}", "_data": {}})

    def rejected(self, code: str, text: str) -> Reply:
        """400."""
        del code
        return _problem(400, "Bad Request", text)

    def throttled(self, retry_after_seconds: float | None) -> Reply:
        """500 with WhatsApp's lock on new contacts, which names no time."""
        del retry_after_seconds
        return json_reply(500, {"statusCode": 500, "exception": {"message": "server returned error 463"}})

    def refused(self, *, banned: bool) -> Reply:
        """422: the session failed, or there is none."""
        return _not_working("FAILED") if banned else _problem(422, "Unprocessable", 'Session "s" does not exist')

    def unlinked(self) -> Reply:
        """422: it waits for its phone."""
        return _not_working("SCAN_QR_CODE")

    def failed(self, status: int, *, taken: bool) -> Reply:
        """Sessions that are starting for 503; an exception for the rest."""
        if status == 503 and not taken:
            return _not_working("STARTING")
        return json_reply(status, {"statusCode": status, "exception": {"message": "context deadline exceeded"}})

    def asked(self, asked: Asked) -> Reply:
        """How a session is, and what it takes to pair it."""
        if asked.purpose == "create":
            if asked.state != "unknown":
                return _problem(422, "Unprocessable", "Session already exists")
            return json_reply(201, {"name": asked.device, "status": "STARTING"})
        if asked.state == "unknown":
            return _problem(404, "Not Found", "Session not found")
        status = _STATUS[asked.state]
        match asked.purpose:
            case "pair" if status != "SCAN_QR_CODE":
                return json_reply(422, {"status": status, "expected": ["SCAN_QR_CODE"]})
            case "pair" if "request" in asked.request.match_info:
                return json_reply(201, {"code": "ABCD-EFGH"})
            case "pair":
                return json_reply(200, {"value": "2@simulated"})
        me = {"id": jid("+628550000001", "c.us"), "pushName": "Shop"} if asked.state == "linked" else None
        found = {"name": asked.device, "status": status, "me": me, "engine": {"engine": "GOWS"}}
        return json_reply(200 if asked.purpose == "check" else 201, found)

    def receipt(self, delivery: Delivery, *, status: str, event_id: str, at: float) -> dict[str, Any]:
        """``message.ack``."""
        ack, named = _ACKS[status]
        chat = jid(delivery.phone, "c.us")
        payload = {"id": f"true_{chat}_{delivery.external_id}", "from": chat, "fromMe": True, "ack": ack}
        return self._event("message.ack", delivery.device, event_id, at, {**payload, "ackName": named})

    def inbound(self, *, device: str, sender: str, phone: str, text: str, event_id: str, at: float) -> dict[str, Any]:
        """``message``."""
        del sender
        chat = jid(phone, "c.us")
        payload = {"id": f"false_{chat}_IN{event_id}", "timestamp": int(at), "from": chat, "fromMe": False}
        return self._event("message", device, event_id, at, {**payload, "body": text, "hasMedia": False})

    def device_news(self, *, device: str, state: DeviceState, event_id: str, at: float) -> dict[str, Any]:
        """``session.status``."""
        return self._event("session.status", device, event_id, at, {"name": device, "status": _STATUS[state]})

    def _event(self, event: str, device: str, event_id: str, at: float, payload: dict[str, Any]) -> dict[str, Any]:
        return {
            "id": event_id,
            "timestamp": int(at * 1000),
            "event": event,
            "session": device,
            "engine": "GOWS",
            "payload": payload,
        }

    def signature(self, *, secret: str, body: bytes) -> dict[str, str]:
        """HMAC-SHA512 of the raw body."""
        return {
            "X-Webhook-Hmac": hmac.new(secret.encode(), body, hashlib.sha512).hexdigest(),
            "X-Webhook-Hmac-Algorithm": "sha512",
        }
