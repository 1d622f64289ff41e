"""The driver for wuzapi, a self-hosted WhatsApp HTTP API.

Wire format: asternic/wuzapi ``API.md handlers.go helpers.go wmiau.go``. The header ``token`` names the device.

============================================= =================================================================
answer                                        outcome
============================================= =================================================================
200 with ``data.Id``                          accepted
400                                           rejected
401                                           session lost: the token
500 "no session"                              session lost
500 "failed to upload file…"                  temporary
500 "error sending message: …"                by what follows, see :mod:`devices.gateways.whatsmeow`
anything else                                 see :mod:`devices.gateways.http`
============================================= =================================================================

Our reference travels as ``Id``: it becomes the WhatsApp message's id, so receipts name it. Webhooks are a form with
``jsonData``, or JSON, signed in ``x-hmac-signature`` over the raw body (a form is encoded in the order of its names, as
it is signed). Webhooks that carry a file sign something else and are not read: turn media off there.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, ClassVar
from urllib.parse import parse_qs

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
    SessionLost,
    Temporary,
    Transport,
)
from devices.gateways.json_client import JsonClient, Standing, code, failed, qr
from devices.gateways.news import DeviceEvent, DeviceStatus, Hook, Malformed, News, Receipt, ReceiptStatus, Reply
from devices.gateways.whatsapp_news import digest, moment, reply_text

SIGNATURE = "x-hmac-signature"
SLOW = Deadlines(connect_seconds=5, read_seconds=82, total_seconds=85)
"""It waits for WhatsApp for 75 seconds, and then says what happened."""

EVENTS = ("Message", "ReadReceipt", "Connected", "Disconnected", "LoggedOut", "TemporaryBan", "StreamReplaced")
OCTETS = "application/octet-stream"
"""The only type that all versions take for documents; the true one goes beside it."""

_RECEIPTS: Mapping[str, ReceiptStatus] = {"Delivered": "delivered", "Read": "read"}
_NEWS: Mapping[str, DeviceStatus] = {
    "Connected": "connected", "Disconnected": "disconnected", "LoggedOut": "logged_out", "TemporaryBan": "banned",
    "StreamReplaced": "replaced",
}  # fmt: skip


class WuzapiClient(JsonClient):
    """One user of a wuzapi server: its word for a device."""

    def __init__(self, config: DeviceConfig) -> None:
        super().__init__(
            config,
            label=WuzapiDriver.label,
            carries=WuzapiDriver.carries,
            default_base_url=WuzapiDriver.default_base_url,
            headers={"token": config.credentials.get("token", "")},
            slow=SLOW,
        )

    def _worded(self, outgoing: Outgoing) -> tuple[str, dict[str, Any] | http.Content]:
        body: dict[str, Any] = {"Phone": whatsmeow.digits(outgoing.phone), "Id": outgoing.reference}
        media = outgoing.media
        if media is None:
            return "/chat/send/text", {**body, "Body": outgoing.text}
        name = outgoing.type.capitalize()
        body[name] = payloads.data_uri(OCTETS if outgoing.type == "document" else media.mime_type)
        body["MimeType"] = media.mime_type
        if outgoing.type == "document":
            body["FileName"] = media.filename
        if outgoing.type != "audio":
            body["Caption"] = outgoing.text
        return f"/chat/send/{outgoing.type}", payloads.json_around(body, file=media.read())

    def _outcome(self, answer: http.Answer, outgoing: Outgoing) -> Outcome:
        del outgoing
        if answer.status == 200:
            external_id = _data(answer).get("id")
            if not isinstance(external_id, str) or not external_id:
                raise http.BrokenAnswer("accepted without an id")
            return Accepted(external_id)
        if answer.status not in {400, 500}:
            return http.unlisted(answer)
        try:
            words = str(answer.json().get("error", ""))
        except http.BrokenAnswer:
            return http.unlisted(answer)
        said = words.casefold()
        if said == "no session":
            return self._logged_out()
        if answer.status == 400:
            return self._rejected("", words, status=400)
        if said.startswith("failed to upload file"):
            return Temporary("upload_failed", "Not sent: the file could not be uploaded to WhatsApp.")
        return whatsmeow.classify(words)

    def _standing(self) -> Standing | Temporary | SessionLost:
        answer = self._ask("GET", "/session/status")
        if not isinstance(answer, http.Answer):
            return answer
        if answer.status == 500 and "no session" in str(answer.json().get("error", "")).casefold():
            return "unlinked"
        match _data(answer) if answer.status == 200 else None:
            case {"loggedin": True}:
                return "linked"
            case {"connected": False, "jid": str() as stored} if stored:
                return "starting"  # it has a phone; the next request to connect brings it back
            case {"loggedin": False}:
                return "unlinked"
        return Temporary(f"http_{answer.status}", "The gateway did not say how this device is.")

    def _key_refused(self) -> SessionLost:
        return SessionLost("token_refused", "wuzapi knows no user with this token.")

    def _show(self, phone: str | None) -> Pairing:
        started = self.restart()
        if isinstance(started, SessionLost):
            return failed(started)
        answer = (
            self._ask("POST", "/session/pairphone", {"Phone": whatsmeow.digits(phone)})
            if phone
            else self._ask("GET", "/session/qr")
        )
        if not isinstance(answer, http.Answer):
            return failed(answer)
        if answer.status != 200:
            return Pairing("waiting", text="wuzapi is connecting to WhatsApp.")
        return code(_data(answer).get("linkingcode")) if phone else qr(_data(answer).get("qrcode"))

    def log_out(self) -> Accepted | Temporary | SessionLost:
        """Unlink the device from its phone."""
        return self._order("POST", "/session/logout")

    def restart(self) -> Accepted | Temporary | SessionLost:
        """Have it connect. It answers 500 if it is connected, which is what was wanted."""
        answered = self._order("POST", "/session/connect", {"Subscribe": list(EVENTS), "Immediate": True})
        return Accepted() if isinstance(answered, Temporary) and answered.code == "http_500" else answered


def _data(answer: http.Answer) -> dict[str, Any]:
    """``data`` of an answer, its names in lower case: versions differ in that. Raises BrokenAnswer."""
    data = answer.json().get("data")
    if not isinstance(data, dict):
        raise http.BrokenAnswer("no data")
    return {str(name).lower(): value for name, value in data.items()}


class WuzapiDriver:
    """wuzapi: a self-hosted server for WhatsApp sessions."""

    kind: ClassVar[str] = "wuzapi"
    label: ClassVar[str] = "wuzapi"
    transport: ClassVar[Transport] = "http"
    id_semantics: ClassVar[IdSemantics] = "echoed"
    id_proof: ClassVar[str] = (
        "asternic/wuzapi handlers.go gives Id to whatsmeow (SendRequestExtra.ID): it becomes the WhatsApp message's id "
        "and its receipts name it in MessageIDs. Whether WhatsApp drops a second message of one id, nobody says."
    )
    carries: ClassVar[Mapping[ContentType, Carries]] = {
        "text": Carries(),
        "image": Carries(
            max_bytes=16_000_000, media="bytes", mime_types=frozenset({"image/jpeg", "image/png", "image/webp"})
        ),
        "document": Carries(max_bytes=100_000_000, media="bytes"),
        "video": Carries(max_bytes=100_000_000, media="bytes"),
        "audio": Carries(max_text=0, max_bytes=16_000_000, media="bytes", mime_types=frozenset({"audio/ogg"})),
    }
    window_hours: ClassVar[int | None] = None
    pairing: ClassVar[frozenset[PairingWay]] = frozenset({"qr", "code"})
    signs_webhooks: ClassVar[bool] = True
    receipts: ClassVar[bool] = True
    replies: ClassVar[bool] = True
    rate: ClassVar[str] = "none published"
    default_base_url: ClassVar[str] = "http://127.0.0.1:8080"
    credential_fields: ClassVar[tuple[CredentialField, ...]] = (
        CredentialField("token", "Token", "The user's token, made by the server's admin."),
        WEBHOOK_SECRET,
    )

    def connect(self, config: DeviceConfig) -> WuzapiClient:
        """A client for this user. Opens nothing."""
        return WuzapiClient(config)

    def webhook(self, hook: Hook) -> tuple[News, ...]:
        """What one request tells; nothing for events we do not know. Raises BadSignature or Malformed."""
        webhooks.require_hmac(hook, header=SIGNATURE, prefix="")
        told, who = _unpacked(hook)
        event = told.get("event")
        match told.get("type"):
            case "ReadReceipt" if isinstance(event, dict):
                return _receipts(who, told, event, hook)
            case "Message" if isinstance(event, dict):
                return _reply(who, event, hook)
            case str() as kind if kind in _NEWS:
                # no time and no id in it: told again, it is new again, which does no harm
                named = digest("wuzapi", who, kind, hook.now.isoformat())
                return (DeviceEvent(named, _NEWS[kind], hook.now, hook.device_id, code=kind.lower()),)
        return ()


def _unpacked(hook: Hook) -> tuple[dict[str, Any], str]:
    """The event, and the user it is about as the server names it. Raises Malformed."""
    if hook.headers.get("content-type", "").startswith("application/x-www-form-urlencoded"):
        try:
            form = parse_qs(hook.body.decode("utf-8", "replace"), max_num_fields=50)
            told = json.loads(form["jsonData"][0])
        except (ValueError, KeyError, RecursionError):
            raise Malformed("malformed", "The form has no jsonData that is JSON.") from None
        who = (form.get("userID") or form.get("instanceName") or form.get("token") or [""])[0]
    else:
        told = webhooks.json_object(hook.body)
        who = str(told.get("userID") or told.get("instanceName") or told.get("token") or "")
    if not isinstance(told, dict):
        raise Malformed("malformed", "jsonData is not a JSON object.")
    return told, who


def _receipts(who: str, told: dict[str, Any], event: dict[str, Any], hook: Hook) -> tuple[News, ...]:
    status, ids = _RECEIPTS.get(str(told.get("state"))), event.get("MessageIDs")
    if status is None or not isinstance(ids, list):
        return ()
    named = [webhooks.text_of({"MessageIDs": each}, "MessageIDs") for each in ids]
    at = moment(event.get("Timestamp"), default=hook.now)
    return tuple(
        Receipt(digest("wuzapi", who, each, status), status, at, each, external_id=each, device_id=hook.device_id)
        for each in named
    )


def _reply(who: str, event: dict[str, Any], hook: Hook) -> tuple[News, ...]:
    info, message = event.get("Info"), event.get("Message")
    if not isinstance(info, dict) or info.get("IsFromMe") or info.get("IsGroup"):
        return ()
    phone = whatsmeow.phone_of(info.get("Sender")) or whatsmeow.phone_of(info.get("SenderAlt"))
    if not phone or not str(info.get("Chat")).endswith(("@s.whatsapp.net", "@lid")):
        return ()
    external_id = webhooks.text_of(info, "ID")
    return (
        Reply(
            event_id=digest("wuzapi", who, external_id),
            phone=phone,
            text=_text_of(message if isinstance(message, dict) else {}, kind=str(info.get("MediaType") or "")),
            at=moment(info.get("Timestamp"), default=hook.now),
            external_id=external_id,
            device_id=hook.device_id,
        ),
    )


def _text_of(message: Mapping[str, Any], *, kind: str) -> str:
    match message:
        case {"conversation": str() as text} | {"extendedTextMessage": {"text": str() as text}}:
            return reply_text(text)
    captions = (part.get("caption") for part in message.values() if isinstance(part, dict))
    return reply_text(next(filter(None, captions), ""), media=kind[:30])
