"""The simulator's own format, as plain as a gateway can be.

``POST /sim/v1/devices/{token}/messages`` with a JSON object:

========== ========= =======================================================================================
``to``     required  phone, ``+`` and 5 to 15 digits
``type``   optional  text (default), image, document, video or audio
``text``   required  may be empty only with media
``media``  optional  object with ``url``
``id``     optional  the sender's own id; a repeat from the same device is answered alike and delivered once
``message`` optional the sender's number for the message, for the judge
``attempt`` optional the sender's attempt number, for the judge
``sender`` optional  a name for the device that is no secret, returned in webhooks
========== ========= =======================================================================================

200 ``{"id", "status": "accepted"}``; errors are ``{"error": {"code", "text"}}`` with 400, 401, 422, 429 (and maybe
``Retry-After``) or 5xx. A 503 with code ``unavailable`` promises that nothing was taken; no other 5xx promises a thing.

``GET /sim/v1/devices/{token}``: 200 ``{"status": "connected"}`` or 401.

``GET /sim/v1/devices/{token}/messages?reference=``: 200 ``{"messages": [{"id", "reference"}]}``, empty if this device
was given no message of that ``id``.

Webhooks: ``{"id", "timestamp", "event": "receipt", "sender", "device", "message_id", "reference", "to", "status"}`` and
``{"id", "timestamp", "event": "message", "sender", "device", "message_id", "from", "text"}``, signed by
``X-Simulator-Signature: sha256=<hex HMAC-SHA256 of the raw body>``. ``id`` names the event and stays when it is posted
again; ``timestamp`` is in seconds; ``device`` is the first 16 hex digits of the token's SHA-256.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from typing import Any

from aiohttp import web

from messaging.simulator.dialects.base import BadRequest, Delivery, Dialect, Parsed, Reply, Route, json_reply

TYPES = ("text", "image", "document", "video", "audio")
_PHONE = re.compile(r"\+[0-9]{5,15}")
MAX_ID = 200
LARGEST = 2**63 - 1


def _error(status: int, code: str, text: str, **headers: str) -> Reply:
    return json_reply(status, {"error": {"code": code, "text": text}}, **headers)


def _bad(code: str, text: str) -> BadRequest:
    return BadRequest(_error(400, code, text))


def _public(device: str) -> str:
    return hashlib.sha256(device.encode()).hexdigest()[:16]


class Native(Dialect):
    """The simulator's own dialect."""

    name = "simulator"
    dedups = True

    def routes(self) -> tuple[Route, ...]:
        """One address to send to, one to look a message up, one to ask for the device's status."""
        return (
            Route("POST", "/sim/v1/devices/{token}/messages", "send"),
            Route("GET", "/sim/v1/devices/{token}/messages", "look_up"),
            Route("GET", "/sim/v1/devices/{token}", "check"),
        )

    def device(self, request: web.Request, body: bytes) -> str:
        """The token in the path."""
        del body
        return request.match_info["token"]

    def parse(self, request: web.Request, body: bytes) -> Parsed:  # noqa: ARG002 - the token is read apart
        """The message in the body. Raises :class:`BadRequest`, naming the field."""
        try:
            value = json.loads(body)
        except (ValueError, RecursionError):
            raise _bad("bad_json", "The body is not JSON.") from None
        if not isinstance(value, dict):
            raise _bad("bad_json", "The body is not a JSON object.")
        phone, text, media = value.get("to"), value.get("text", ""), value.get("media")
        if not isinstance(phone, str) or not _PHONE.fullmatch(phone):
            raise _bad("bad_to", "to must be + and 5 to 15 digits.")
        if value.get("type", "text") not in TYPES:
            raise _bad("bad_type", f"type must be one of {', '.join(TYPES)}.")
        if media is not None and not (isinstance(media, dict) and isinstance(media.get("url"), str)):
            raise _bad("bad_media", "media must be an object with a url.")
        if not isinstance(text, str) or (not text and media is None):
            raise _bad("bad_text", "text must be a text, and not empty unless there is media.")
        return Parsed(
            phone=phone,
            text=text,
            reference=_text(value, "id"),
            message=_count(value, "message", LARGEST),
            attempt=_count(value, "attempt", 2**31 - 1) or 1,
            sender=_text(value, "sender") or "",
            type=value.get("type", "text"),
        )

    def accepted(self, external_id: str, parsed: Parsed) -> Reply:
        """200 with the simulator's id."""
        del parsed
        return json_reply(200, {"id": external_id, "status": "accepted"})

    def connected(self) -> Reply:
        """200, connected."""
        return json_reply(200, {"status": "connected"})

    def sought(self, request: web.Request) -> str:
        """The ``reference`` in the query."""
        reference = request.query.get("reference", "")
        if not 0 < len(reference) <= MAX_ID:
            raise _bad("bad_reference", f"reference must be a text of 1 to {MAX_ID} characters.")
        return reference

    def looked_up(self, reference: str, external_id: str | None) -> Reply:
        """200 with a list of one or none."""
        found = [] if external_id is None else [{"id": external_id, "reference": reference}]
        return json_reply(200, {"messages": found})

    def rejected(self, code: str, text: str) -> Reply:
        """422."""
        return _error(422, code, text)

    def throttled(self, retry_after_seconds: float | None) -> Reply:
        """429, with Retry-After if there is a hint."""
        hint = {} if retry_after_seconds is None else {"Retry_After": f"{retry_after_seconds:g}"}
        return _error(429, "throttled", "Too many messages: wait.", **hint)

    def refused(self, *, banned: bool) -> Reply:
        """401."""
        if banned:
            return _error(401, "banned", "This device is banned.")
        return _error(401, "unknown_device", "There is no device with this token.")

    def failed(self, status: int, *, taken: bool) -> Reply:
        """5xx. Only a 503 before taking promises that nothing was taken."""
        if status == 503 and not taken:
            return _error(503, "unavailable", "Nothing was taken: try again.")
        return Reply(status, b"server error\n", {"Content-Type": "text/plain"})

    def receipt(self, delivery: Delivery, *, status: str, event_id: str, at: float) -> dict[str, Any]:
        """A receipt event."""
        return {
            "id": event_id,
            "timestamp": at,
            "event": "receipt",
            "sender": delivery.sender,
            "device": _public(delivery.device),
            "message_id": delivery.external_id,
            "reference": delivery.reference,
            "to": delivery.phone,
            "status": status,
        }

    def inbound(self, *, device: str, sender: str, phone: str, text: str, event_id: str, at: float) -> dict[str, Any]:
        """A message event."""
        return {
            "id": event_id,
            "timestamp": at,
            "event": "message",
            "sender": sender,
            "device": _public(device),
            "message_id": f"in-{event_id}",
            "from": phone,
            "text": text,
        }

    def signature(self, *, secret: str, body: bytes) -> dict[str, str]:
        """HMAC-SHA256 of the raw body."""
        return {"X-Simulator-Signature": "sha256=" + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()}


def _text(value: dict[str, Any], name: str) -> str | None:
    text = value.get(name)
    if text is not None and (not isinstance(text, str) or not text or len(text) > MAX_ID):
        raise _bad(f"bad_{name}", f"{name} must be a text of 1 to {MAX_ID} characters.")
    return text


def _count(value: dict[str, Any], name: str, most: int) -> int | None:
    number = value.get(name)
    if number is not None and (isinstance(number, bool) or not isinstance(number, int) or not 0 <= number <= most):
        raise _bad(f"bad_{name}", f"{name} must be a whole number from 0 to {most}.")
    return number
