"""Evolution API, version 2, as far as sending, pairing and webhooks go.

The instance stands in the path, the server's key (:data:`KEY`) in ``apikey``. Its source: EvolutionAPI/evolution-api
``src/api/routes/ src/exceptions/``. A failure after a message was taken is answered with 400, as there.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import time
from base64 import b64encode, urlsafe_b64encode
from typing import Any

from aiohttp import web

from messaging.simulator.dialects.base import (
    Asked,
    BadRequest,
    Delivery,
    DeviceState,
    Dialect,
    Parsed,
    Posting,
    Reply,
    Route,
    json_body,
    json_reply,
)
from messaging.simulator.dialects.bodies import PNG, in_base64, jid, phone_of

KEY = "simulated-key"
TOKEN_SECONDS = 600
_TYPES = ("image", "document", "video", "audio")
_NAMES = {400: "Bad Request", 401: "Unauthorized", 403: "Forbidden", 404: "Not Found", 500: "Internal Server Error"}
_STATUSES = {"failed": "ERROR", "delivered": "DELIVERY_ACK", "read": "READ"}
_REASONS: dict[DeviceState, int | None] = {"linked": None, "unlinked": 401, "banned": 402}


def _problem(status: int, message: Any) -> Reply:
    return json_reply(status, {"status": status, "error": _NAMES[status], "response": {"message": message}})


class Evolution(Dialect):
    """A server of many instances behind one key."""

    name = "evolution"

    def routes(self) -> tuple[Route, ...]:
        """Three addresses to send to, and those of the instances."""
        sends = ("sendText", "sendMedia", "sendWhatsAppAudio")
        return (
            *(Route("POST", f"/message/{{what:{what}}}/{{instance}}", "send") for what in sends),
            Route("POST", "/instance/create", "create"),
            Route("GET", "/instance/connectionState/{instance}", "check"),
            Route("GET", "/instance/fetchInstances", "info"),
            Route("GET", "/instance/connect/{instance}", "pair"),
            Route("POST", "/instance/restart/{instance}", "restart"),
            Route("DELETE", "/instance/logout/{instance}", "log_out"),
        )

    def device(self, request: web.Request, body: bytes) -> str:
        """The instance, in the path, the query, or the body that makes one."""
        named = request.match_info.get("instance") or request.query.get("instanceName")
        return named or str(json_body(request, body).get("instanceName") or "")

    def refuses(self, request: web.Request) -> Reply | None:
        """401 without the key."""
        given = request.headers.get("apikey", "").encode("utf-8", "surrogateescape")
        return None if hmac.compare_digest(given, KEY.encode()) else _problem(401, "Unauthorized")

    def parse(self, request: web.Request, body: bytes) -> Parsed:
        """JSON, files in base64. Raises :class:`BadRequest` with the schema's complaints: a list in the list."""
        said, what = json_body(request, body), request.match_info["what"]
        phone = phone_of(said.get("number"))
        if not phone:
            raise BadRequest(_problem(400, [['requires property "number"']]))
        if what == "sendText":
            if not isinstance(said.get("text"), str) or not said["text"]:
                raise BadRequest(_problem(400, [['requires property "text"']]))
            return Parsed(phone, said["text"])
        kind = "audio" if what == "sendWhatsAppAudio" else said.get("mediatype")
        data = in_base64(said.get("audio" if kind == "audio" else "media"))
        if kind not in _TYPES or not data:
            raise BadRequest(_problem(400, [['requires property "media"']]))
        return Parsed(phone, str(said.get("caption", "")), type=kind, media_bytes=len(data))

    def accepted(self, external_id: str, parsed: Parsed) -> Reply:
        """201, PENDING."""
        key = {"remoteJid": jid(parsed.phone), "fromMe": True, "id": external_id}
        return json_reply(201, {"key": key, "status": "PENDING", "messageTimestamp": 1790000000})

    def rejected(self, code: str, text: str) -> Reply:
        """400: not on WhatsApp, or with the code ``schema`` a complaint."""
        if code == "schema":
            return _problem(400, [[text]])
        return _problem(400, [{"jid": jid("+600"), "exists": False, "number": "600"}])

    def refused(self, *, banned: bool) -> Reply:
        """Banned is not connected; unknown is 404."""
        return self.unlinked() if banned else _problem(404, ["The instance does not exist"])

    def unlinked(self) -> Reply:
        """500: the look-up before the send fails."""
        return _problem(500, "Connection Closed")

    def failed(self, status: int, *, taken: bool) -> Reply:
        """Not connected for 503; a 400 that says nothing for 500."""
        if status == 503 and not taken:
            return self.unlinked()
        if status == 500:
            return _problem(400, ["Error: Timed Out"])
        return super().failed(status, taken=taken)

    def asked(self, asked: Asked) -> Reply:
        """How an instance is, and what it takes to pair it."""
        name, linked = asked.device, asked.state == "linked"
        if asked.purpose == "create":
            if asked.state != "unknown":
                return _problem(403, [f'This name "{name}" is already in use.'])
            return json_reply(201, {"instance": {"instanceName": name, "status": "connecting"}, "hash": "h"})
        if asked.state == "unknown":
            return _problem(404, [f'The "{name}" instance does not exist'])
        state = {"instance": {"instanceName": name, "state": "open" if linked else "close"}}
        match asked.purpose:
            case "info":
                found = {"name": name, "connectionStatus": state["instance"]["state"]}
                return json_reply(200, [{**found, "disconnectionReasonCode": _REASONS[asked.state]}])
            case "pair" if not linked:
                code = "ABCDEFGH" if "number" in asked.request.query else None
                picture = "data:image/png;base64," + b64encode(PNG).decode()
                return json_reply(200, {"pairingCode": code, "code": "2@simulated", "base64": picture, "count": 1})
            case "log_out" if not linked:
                return _problem(400, [f'The "{name}" instance is not connected'])
            case "log_out":
                return json_reply(200, {"status": "SUCCESS", "error": False})
        return json_reply(200, state)

    def receipt(self, delivery: Delivery, *, status: str, event_id: str, at: float) -> dict[str, Any]:
        """``messages.update``."""
        del event_id
        data = {"keyId": delivery.external_id, "remoteJid": jid(delivery.phone), "fromMe": True}
        return self._event("messages.update", delivery.device, at, {**data, "status": _STATUSES[status]})

    def inbound(self, *, device: str, sender: str, phone: str, text: str, event_id: str, at: float) -> dict[str, Any]:
        """``messages.upsert``."""
        del sender
        data = {
            "key": {"remoteJid": jid(phone), "fromMe": False, "id": f"IN{event_id}"},
            "pushName": "Ayu",
            "message": {"conversation": text},
            "messageType": "conversation",
            "messageTimestamp": int(at),
        }
        return self._event("messages.upsert", device, at, data)

    def device_news(self, *, device: str, state: DeviceState, event_id: str, at: float) -> dict[str, Any]:
        """``connection.update``."""
        del event_id
        data = {"instance": device, "state": "open" if state == "linked" else "close"}
        return self._event("connection.update", device, at, {**data, "statusReason": _REASONS[state] or 200})

    def _event(self, event: str, device: str, at: float, data: dict[str, Any]) -> dict[str, Any]:
        when = time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.localtime(at))  # local time marked Z, as there
        return {"event": event, "instance": device, "data": data, "date_time": when, "apikey": "k"}

    def posting(self, event: dict[str, Any], *, secret: str) -> Posting:
        """JSON, with a token that is good for ten minutes."""
        body = json.dumps(event, separators=(",", ":")).encode()
        headers = {"Content-Type": "application/json", **self.signature(secret=secret, body=body)}
        return Posting(body, headers)

    def signature(self, *, secret: str, body: bytes) -> dict[str, str]:
        """A bearer token (HS256), which knows nothing of the body."""
        del body
        now = int(time.time())
        claims = {"iat": now, "exp": now + TOKEN_SECONDS, "app": "evolution", "action": "webhook"}
        signed = b".".join(_part(json.dumps(part).encode()) for part in ({"alg": "HS256", "typ": "JWT"}, claims))
        given = hmac.new(secret.encode(), signed, hashlib.sha256).digest()
        return {"Authorization": f"Bearer {(signed + b'.' + _part(given)).decode()}"}


def _part(data: bytes) -> bytes:
    return urlsafe_b64encode(data).rstrip(b"=")
