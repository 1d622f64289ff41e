"""go-whatsapp-web-multidevice, version 9, as far as sending, pairing and webhooks go.

The device is ``device_id`` in the query, or ``X-Device-Id``; the server's log-in is :data:`USER` and :data:`PASSWORD`.
Its docs: aldinokemal/go-whatsapp-web-multidevice ``docs/openapi.yaml docs/webhook-payload.md``.
"""

from __future__ import annotations

import hashlib
import hmac
from base64 import b64encode
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

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
from messaging.simulator.dialects.bodies import PNG, jid, multipart, phone_of

USER, PASSWORD = "flotilla", "simulated"
_LOGIN = "Basic " + b64encode(f"{USER}:{PASSWORD}".encode()).decode()
_MEDIA = {"image": "image", "file": "document", "video": "video", "audio": "audio"}


def _said(status: int, code: str, message: str, results: Any = None) -> Reply:
    return json_reply(status, {"code": code, "message": message, "results": results})


class Gowa(Dialect):
    """A server of many devices behind one log-in."""

    name = "gowa"

    def routes(self) -> tuple[Route, ...]:
        """Five addresses to send to, and those of the devices."""
        return (
            *(Route("POST", f"/send/{{what:{what}}}", "send") for what in ("message", *_MEDIA)),
            Route("POST", "/devices", "create"),
            Route("GET", "/devices/{device}/status", "check"),
            Route("GET", "/devices/{device}/login", "pair"),
            Route("POST", "/devices/{device}/{login:login}/code", "pair"),
            Route("POST", "/devices/{device}/logout", "log_out"),
            Route("POST", "/devices/{device}/reconnect", "restart"),
            Route("GET", "/statics/images/qrcode/{device}/scan.png", "info"),
        )

    def device(self, request: web.Request, body: bytes) -> str:
        """From the path, the header, the query, or the body that makes one."""
        named = request.match_info.get("device") or request.headers.get("X-Device-Id") or request.query.get("device_id")
        return named or str(json_body(request, body).get("device_id") or "")

    def refuses(self, request: web.Request) -> Reply | None:
        """401 in plain text, as the log-in in front of everything says it."""
        given = request.headers.get("Authorization", "").encode("utf-8", "surrogateescape")
        if hmac.compare_digest(given, _LOGIN.encode()):
            return None
        return Reply(401, b"Unauthorized", {"Content-Type": "text/plain", "WWW-Authenticate": "Basic"})

    def parse(self, request: web.Request, body: bytes) -> Parsed:
        """JSON for texts, a form for files. Raises :class:`BadRequest`."""
        what = request.match_info["what"]
        form = multipart(request, body)
        fields = {name: part.text for name, part in form.items() if part.filename is None} or json_body(request, body)
        phone = phone_of(fields.get("phone"))
        if not phone:
            raise BadRequest(_said(400, "VALIDATION_ERROR", "phone: cannot be blank."))
        if what == "message":
            if not fields.get("message"):
                raise BadRequest(_said(400, "VALIDATION_ERROR", "message: cannot be blank."))
            return Parsed(phone, str(fields["message"]))
        file = form.get(what)
        if file is None or file.filename is None or not file.data:
            raise BadRequest(_said(400, "VALIDATION_ERROR", f"{what}: cannot be blank."))
        return Parsed(phone, fields.get("caption", ""), type=_MEDIA[what], media_bytes=len(file.data))

    def accepted(self, external_id: str, parsed: Parsed) -> Reply:
        """200, SUCCESS."""
        words = f"Message sent to {jid(parsed.phone)}"
        return _said(200, "SUCCESS", words, {"message_id": external_id, "status": words})

    def rejected(self, code: str, text: str) -> Reply:
        """400; a code in capitals is taken as the gateway's own."""
        return _said(400, code if code.isupper() else "VALIDATION_ERROR", text)

    def throttled(self, retry_after_seconds: float | None) -> Reply:
        """429: WhatsApp's lock on new contacts, which names no time."""
        del retry_after_seconds
        return _said(429, "WA_REACHOUT_TIMELOCK", "server returned error 463")

    def refused(self, *, banned: bool) -> Reply:
        """Banned is logged out; unknown is 404."""
        if banned:
            return self.unlinked()
        return _said(404, "DEVICE_NOT_FOUND", "device not found; create a device first")

    def unlinked(self) -> Reply:
        """401."""
        return _said(401, "AUTHENTICATION_ERROR", "you are not loggin.")

    def failed(self, status: int, *, taken: bool) -> Reply:
        """Not connected for 503; the gateway's own patience for 504; anything raw for the rest."""
        if status == 503 and not taken:
            return _said(500, "INVALID_WA_CLI", "your WhatsApp CLI is invalid or empty")
        if status == 504:
            return _said(504, "GATEWAY_TIMEOUT", "request timed out")
        return _said(status, "INTERNAL_SERVER_ERROR", "timed out waiting for message send response")

    def asked(self, asked: Asked) -> Reply:
        """How a device is, and what it takes to pair it."""
        if asked.purpose == "create":
            return _said(200, "SUCCESS", "Device added", {"id": asked.device, "state": "disconnected"})
        if asked.state == "unknown":
            return _said(404, "NOT_FOUND", f"device {asked.device} not found")
        linked = asked.state == "linked"
        match asked.purpose:
            case "check":
                status = {"device_id": asked.device, "is_connected": linked, "is_logged_in": linked}
                return _said(200, "SUCCESS", "Device status", status)
            case "pair" if linked:
                return _said(400, "ALREADY_LOGGED_IN", "you already logged in.")
            case "pair" if "login" in asked.request.match_info:
                return _said(200, "SUCCESS", "Login with code started", {"pair_code": "ABCD-EFGH"})
            case "pair":
                link = f"http://gowa.internal/statics/images/qrcode/{quote(asked.device, safe='')}/scan.png"
                return _said(200, "SUCCESS", "Login success", {"qr_link": link, "qr_duration": 20})
            case "info":
                return Reply(200, PNG, {"Content-Type": "image/png"})
        return _said(200, "SUCCESS", "Requested")

    def receipt(self, delivery: Delivery, *, status: str, event_id: str, at: float) -> dict[str, Any] | None:
        """``message.ack``; a failure is never told."""
        del event_id
        if status == "failed":
            return None
        payload = {"ids": [delivery.external_id], "chat_id": jid(delivery.phone), "receipt_type": status}
        return self._event("message.ack", delivery.device, at, payload)

    def inbound(self, *, device: str, sender: str, phone: str, text: str, event_id: str, at: float) -> dict[str, Any]:
        """``message``."""
        del sender
        who = jid(phone)
        payload = {"id": f"IN{event_id}", "chat_id": who, "from": who, "from_name": "Ayu", "timestamp": _time(at)}
        return self._event("message", device, at, {**payload, "is_from_me": False, "body": text})

    def _event(self, event: str, device: str, at: float, payload: dict[str, Any]) -> dict[str, Any]:
        return {
            "event": event,
            "device_id": jid("+628550000001"),
            "session_id": device,
            "timestamp": _time(at),
            "payload": payload,
        }

    def signature(self, *, secret: str, body: bytes) -> dict[str, str]:
        """HMAC-SHA256 of the raw body."""
        return {"X-Hub-Signature-256": "sha256=" + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()}


def _time(at: float) -> str:
    return datetime.fromtimestamp(at, tz=UTC).isoformat().replace("+00:00", "Z")
