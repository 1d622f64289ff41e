"""Wablas as its vendor documents it, under ``/wablas``.

Forms go in, ``{"status", "message", "data"}`` comes out; the token is in ``Authorization`` (before the last full stop,
where a secret key follows) or in the query. Webhooks are JSON without a signature, tracking by the gateway's id alone.
"""

from __future__ import annotations

import hashlib
from typing import Any
from urllib.parse import parse_qsl

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
    json_reply,
)
from messaging.simulator.dialects.wire import PICTURE, header, phone_of

MEDIA = ("image", "document", "video", "audio")
MAX_TEXT = 1024


def _no(text: str, *, status: int = 500) -> Reply:
    return json_reply(status, {"status": False, "message": text})


def _serial(device: str) -> str:
    return hashlib.sha256(device.encode()).hexdigest()[:6].upper()


class Wablas(Dialect):
    """A gateway that searches by the client's id and drops no repeats."""

    name = "wablas"

    def routes(self) -> tuple[Route, ...]:
        """One address per kind of message, and what can be asked of a device."""
        return (
            *(Route("POST", f"/wablas/api/send-{kind}", "send") for kind in ("message", *MEDIA)),
            Route("GET", "/wablas/api/report/message", "look_up"),
            Route("GET", "/wablas/api/device/info", "check"),
            Route("GET", "/wablas/api/device/scan", "pair"),
            Route("GET", "/wablas/api/device/disconnect", "log_out"),
            Route("GET", "/wablas/api/device/restart", "restart"),
        )

    def device(self, request: web.Request, body: bytes) -> str:
        """The token, without the secret key."""
        del body
        given = header(request, "Authorization")
        token, stop, last = given.rpartition(".")
        return request.query.get("token") or (token if stop else last)

    def parse(self, request: web.Request, body: bytes) -> Parsed:
        """The message in a form. Raises :class:`BadRequest`."""
        form = dict(parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True))
        kind = request.path.rpartition("send-")[2]
        phone = phone_of(form.get("phone", ""))
        if not phone:
            raise BadRequest(_no("phone number format is not valid", status=200))
        if kind == "message":
            text = form.get("message", "")
            if not text or len(text) > MAX_TEXT:
                raise BadRequest(_no("message is empty or too long", status=200))
            return Parsed(phone=phone, text=text, reference=form.get("ref_id"))
        if not form.get(kind, "").startswith(("http://", "https://")):
            raise BadRequest(_no(f"{kind} url format is not valid", status=200))
        return Parsed(phone=phone, text=form.get("caption", ""), reference=form.get("ref_id"), type=kind)

    def accepted(self, external_id: str, parsed: Parsed) -> Reply:
        """Queued."""
        message = {"id": external_id, "phone": parsed.phone[1:], "status": "pending", "ref_id": parsed.reference}
        told = "Message is pending and waiting to be processed"
        return json_reply(200, {"status": True, "message": told, "data": {"quota": 88, "messages": [message]}})

    def rejected(self, code: str, text: str) -> Reply:
        """Refused for its number."""
        return _no(f"phone number not registered: {code} {text}", status=200)

    def refused(self, *, banned: bool) -> Reply:
        """A ban looks like any log-out here."""
        return self.unlinked() if banned else _no("token invalid or device expired")

    def unlinked(self) -> Reply:
        """The phone is gone."""
        return _no("device disconnected, need to scan qr code again")

    def failed(self, status: int, *, taken: bool) -> Reply:
        """A 503 before taking says so in the gateway's own words; nothing else promises anything."""
        if status == 503 and not taken:
            return _no("system is busy, try again", status=status)
        return super().failed(status, taken=taken)

    def connected(self) -> Reply:
        """What the status of an able device looks like."""
        return self._info("connected")

    def _info(self, status: str) -> Reply:
        return json_reply(200, {"status": True, "data": {"serial": "AB12CD", "quota": 91, "status": status}})

    def asked(self, asked: Asked) -> Reply:
        """Status, picture, and orders."""
        if asked.state == "unknown":
            return self.refused(banned=False)
        if asked.purpose == "check":
            return self._info("connected" if asked.state == "linked" else "disconnected")
        if asked.purpose == "pair" and asked.state == "unlinked":
            return Reply(200, PICTURE, {"Content-Type": "image/png"})
        return json_reply(200, {"status": True, "message": f"{asked.purpose} {_serial(asked.device)} successfully"})

    def sought(self, request: web.Request) -> str:
        """The ``ref_id`` in the query."""
        return request.query.get("ref_id", "")

    def looked_up(self, reference: str, external_id: str | None) -> Reply:
        """The report, of one row or none."""
        rows = [] if external_id is None else [{"id": external_id, "status": "sent", "ref_id": reference}]
        return json_reply(200, {"status": True, "totalData": len(rows), "message": rows})

    def receipt(self, delivery: Delivery, *, status: str, event_id: str, at: float) -> dict[str, Any]:
        """Tracking: no event has a name, and none our reference."""
        del event_id, at
        word = "reject" if status == "failed" else status
        note = "number is not on whatsapp" if status == "failed" else ""
        return {
            "id": delivery.external_id, "phone": delivery.phone[1:], "status": word, "note": note,
            "deviceId": _serial(delivery.device),
        }  # fmt: skip

    def inbound(self, *, device: str, sender: str, phone: str, text: str, event_id: str, at: float) -> dict[str, Any]:
        """A message from a person."""
        del sender
        return {
            "id": f"in-{event_id}", "phone": phone[1:], "message": text, "messageType": "text", "pushName": "Ayu",
            "isGroup": False, "isFromMe": False, "deviceId": _serial(device), "timestamp": at,
        }  # fmt: skip

    def device_news(self, *, device: str, state: DeviceState, event_id: str, at: float) -> dict[str, Any]:
        """Connected, or not."""
        del event_id
        status = "connected" if state == "linked" else "disconnected"
        return {"deviceId": _serial(device), "sender": "628550000001", "status": status, "note": "", "timestamp": at}
