"""The driver for go-whatsapp-web-multidevice (GOWA), version 9.

Wire format: aldinokemal/go-whatsapp-web-multidevice ``docs/openapi.yaml docs/webhook-payload.md src/pkg/error/``. The
device is named in the query, the server's own log-in is HTTP Basic. ``code`` in the body decides:

================================================================= ==================================================
answer                                                            outcome
================================================================= ==================================================
200 with ``results.message_id``                                   accepted
VALIDATION_ERROR, BAD_REQUEST, INVALID_REQUEST                    rejected
INVALID_JID                                                       not on WhatsApp, or the look-up failed: temporary
                                                                  at the first attempt, rejected at the next
DEVICE_ID_REQUIRED, DEVICE_NOT_FOUND, NOT_FOUND,                  session lost
DEVICE_MANAGER_UNAVAILABLE, AUTHENTICATION_ERROR
WA_REACHOUT_TIMELOCK                                              throttled: new contacts
INVALID_WA_CLI, UPLOAD_MEDIA_ERROR, QR_CHANNEL_ERROR,             temporary
SESSION_SAVED_ERROR, WEBHOOK_ERROR
INTERNAL_SERVER_ERROR                                             by its words, see :mod:`devices.gateways.whatsmeow`
CONTEXT_ERROR, GATEWAY_TIMEOUT                                    unknown
anything else                                                     see :mod:`devices.gateways.http`
================================================================= ==================================================

Webhooks are JSON, signed in ``X-Hub-Signature-256`` over the raw body, and come again after a failure. They name
neither themselves nor always a time, so news is named by its digest. Nothing is told about lost connections.
"""

from __future__ import annotations

from base64 import b64encode
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
    Deadlines,
    DeviceConfig,
    IdSemantics,
    Outcome,
    Outgoing,
    Pairing,
    PairingWay,
    Rejected,
    SessionLost,
    Temporary,
    Transport,
    Unknown,
)
from devices.gateways.json_client import JsonClient, Standing, code, failed, path_of, qr
from devices.gateways.news import Hook, News, Receipt, ReceiptStatus, Reply
from devices.gateways.whatsapp_news import digest, moment, reply_text

SIGNATURE = "x-hub-signature-256"
SLOW = Deadlines(connect_seconds=5, read_seconds=50, total_seconds=60)
"""The gateway itself gives up after 45 seconds, and says so."""

_PATHS: Mapping[str, tuple[str, str]] = {
    "image": ("/send/image", "image"),
    "document": ("/send/file", "file"),
    "video": ("/send/video", "video"),
    "audio": ("/send/audio", "audio"),
}
_REJECTED = frozenset({"VALIDATION_ERROR", "BAD_REQUEST", "INVALID_REQUEST"})
_LOST = frozenset({"DEVICE_ID_REQUIRED", "DEVICE_NOT_FOUND", "NOT_FOUND", "DEVICE_MANAGER_UNAVAILABLE"})
_TEMPORARY = frozenset(
    {"INVALID_WA_CLI", "UPLOAD_MEDIA_ERROR", "QR_CHANNEL_ERROR", "SESSION_SAVED_ERROR", "WEBHOOK_ERROR"}
)
_RECEIPTS: Mapping[str, ReceiptStatus] = {"delivered": "delivered", "read": "read", "played": "read"}
_MEDIA = ("image", "video", "audio", "document", "sticker", "contact", "location")


class GowaClient(JsonClient):
    """One device of a GOWA server."""

    def __init__(self, config: DeviceConfig) -> None:
        user, password = config.credentials.get("username", ""), config.credentials.get("password", "")
        super().__init__(
            config,
            label=GowaDriver.label,
            carries=GowaDriver.carries,
            default_base_url=GowaDriver.default_base_url,
            headers={"Authorization": "Basic " + b64encode(f"{user}:{password}".encode()).decode()} if user else {},
            slow=SLOW,
        )
        self._device = quote(config.credentials.get("device_id", ""), safe="")

    def _worded(self, outgoing: Outgoing) -> tuple[str, dict[str, Any] | http.Content]:
        fields = {"phone": whatsmeow.digits(outgoing.phone)}
        if outgoing.media is None:
            return f"/send/message?device_id={self._device}", {**fields, "message": outgoing.text}
        path, name = _PATHS[outgoing.type]
        if outgoing.type != "audio":
            fields["caption"] = outgoing.text
        if outgoing.type in {"image", "video"}:
            fields["compress"] = "false"  # else pictures shrink to 600 pixels
        body = payloads.multipart(fields, name=name, media=outgoing.media, file=outgoing.media.read())
        return f"{path}?device_id={self._device}", body

    def _outcome(self, answer: http.Answer, outgoing: Outgoing) -> Outcome:
        if answer.status == 200:
            results = answer.json().get("results")
            external_id = results.get("message_id") if isinstance(results, dict) else None
            if not isinstance(external_id, str) or not external_id:
                raise http.BrokenAnswer("accepted without an id")
            return Accepted(external_id)
        try:
            said = answer.json()
        except http.BrokenAnswer:
            return http.unlisted(answer)  # a proxy, or the log-in in front of everything
        return self._refused(said.get("code"), str(said.get("message", "")), answer, attempt=outgoing.attempt)

    def _refused(self, named: object, words: str, answer: http.Answer, *, attempt: int) -> Outcome:
        match named:
            case "INVALID_JID" if attempt == 1:
                return Temporary("invalid_jid", "Not sent: the number is not on WhatsApp, or could not be looked up.")
            case "INVALID_JID":
                return Rejected("not_on_whatsapp", "This number is not on WhatsApp.")
            case "AUTHENTICATION_ERROR":
                return self._logged_out()
            case "WA_REACHOUT_TIMELOCK":
                return whatsmeow.reach_out_locked()
            case "INTERNAL_SERVER_ERROR":
                return whatsmeow.classify(words)
            case "CONTEXT_ERROR" | "GATEWAY_TIMEOUT":
                return Unknown(str(named).lower(), "The gateway gave up waiting for WhatsApp.")
            case str() if named in _REJECTED:
                return self._rejected(named, words, status=answer.status)
            case str() if named in _LOST:
                return SessionLost(named.lower(), self._quoted(words, status=answer.status))
            case str() if named in _TEMPORARY:
                return Temporary(named.lower(), self._quoted(words, status=answer.status))
        return http.unlisted(answer)

    def _standing(self) -> Standing | Temporary | SessionLost:
        answer = self._ask("GET", f"/devices/{self._device}/status")
        if not isinstance(answer, http.Answer):
            return answer
        if answer.status == 404:
            return "absent"
        match answer.json().get("results") if answer.status == 200 else None:
            case {"is_connected": True, "is_logged_in": True}:
                return "linked"
            case {"is_connected": False, "is_logged_in": True}:
                return "starting"
            case {"is_logged_in": False}:
                return "unlinked"
        return Temporary(f"http_{answer.status}", "The gateway did not say how this device is.")

    def _create(self) -> Pairing:
        answer = self._ask("POST", "/devices", {"device_id": self._config.credentials.get("device_id", "")})
        if not isinstance(answer, http.Answer):
            return failed(answer)
        if answer.status != 200:
            return Pairing("failed", text=f"The gateway did not make the device: HTTP {answer.status}.")
        return Pairing("waiting", text="The device was made.")

    def _show(self, phone: str | None) -> Pairing:
        by_code = f"/login/code?phone={whatsmeow.digits(phone)}" if phone else ""
        answer = self._ask("POST" if phone else "GET", f"/devices/{self._device}{by_code or '/login'}")
        if not isinstance(answer, http.Answer):
            return failed(answer)
        said = answer.json()
        if answer.status != 200:
            return Pairing("failed", text=self._quoted(said.get("message"), status=answer.status))
        results = said.get("results")
        if not isinstance(results, dict):
            raise http.BrokenAnswer("no results")
        if phone:
            return code(results.get("pair_code"))
        picture = self._ask("GET", path_of(results.get("qr_link")))
        if not isinstance(picture, http.Answer):
            return failed(picture)
        return qr("data:image/png;base64," + b64encode(picture.body).decode() if picture.status == 200 else "")

    def log_out(self) -> Accepted | Temporary | SessionLost:
        """Unlink the device from its phone."""
        return self._order("POST", f"/devices/{self._device}/logout")

    def restart(self) -> Accepted | Temporary | SessionLost:
        """Have it connect anew."""
        return self._order("POST", f"/devices/{self._device}/reconnect")


class GowaDriver:
    """go-whatsapp-web-multidevice: a self-hosted server for WhatsApp sessions."""

    kind: ClassVar[str] = "gowa"
    label: ClassVar[str] = "GOWA (go-whatsapp-web-multidevice)"
    transport: ClassVar[Transport] = "http"
    id_semantics: ClassVar[IdSemantics] = "none"
    id_proof: ClassVar[str] = ""
    carries: ClassVar[Mapping[ContentType, Carries]] = {
        "text": Carries(),
        "image": Carries(max_bytes=20_000_000, media="bytes", mime_types=frozenset({"image/jpeg", "image/png"})),
        "document": Carries(max_bytes=50_000_000, media="bytes"),
        "video": Carries(max_bytes=100_000_000, media="bytes"),
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
        CredentialField("device_id", "Device id", "The device's name on the server.", secret=False),
        CredentialField("username", "User", "The server's own log-in, if it has one.", secret=False, required=False),
        CredentialField("password", "Password", "Belongs to the user.", required=False),
        WEBHOOK_SECRET,
    )

    def connect(self, config: DeviceConfig) -> GowaClient:
        """A client for this device. Opens nothing."""
        return GowaClient(config)

    def webhook(self, hook: Hook) -> tuple[News, ...]:
        """Receipts of one ``message.ack``, or one reply; nothing for other events. Raises BadSignature or Malformed."""
        webhooks.require_hmac(hook, header=SIGNATURE)
        event = webhooks.json_object(hook.body)
        payload = event.get("payload")
        if not isinstance(payload, dict):
            return ()
        match event.get("event"):
            case "message.ack":
                return _receipts(event, payload, hook)
            case "message":
                return _reply(event, payload, hook)
        return ()


def _receipts(event: dict[str, Any], payload: dict[str, Any], hook: Hook) -> tuple[News, ...]:
    status = _RECEIPTS.get(str(payload.get("receipt_type")))
    ids = payload.get("ids")
    if status is None or not isinstance(ids, list):
        return ()
    device = event.get("session_id") or event.get("device_id")
    return tuple(
        Receipt(
            event_id=digest("gowa", device, external_id, status),
            status=status,
            at=moment(event.get("timestamp"), default=hook.now),
            external_id=webhooks.text_of({"id": external_id}, "id"),
            device_id=hook.device_id,
        )
        for external_id in ids
    )


def _reply(event: dict[str, Any], payload: dict[str, Any], hook: Hook) -> tuple[News, ...]:
    phone, chat = whatsmeow.phone_of(payload.get("from")), str(payload.get("chat_id"))
    in_person = chat.endswith(("@lid", "@s.whatsapp.net"))
    if payload.get("is_from_me") or not phone or not in_person:
        return ()
    external_id = webhooks.text_of(payload, "id")
    device = event.get("session_id") or event.get("device_id")
    return (
        Reply(
            event_id=digest("gowa", device, external_id),
            phone=phone,
            text=reply_text(payload.get("body"), media=next((kind for kind in _MEDIA if payload.get(kind)), "")),
            at=moment(payload.get("timestamp"), default=hook.now),
            external_id=external_id,
            device_id=hook.device_id,
        ),
    )
