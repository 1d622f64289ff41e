"""wuzapi, as far as sending, pairing and webhooks go.

The header ``token`` names the user, its word for a device. Its docs: asternic/wuzapi ``API.md``. Webhooks go out as a
form, the way it does unless told otherwise.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from base64 import b64encode
from typing import Any
from urllib.parse import urlencode

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

_MEDIA = {"image": "data:image/", "video": "data:", "audio": "data:audio/", "document": "data:application/octet-stream"}
_NEWS: dict[DeviceState, str] = {"linked": "Connected", "unlinked": "LoggedOut", "banned": "TemporaryBan"}


def _problem(status: int, error: str) -> Reply:
    return json_reply(status, {"code": status, "success": False, "error": error})


def _done(data: Any) -> Reply:
    return json_reply(200, {"code": 200, "success": True, "data": data})


class Wuzapi(Dialect):
    """A server of many users, each behind a token."""

    name = "wuzapi"

    def routes(self) -> tuple[Route, ...]:
        """Five addresses to send to, and those of the session."""
        return (
            *(Route("POST", f"/chat/send/{{what:{what}}}", "send") for what in ("text", *_MEDIA)),
            Route("GET", "/session/status", "check"),
            Route("POST", "/session/connect", "restart"),
            Route("POST", "/session/logout", "log_out"),
            Route("GET", "/session/qr", "pair"),
            Route("POST", "/session/{pairphone:pairphone}", "pair"),
        )

    def device(self, request: web.Request, body: bytes) -> str:
        """The token."""
        del body
        return request.headers.get("token", "")

    def parse(self, request: web.Request, body: bytes) -> Parsed:
        """JSON, files as ``data:`` URIs. Raises :class:`BadRequest`."""
        said, what = json_body(request, body), request.match_info["what"]
        phone, chosen = phone_of(said.get("Phone")), said.get("Id")
        if not phone:
            raise BadRequest(_problem(400, "missing Phone in Payload"))
        own = chosen if isinstance(chosen, str) and chosen else ""
        if what == "text":
            if not isinstance(said.get("Body"), str) or not said["Body"]:
                raise BadRequest(_problem(400, "missing Body in Payload"))
            return Parsed(phone, said["Body"], reference=own or None, external_id=own)
        given = said.get(what.capitalize())
        data = in_base64(given)
        if not isinstance(given, str) or not given.startswith(_MEDIA[what]) or not data:
            raise BadRequest(_problem(400, f'{what} data should start with "{_MEDIA[what]}"'))
        caption = str(said.get("Caption", ""))
        return Parsed(phone, caption, reference=own or None, external_id=own, type=what, media_bytes=len(data))

    def accepted(self, external_id: str, parsed: Parsed) -> Reply:
        """200, Sent."""
        del parsed
        return _done({"Details": "Sent", "Id": external_id, "Timestamp": 1790000000})

    def rejected(self, code: str, text: str) -> Reply:
        """400; with the code ``not_on_whatsapp`` what WhatsApp's own library says of that."""
        if code == "not_on_whatsapp":
            return _problem(500, "error sending message: no LID found for 600@s.whatsapp.net from server")
        return _problem(400, text)

    def throttled(self, retry_after_seconds: float | None) -> Reply:
        """500 with WhatsApp's own words, which name no time."""
        del retry_after_seconds
        return _problem(500, "error sending message: info query returned status 429: rate-overlimit")

    def refused(self, *, banned: bool) -> Reply:
        """Banned has no session; an unknown token is 401."""
        return self.unlinked() if banned else _problem(401, "unauthorized")

    def unlinked(self) -> Reply:
        """500."""
        return _problem(500, "no session")

    def failed(self, status: int, *, taken: bool) -> Reply:
        """Not connected for 503; WhatsApp's silence for 500."""
        if status == 503 and not taken:
            return _problem(500, "error sending message: websocket not connected")
        if status == 500:
            return _problem(500, "error sending message: timed out waiting for message send response")
        return super().failed(status, taken=taken)

    def asked(self, asked: Asked) -> Reply:
        """How a session is, and what it takes to pair it."""
        if asked.state == "unknown":
            return _problem(401, "unauthorized")
        linked = asked.state == "linked"
        match asked.purpose:
            case "check":
                return _done({"Connected": linked, "LoggedIn": linked})
            case "restart" if linked:
                return _problem(500, "already connected")
            case "pair" if linked:
                return _problem(500, "already logged in")
            case "pair" if "pairphone" in asked.request.match_info:
                return _done({"LinkingCode": "ABCD-EFGH"})
            case "pair":
                return _done({"QRCode": "data:image/png;base64," + b64encode(PNG).decode()})
            case "log_out" if not linked:
                return _problem(500, "no session")
        return _done({"details": "Connected!", "events": "Message"})

    def receipt(self, delivery: Delivery, *, status: str, event_id: str, at: float) -> dict[str, Any] | None:
        """``ReadReceipt``; a failure is never told."""
        del event_id
        if status == "failed":
            return None
        event = {"MessageIDs": [delivery.external_id], "Chat": jid(delivery.phone), "Timestamp": int(at)}
        return self._told(delivery.device, {"type": "ReadReceipt", "state": status.capitalize(), "event": event})

    def inbound(self, *, device: str, sender: str, phone: str, text: str, event_id: str, at: float) -> dict[str, Any]:
        """``Message``."""
        del sender
        info = {"ID": f"IN{event_id}", "Chat": jid(phone), "Sender": jid(phone), "IsFromMe": False, "IsGroup": False}
        event = {"Info": {**info, "PushName": "Ayu", "Timestamp": int(at)}, "Message": {"conversation": text}}
        return self._told(device, {"type": "Message", "event": event})

    def device_news(self, *, device: str, state: DeviceState, event_id: str, at: float) -> dict[str, Any]:
        """``Connected``, ``LoggedOut``, ``TemporaryBan``."""
        del event_id, at
        return self._told(device, {"type": _NEWS[state], "event": {}})

    def _told(self, device: str, event: dict[str, Any]) -> dict[str, Any]:
        user = hashlib.sha256(device.encode("utf-8", "surrogateescape")).hexdigest()[:16]
        return {"jsonData": json.dumps(event, separators=(",", ":")), "instanceName": "shop", "userID": user}

    def posting(self, event: dict[str, Any], *, secret: str) -> Posting:
        """A form in the order of its names, signed as it stands."""
        body = urlencode(sorted(event.items())).encode()
        headers = {"Content-Type": "application/x-www-form-urlencoded", **self.signature(secret=secret, body=body)}
        return Posting(body, headers)

    def signature(self, *, secret: str, body: bytes) -> dict[str, str]:
        """HMAC-SHA256 of the form."""
        return {"x-hmac-signature": hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()}
