"""Whacenter as far as its vendor documents it, under ``/whacenter/api``.

Forms go in, ``{"status", "message"}`` comes out; ``device_id`` is in the form or the query. A message has no id, there
are no receipts, and what people write is posted as a form without a signature.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qsl, urlencode

from aiohttp import web

from messaging.simulator.dialects.base import (
    Asked,
    BadRequest,
    Delivery,
    Dialect,
    Parsed,
    Posting,
    Reply,
    Route,
    json_reply,
)
from messaging.simulator.dialects.wire import PICTURE, phone_of


def _no(text: str) -> Reply:
    return json_reply(200, {"status": False, "message": text, "data": []})


def _form(body: bytes) -> dict[str, str]:
    return dict(parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True))


class Whacenter(Dialect):
    """A gateway that says little."""

    name = "whacenter"

    def routes(self) -> tuple[Route, ...]:
        """One address to send to, and what can be asked of a device."""
        return (
            Route("POST", "/whacenter/api/send", "send"),
            Route("GET", "/whacenter/api/statusDevice", "check"),
            Route("GET", "/whacenter/api/qr", "pair"),
            Route("POST", "/whacenter/api/relogDevice", "restart"),
        )

    def device(self, request: web.Request, body: bytes) -> str:
        """``device_id``, wherever it is."""
        return request.query.get("device_id") or _form(body).get("device_id", "")

    def parse(self, request: web.Request, body: bytes) -> Parsed:
        """The message in a form. Raises :class:`BadRequest`."""
        del request
        form = _form(body)
        phone, link = phone_of(form.get("number", "")), form.get("file", "")
        if not phone:
            raise BadRequest(_no("number is not valid"))
        if not (form.get("message") or link):
            raise BadRequest(_no("message is not valid"))
        linked = "document" if link.endswith(".pdf") else "image"
        kind = form.get("type") or (linked if link else "text")
        return Parsed(phone=phone, text=form.get("message", ""), type=kind)

    def accepted(self, external_id: str, parsed: Parsed) -> Reply:
        """No id comes back."""
        del external_id, parsed
        return json_reply(200, {"status": True, "message": "Message sent"})

    def rejected(self, code: str, text: str) -> Reply:
        """Refused for its number."""
        return json_reply(200, {"status": False, "msg": f"number is not valid: {code} {text}"})

    def refused(self, *, banned: bool) -> Reply:
        """No device, or none that is connected: the words are the same."""
        del banned
        return _no("device not connected or not found")

    def failed(self, status: int, *, taken: bool) -> Reply:
        """A 503 before taking says so in the gateway's own way; nothing else promises anything."""
        if status == 503 and not taken:
            return _no("failed to process, try again")
        return super().failed(status, taken=taken)

    def connected(self) -> Reply:
        """What the status of an able device looks like."""
        return self._status("CONNECTED")

    def _status(self, word: str) -> Reply:
        data = {"status": word, "nomor": "628550000001", "nama": "d1", "qr": "timeout"}
        return json_reply(200, {"status": True, "message": "success get device status", "data": data})

    def asked(self, asked: Asked) -> Reply:
        """Status, picture, and log-in anew."""
        if asked.state == "unknown":
            return self.refused(banned=False)
        if asked.purpose == "check":
            return self._status("CONNECTED" if asked.state == "linked" else "NOT CONNECTED")
        if asked.purpose == "pair" and asked.state == "unlinked":
            return Reply(200, PICTURE, {"Content-Type": "image/png"})
        return json_reply(200, {"status": True, "message": "success"})

    def receipt(self, delivery: Delivery, *, status: str, event_id: str, at: float) -> None:
        """It tells nothing of what became of a message."""

    def inbound(self, *, device: str, sender: str, phone: str, text: str, event_id: str, at: float) -> dict[str, Any]:
        """A message from a person, without id and time."""
        del device, sender, event_id, at
        return {"from": phone[1:], "message": text, "pushName": "Ayu"}

    def posting(self, event: dict[str, Any], *, secret: str) -> Posting:
        """As a form."""
        del secret
        return Posting(urlencode(event).encode(), {"Content-Type": "application/x-www-form-urlencoded"})
