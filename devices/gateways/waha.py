"""The driver for WAHA, a self-hosted WhatsApp HTTP API with several engines.

Wire format: devlikeapro/waha-docs ``static/swagger/openapi.json`` and devlikeapro/waha ``AllExceptionsFilter.ts``. The
session is named in the body or the path, the server's key travels in ``X-Api-Key``.

===================================== ==================================================================
answer                                outcome
===================================== ==================================================================
200, 201 with an id                   accepted; where the id stands depends on the engine
200, 201 without                      unknown: the browser engine answers so with nothing sent, too
422 with ``expected: ["WORKING"]``    session lost, but temporary while the session is STARTING
401, 403; no such session             session lost
other 400, 422                        rejected
500 "server returned error 463"       throttled: new contacts
anything else                         see :mod:`devices.gateways.http`
===================================== ==================================================================

An id of ours would have to be fetched from the session first, and works for texts on two engines only: none is sent.
Webhooks are JSON, signed in ``X-Webhook-Hmac`` (SHA-512 over the raw body).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar
from urllib.parse import quote

from devices.gateways import http, payloads, webhooks, whatsmeow
from devices.gateways.base import (
    WEBHOOK_SECRET,
    Accepted,
    Carries,
    ContentType,
    CredentialField,
    DeviceConfig,
    IdSemantics,
    Outcome,
    Outgoing,
    Pairing,
    PairingWay,
    SessionLost,
    Temporary,
    Transport,
)
from devices.gateways.json_client import JsonClient, Standing, code, failed, qr
from devices.gateways.news import DeviceEvent, DeviceStatus, Hook, News, Receipt, ReceiptStatus, Reply
from devices.gateways.whatsapp_news import digest, moment, reply_text

SIGNATURE = "x-webhook-hmac"
_PATHS: Mapping[str, str] = {
    "image": "/api/sendImage",
    "document": "/api/sendFile",
    "video": "/api/sendVideo",
    "audio": "/api/sendVoice",
}
_STANDINGS: Mapping[str, Standing] = {
    "WORKING": "linked",
    "STARTING": "starting",
    "SCAN_QR_CODE": "unlinked",
    "PASSKEY_REQUIRED": "unlinked",
    "PASSKEY_CONFIRMATION_REQUIRED": "unlinked",
    "FAILED": "unlinked",
    "STOPPED": "unlinked",
}
_RECEIPTS: Mapping[int, ReceiptStatus] = {-1: "failed", 1: "sent", 2: "delivered", 3: "read", 4: "read"}
_NEWS: Mapping[str, DeviceStatus] = {
    "WORKING": "connected",
    "STOPPED": "disconnected",
    "FAILED": "disconnected",
    "SCAN_QR_CODE": "logged_out",
}


class WahaClient(JsonClient):
    """One session of a WAHA server."""

    def __init__(self, config: DeviceConfig) -> None:
        super().__init__(
            config,
            label=WahaDriver.label,
            carries=WahaDriver.carries,
            default_base_url=WahaDriver.default_base_url,
            headers={"X-Api-Key": config.credentials.get("api_key", "")},
        )
        self._session = config.credentials.get("session", "")
        self._path = f"/api/sessions/{quote(self._session, safe='')}"
        self._status = ""

    def _worded(self, outgoing: Outgoing) -> tuple[str, dict[str, Any] | http.Content]:
        body: dict[str, Any] = {"session": self._session, "chatId": f"{whatsmeow.digits(outgoing.phone)}@c.us"}
        if outgoing.media is None:
            return "/api/sendText", {**body, "text": outgoing.text}
        media = outgoing.media
        body["file"] = {"mimetype": media.mime_type, "filename": media.filename, "data": payloads.SLOT}
        if outgoing.type == "audio":
            body["convert"] = media.mime_type != "audio/ogg"
        else:
            body["caption"] = outgoing.text
        return _PATHS[outgoing.type], payloads.json_around(body, file=media.read())

    def _outcome(self, answer: http.Answer, outgoing: Outgoing) -> Outcome:
        del outgoing
        if answer.status in {200, 201}:
            return Accepted(_id_of(answer.json()))
        try:
            said = answer.json()
        except http.BrokenAnswer:
            return http.unlisted(answer)
        match answer.status:
            case 422 if "expected" in said:
                if said.get("status") == "STARTING":
                    return Temporary("starting", "Not sent: the session is starting.")
                return self._logged_out()
            case 400 | 422:
                words = self._quoted(_words(said), status=answer.status)
                if "session" in words.casefold() and ("find" in words or "exist" in words or "found" in words):
                    return SessionLost("no_such_session", words)
                return self._rejected("", words, status=answer.status)
            case 500 if "server returned error 463" in _words(said):
                return whatsmeow.reach_out_locked()
        return http.unlisted(answer)

    def _standing(self) -> Standing | Temporary | SessionLost:
        answer = self._ask("GET", self._path)
        if not isinstance(answer, http.Answer):
            return answer
        if answer.status == 404:
            return "absent"
        self._status = str(answer.json().get("status")) if answer.status == 200 else ""
        return _STANDINGS.get(self._status) or Temporary(
            f"http_{answer.status}", "The gateway did not say how this session is."
        )

    def _create(self) -> Pairing:
        answer = self._ask("POST", "/api/sessions", {"name": self._session, "start": True})
        if not isinstance(answer, http.Answer):
            return failed(answer)
        if answer.status not in {200, 201}:
            return Pairing("failed", text=f"The gateway did not make the session: HTTP {answer.status}.")
        return Pairing("waiting", text="The session was made.")

    def _show(self, phone: str | None) -> Pairing:
        if self._status in {"STOPPED", "FAILED"}:
            started = self._order("POST", f"{self._path}/restart")
            if isinstance(started, Accepted):
                return Pairing("waiting", text="The session is starting.")
            return failed(started)
        if self._status != "SCAN_QR_CODE":
            return Pairing("waiting", text="WhatsApp asks for a passkey: confirm it on the phone.")
        path = f"/api/{quote(self._session, safe='')}/auth"
        if phone:
            answer = self._ask("POST", f"{path}/request-code", {"phoneNumber": whatsmeow.digits(phone)})
        else:
            answer = self._ask("GET", f"{path}/qr?format=raw")
        if not isinstance(answer, http.Answer):
            return failed(answer)
        if answer.status not in {200, 201}:
            return Pairing("failed", text=f"The gateway gave nothing to pair with: HTTP {answer.status}.")
        return code(answer.json().get("code")) if phone else qr(answer.json().get("value"))

    def log_out(self) -> Accepted | Temporary | SessionLost:
        """Unlink the session from its phone."""
        return self._order("POST", f"{self._path}/logout")

    def restart(self) -> Accepted | Temporary | SessionLost:
        """Have it connect anew."""
        return self._order("POST", f"{self._path}/restart")


def _words(said: Mapping[str, Any]) -> str:
    """An error's own words, wherever they are: ``exception.message``, ``message`` (one or several), ``error``."""
    exception = said.get("exception")
    words = exception.get("message") if isinstance(exception, dict) else said.get("message") or said.get("error")
    return " ".join(map(str, words)) if isinstance(words, list) else str(words or "")


def _id_of(said: Mapping[str, Any]) -> str:
    """The WhatsApp id in an answer: NOWEB ``key.id``, GOWS ``id``, WEBJS ``id.id``. Raises BrokenAnswer without one."""
    match said:
        case {"key": {"id": str() as found}} | {"id": {"id": str() as found}} | {"id": str() as found} if found:
            return _raw(found)
    raise http.BrokenAnswer("accepted without an id")


def _raw(serialized: str) -> str:
    """``3EB0…`` out of ``true_<chat>_3EB0…`` (in groups the sender follows)."""
    parts = serialized.split("_")
    return parts[2] if len(parts) > 2 and parts[0] in {"true", "false"} else serialized


class WahaDriver:
    """WAHA: a self-hosted server for WhatsApp sessions."""

    kind: ClassVar[str] = "waha"
    label: ClassVar[str] = "WAHA"
    transport: ClassVar[Transport] = "http"
    id_semantics: ClassVar[IdSemantics] = "none"
    id_proof: ClassVar[str] = ""
    carries: ClassVar[Mapping[ContentType, Carries]] = {
        "text": Carries(),
        "image": Carries(media="bytes"),
        "document": Carries(media="bytes"),
        "video": Carries(media="bytes"),
        "audio": Carries(max_text=0, media="bytes"),
    }
    window_hours: ClassVar[int | None] = None
    pairing: ClassVar[frozenset[PairingWay]] = frozenset({"qr", "code"})
    signs_webhooks: ClassVar[bool] = True
    receipts: ClassVar[bool] = True
    replies: ClassVar[bool] = True
    rate: ClassVar[str] = "none published"
    default_base_url: ClassVar[str] = "http://127.0.0.1:3000"
    credential_fields: ClassVar[tuple[CredentialField, ...]] = (
        CredentialField("session", "Session", "The session's name on the server.", secret=False),
        CredentialField("api_key", "API key", "The server's key."),
        WEBHOOK_SECRET,
    )

    def connect(self, config: DeviceConfig) -> WahaClient:
        """A client for this session. Opens nothing."""
        return WahaClient(config)

    def webhook(self, hook: Hook) -> tuple[News, ...]:
        """One event per request; nothing for those we do not know. Raises BadSignature or Malformed."""
        webhooks.require_hmac(hook, header=SIGNATURE, prefix="", algorithm="sha512")
        event = webhooks.json_object(hook.body)
        payload = event.get("payload")
        if not isinstance(payload, dict):
            return ()
        match event.get("event"):
            case "message.ack":
                return _receipt(event, payload, hook)
            case "message":
                return _reply(event, payload, hook)
            case "session.status" if status := _NEWS.get(str(payload.get("status"))):
                at = moment(event.get("timestamp"), default=hook.now)
                return (DeviceEvent(_name(event), status, at, hook.device_id, code=str(payload["status"]).lower()),)
        return ()


def _name(event: Mapping[str, Any]) -> str:
    return webhooks.text_of(event, "id", required=False) or digest("waha", event)


def _receipt(event: dict[str, Any], payload: dict[str, Any], hook: Hook) -> tuple[News, ...]:
    ack = payload.get("ack")
    status = _RECEIPTS.get(ack) if isinstance(ack, int) else None
    if status is None or payload.get("fromMe") is False:
        return ()
    external_id = _raw(webhooks.text_of(payload, "id", most=webhooks.MAX_TEXT))[: webhooks.MAX_ID]
    return (
        Receipt(
            event_id=digest("waha", event.get("session"), external_id, status),
            status=status,
            at=moment(event.get("timestamp"), default=hook.now),
            external_id=external_id,
            device_id=hook.device_id,
        ),
    )


def _reply(event: dict[str, Any], payload: dict[str, Any], hook: Hook) -> tuple[News, ...]:
    phone = whatsmeow.phone_of(payload.get("from"))
    if payload.get("fromMe") or not phone:
        return ()
    external_id = _raw(webhooks.text_of(payload, "id", most=webhooks.MAX_TEXT))[: webhooks.MAX_ID]
    return (
        Reply(
            event_id=digest("waha", event.get("session"), external_id),
            phone=phone,
            text=reply_text(payload.get("body"), media="media" if payload.get("hasMedia") else ""),
            at=moment(payload.get("timestamp"), default=hook.now),
            external_id=external_id,
            device_id=hook.device_id,
        ),
    )
