"""The driver for Evolution API, version 2, with its own WhatsApp engine (Baileys).

Wire format: EvolutionAPI/evolution-api ``src/api/routes/ src/exceptions/ src/validate/message.schema.ts`` and
``src/api/integrations/channel/whatsapp/whatsapp.baileys.service.ts``. The instance is named in the path, the key
travels in ``apikey``. Errors are ``{"status", "error", "response": {"message"}}``:

======================================================== ======================================================
answer                                                   outcome
======================================================== ======================================================
200, 201 with ``key.id``                                 accepted
400 with an object ``exists: false``                     rejected: not on WhatsApp
400 with a list in the list (the schema's complaints)    rejected
any other 400                                            unknown: failures after the send become 400 as well
401, 403, 404                                            session lost: the key, or no such instance
500 "Connection Closed", "Cannot read properties of"     temporary: the look-up before the send failed
anything else                                            see :mod:`devices.gateways.http`
======================================================== ======================================================

A send does not say that the instance was logged out; its ``connection.update`` does, and so does :meth:`check`, which
asks for the reason of the last disconnection (``disconnectionReasonCode``). Webhooks are JSON and signed as a whole by
no one: with ``jwt_key`` among the webhook's headers each carries a bearer token (HS256, ten minutes), which proves who
sent it and nothing about the body. Only HTTPS keeps that token secret.
"""

from __future__ import annotations

import hmac
import json
from base64 import urlsafe_b64decode
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
    Rejected,
    SessionLost,
    Temporary,
    Transport,
    Unknown,
)
from devices.gateways.json_client import JsonClient, Standing, code, failed, qr
from devices.gateways.news import BadSignature, DeviceEvent, Hook, News, Receipt, ReceiptStatus, Reply
from devices.gateways.whatsapp_news import digest, moment, reply_text

MAX_FILE_BYTES = 100_000_000
"""Its JSON may have 136 MB, and base64 takes a third more than the file."""

_LOGGED_OUT = frozenset({401, 403, 406})
_BANNED = 402
_BEFORE_SENDING = ("Connection Closed", "Cannot read properties of")
_RECEIPTS: Mapping[str, ReceiptStatus] = {
    "SERVER_ACK": "sent", "DELIVERY_ACK": "delivered", "READ": "read", "PLAYED": "read", "ERROR": "failed",
}  # fmt: skip


class EvolutionClient(JsonClient):
    """One instance of an Evolution API server."""

    shows_while_starting = True  # "connecting" is also said of an instance that waits for its phone

    def __init__(self, config: DeviceConfig) -> None:
        super().__init__(
            config,
            label=EvolutionDriver.label,
            carries=EvolutionDriver.carries,
            default_base_url=EvolutionDriver.default_base_url,
            headers={"apikey": config.credentials.get("apikey", "")},
        )
        self._name = config.credentials.get("instance", "")
        self._instance = quote(self._name, safe="")

    def _worded(self, outgoing: Outgoing) -> tuple[str, dict[str, Any] | http.Content]:
        body: dict[str, Any] = {"number": whatsmeow.digits(outgoing.phone)}
        media = outgoing.media
        if media is None:
            return f"/message/sendText/{self._instance}", {**body, "text": outgoing.text}
        if outgoing.type == "audio":
            body["audio"] = payloads.SLOT
            return f"/message/sendWhatsAppAudio/{self._instance}", payloads.json_around(body, file=media.read())
        body |= {"mediatype": outgoing.type, "mimetype": media.mime_type, "fileName": media.filename}
        body |= {"caption": outgoing.text, "media": payloads.SLOT}
        return f"/message/sendMedia/{self._instance}", payloads.json_around(body, file=media.read())

    def _outcome(self, answer: http.Answer, outgoing: Outgoing) -> Outcome:
        del outgoing
        if answer.status in {200, 201}:
            match answer.json():
                case {"key": {"id": str() as external_id}} if external_id:
                    return Accepted(external_id)
            raise http.BrokenAnswer("accepted without an id")
        if answer.status == 404:
            return SessionLost("no_such_instance", "Evolution API knows no such instance: pair it to make it.")
        if answer.status not in {400, 500}:
            return http.unlisted(answer)
        words = _words(answer)
        if answer.status == 500:
            if any(isinstance(word, str) and known in word for word in words for known in _BEFORE_SENDING):
                return Temporary("not_connected", "Not sent: the instance is not connected to WhatsApp.")
            return http.unlisted(answer)
        if any(isinstance(word, dict) and word.get("exists") is False for word in words):
            return Rejected("not_on_whatsapp", "This number is not on WhatsApp.")
        complaints = [str(each) for word in words if isinstance(word, list) for each in word]
        if complaints:
            return self._rejected("invalid_request", "; ".join(complaints), status=400)
        return Unknown("http_400", "Evolution API answered with an error that it also gives after sending.")

    def _standing(self) -> Standing | Temporary | SessionLost:
        answer = self._ask("GET", f"/instance/connectionState/{self._instance}")
        if not isinstance(answer, http.Answer):
            return answer
        if answer.status == 404:
            return "absent"
        match answer.json() if answer.status == 200 else None:
            case {"instance": {"state": "open"}}:
                return "linked"
            case {"instance": {"state": "connecting"}}:
                return "starting"
            case {"instance": {"state": "close"}}:
                return self._why_closed()
        return Temporary(f"http_{answer.status}", "The gateway did not say how this instance is.")

    def _why_closed(self) -> Standing | Temporary | SessionLost:
        """Logged out, or between two connections: ``close`` says neither."""
        answer = self._ask("GET", f"/instance/fetchInstances?instanceName={self._instance}")
        if not isinstance(answer, http.Answer):
            return answer
        try:
            found = json.loads(answer.body)
        except (ValueError, RecursionError):
            raise http.BrokenAnswer("the answer is not JSON") from None
        match found[0] if isinstance(found, list) and found else found:
            case {"disconnectionReasonCode": int() as reason} if reason in _LOGGED_OUT:
                return "unlinked"
            case {"disconnectionReasonCode": int() as reason} if reason == _BANNED:
                return SessionLost("banned", "WhatsApp has banned this account for a while.", banned=True)
            case {"disconnectionReasonCode": int()}:
                return Temporary("closed", "The instance has lost its connection to WhatsApp and tries again.")
        return "unlinked"  # never connected so far

    def _create(self) -> Pairing:
        body = {"instanceName": self._name, "integration": "WHATSAPP-BAILEYS", "qrcode": False}
        answer = self._ask("POST", "/instance/create", body)
        if not isinstance(answer, http.Answer):
            return failed(answer)
        if answer.status not in {200, 201}:
            return Pairing("failed", text=f"Evolution API did not make the instance: HTTP {answer.status}.")
        return Pairing("waiting", text="The instance was made.")

    def _show(self, phone: str | None) -> Pairing:
        number = f"?number={whatsmeow.digits(phone)}" if phone else ""
        answer = self._ask("GET", f"/instance/connect/{self._instance}{number}")
        if not isinstance(answer, http.Answer):
            return failed(answer)
        said = answer.json()
        if answer.status != 200 or said.get("error"):
            return Pairing("failed", text=self._quoted(said.get("message"), status=answer.status))
        if phone and said.get("pairingCode"):
            return code(said["pairingCode"])
        return Pairing("waiting", text="The code is on its way.") if phone else qr(said.get("code"))

    def log_out(self) -> Accepted | Temporary | SessionLost:
        """Unlink the instance from its phone."""
        return self._order("DELETE", f"/instance/logout/{self._instance}")

    def restart(self) -> Accepted | Temporary | SessionLost:
        """Have it connect anew."""
        return self._order("POST", f"/instance/restart/{self._instance}")


def _words(answer: http.Answer) -> list[Any]:
    """``response.message`` of an error, as a list; empty if there is none."""
    try:
        response = answer.json().get("response")
    except http.BrokenAnswer:
        return []
    words = response.get("message") if isinstance(response, dict) else None
    return words if isinstance(words, list) else [words]


class EvolutionDriver:
    """Evolution API: a self-hosted server for WhatsApp sessions."""

    kind: ClassVar[str] = "evolution"
    label: ClassVar[str] = "Evolution API"
    transport: ClassVar[Transport] = "http"
    id_semantics: ClassVar[IdSemantics] = "none"
    id_proof: ClassVar[str] = ""
    carries: ClassVar[Mapping[ContentType, Carries]] = {
        "text": Carries(),
        "image": Carries(max_bytes=MAX_FILE_BYTES, media="bytes"),
        "document": Carries(max_bytes=MAX_FILE_BYTES, media="bytes"),
        "video": Carries(max_bytes=MAX_FILE_BYTES, media="bytes"),
        "audio": Carries(max_text=0, max_bytes=MAX_FILE_BYTES, media="bytes"),
    }
    window_hours: ClassVar[int | None] = None
    pairing: ClassVar[frozenset[PairingWay]] = frozenset({"qr", "code"})
    signs_webhooks: ClassVar[bool] = True
    receipts: ClassVar[bool] = True
    replies: ClassVar[bool] = True
    rate: ClassVar[str] = "none published"
    default_base_url: ClassVar[str] = "http://127.0.0.1:8080"
    credential_fields: ClassVar[tuple[CredentialField, ...]] = (
        CredentialField("instance", "Instance", "The instance's name on the server.", secret=False),
        CredentialField("apikey", "API key", "The server's key, or the instance's own."),
        WEBHOOK_SECRET,
    )

    def connect(self, config: DeviceConfig) -> EvolutionClient:
        """A client for this instance. Opens nothing."""
        return EvolutionClient(config)

    def webhook(self, hook: Hook) -> tuple[News, ...]:
        """What one request tells; nothing for events we do not know. Raises BadSignature or Malformed."""
        _require_token(hook)
        event = webhooks.json_object(hook.body)
        data = event.get("data")
        many = [each for each in (data if isinstance(data, list) else [data]) if isinstance(each, dict)]
        instance = event.get("instance")
        match event.get("event"):
            case "messages.update":
                return tuple(news for each in many for news in _receipt(instance, each, hook))
            case "messages.upsert":
                return tuple(news for each in many for news in _reply(instance, each, hook))
            case "connection.update":
                return tuple(news for each in many for news in _device_news(event, each, hook))
        return ()


def _require_token(hook: Hook) -> None:
    """Raise BadSignature unless the request carries a token (RFC 7519, HS256) of one of the secrets that is still good.

    Every secret is tried, whichever fits, so that the time tells nothing.
    """
    token = hook.headers.get("authorization", "").removeprefix("Bearer ")
    signed, _, signature = token.encode("utf-8", "replace").rpartition(b".")
    given = _decoded(signature)
    fits = [hmac.compare_digest(given, hmac.digest(secret.encode(), signed, "sha256")) for secret in hook.secrets]
    head, _, claims = signed.partition(b".")
    if not any(fits) or _claims(head).get("alg") != "HS256":
        raise BadSignature("bad_signature", "The token in authorization is not signed with the secret of this gateway.")
    until = _claims(claims).get("exp")
    good = isinstance(until, int | float) and until >= hook.now.timestamp()  # NaN is not
    if not good:
        raise BadSignature("stale", "The token in authorization has run out: check the clocks.")


def _decoded(part: bytes) -> bytes:
    try:
        return urlsafe_b64decode(part + b"=" * (-len(part) % 4))
    except ValueError:
        return b""


def _claims(part: bytes) -> dict[str, Any]:
    try:
        value = json.loads(_decoded(part))
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _receipt(instance: object, data: dict[str, Any], hook: Hook) -> tuple[News, ...]:
    status = _RECEIPTS.get(str(data.get("status")))
    if status is None or data.get("fromMe") is False:
        return ()
    external_id = webhooks.text_of(data, "keyId")
    event_id = digest("evolution", instance, external_id, status)
    return (Receipt(event_id, status, hook.now, external_id=external_id, device_id=hook.device_id),)


def _reply(instance: object, data: dict[str, Any], hook: Hook) -> tuple[News, ...]:
    key, message = data.get("key"), data.get("message")
    if not isinstance(key, dict) or key.get("fromMe"):
        return ()
    known_as = (key.get(name) for name in ("remoteJid", "remoteJidAlt", "senderPn"))
    phone = next(filter(None, map(whatsmeow.phone_of, known_as)), "")
    if not phone or str(key.get("remoteJid")).endswith("@g.us"):
        return ()
    external_id = webhooks.text_of(key, "id")
    return (
        Reply(
            event_id=digest("evolution", instance, external_id),
            phone=phone,
            text=_text_of(message if isinstance(message, dict) else {}, kind=str(data.get("messageType") or "")),
            at=moment(data.get("messageTimestamp"), default=hook.now),
            external_id=external_id,
            device_id=hook.device_id,
        ),
    )


def _text_of(message: Mapping[str, Any], *, kind: str) -> str:
    match message:
        case {"conversation": str() as text} | {"extendedTextMessage": {"text": str() as text}}:
            return reply_text(text)
    captions = (part.get("caption") for part in message.values() if isinstance(part, dict))
    return reply_text(next(filter(None, captions), ""), media=kind.removesuffix("Message")[:30])


def _device_news(event: Mapping[str, Any], data: dict[str, Any], hook: Hook) -> tuple[News, ...]:
    given = data.get("statusReason")
    reason = given if isinstance(given, int) else None
    # no time in it is its own, but the server's stamp stays when the same request comes again
    named = digest("evolution", event.get("instance"), data.get("state"), reason, event.get("date_time"))
    match data.get("state"):
        case "open":
            return (DeviceEvent(named, "connected", hook.now, hook.device_id),)
        case "close" if reason == _BANNED:
            return (DeviceEvent(named, "banned", hook.now, hook.device_id, code="402"),)
        case "close" if reason in _LOGGED_OUT:
            return (DeviceEvent(named, "logged_out", hook.now, hook.device_id, code=str(reason)),)
        case "refused":
            return (DeviceEvent(named, "logged_out", hook.now, hook.device_id, code="refused"),)
        case "close":
            return (DeviceEvent(named, "disconnected", hook.now, hook.device_id, code=str(reason or "")[:20]),)
    return ()
