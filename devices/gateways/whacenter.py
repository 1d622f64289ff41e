"""The driver for Whacenter, a hosted WhatsApp gateway.

Wire format: the vendor's Postman collection "Whacenter | Whatsapp API Gateway". Little is documented: no id for a
message, no receipts, no limits. The one credential, ``device_id``, travels in the body or the query.

=============================== ==============================================================
answer                          outcome
=============================== ==============================================================
``status`` true                 accepted, without an id
``status`` false                certainly not sent; its words decide, see :data:`WORDS`
429                             throttled
5xx, no JSON, no ``status``     see :mod:`devices.gateways.http`
=============================== ==============================================================

Webhooks are unsigned, JSON or a form, and hold no id and no time: told again within five minutes they are the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, ClassVar
from urllib.parse import quote

from devices.gateways import http
from devices.gateways.base import (
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
)
from devices.gateways.bodies import event_id, fields_of, flag, phone_of, said
from devices.gateways.hosted import form_of, picture
from devices.gateways.json_client import JsonClient, Standing
from devices.gateways.news import Hook, Malformed, News, Reply
from devices.gateways.webhooks import MAX_REPLY, MAX_TEXT

SAME_SECONDS = 300
"""The same words of the same person within one such stretch of time are one reply."""

LOGGED_OUT = SessionLost("logged_out", "The device is not connected, or Whacenter does not know it: scan its QR code.")
WORDS: tuple[tuple[tuple[str, ...], Outcome], ...] = (
    (("not valid", "invalid number", "not registered"), Rejected("refused", "")),
    (("not found", "not connect", "disconnect"), LOGGED_OUT),
)
"""What a refusal means by a part of its words, in lower case; the first that fits. Anything else is temporary."""


class WhacenterClient(JsonClient):
    """One Whacenter device."""

    def __init__(self, config: DeviceConfig) -> None:
        self._device = config.credentials.get("device_id", "")
        super().__init__(
            config,
            label=WhacenterDriver.label,
            carries=WhacenterDriver.carries,
            default_base_url=WhacenterDriver.default_base_url,
            headers={},
        )

    def _worded(self, outgoing: Outgoing) -> tuple[str, http.Content]:
        """Attachments travel as a link, which Whacenter fetches."""
        form = {"device_id": self._device, "number": outgoing.phone.removeprefix("+"), "message": outgoing.text}
        if outgoing.media is not None:
            form["file"] = outgoing.media.url
            if outgoing.type in {"video", "audio"}:
                form["type"] = outgoing.type
        return "/send", form_of(form)

    def _outcome(self, answer: http.Answer, outgoing: Outgoing | None = None) -> Outcome:
        del outgoing
        body = _object(answer)
        if answer.status >= 500 or answer.status == 429 or not isinstance(body.get("status"), bool):
            if answer.status == 200:
                raise http.BrokenAnswer("no status")
            return http.unlisted(answer)
        if body["status"]:
            return Accepted()
        told = said(body, "message", most=MAX_TEXT) or said(body, "msg", most=MAX_TEXT)
        words = http.clean(told, credentials=self._config.credentials)
        for parts, outcome in WORDS:
            if any(part in words.lower() for part in parts):
                return Rejected(outcome.code, words) if isinstance(outcome, Rejected) else outcome
        return Temporary("not_sent", words or "Whacenter says that it was not sent, and not why.")

    # -- the device ------------------------------------------------------------------------------------------------

    def _standing(self) -> Standing | Temporary | SessionLost:
        answer = self._ask("GET", f"/statusDevice?device_id={quote(self._device, safe='')}")
        if not isinstance(answer, http.Answer):
            return answer
        body = _object(answer)
        data = body.get("data")
        match (body.get("status"), data.get("status") if isinstance(data, dict) else None):
            case (True, "CONNECTED"):
                return "linked"
            case (True, "NOT CONNECTED"):
                return "unlinked"
        return self._doubt(answer)

    def _show(self, phone: str | None) -> Pairing:
        """The picture to scan. Whacenter gives no code to type."""
        del phone
        return picture(self._ask("GET", f"/qr?device_id={quote(self._device, safe='')}"), label=self._label)

    def log_out(self) -> Accepted | Temporary | SessionLost:
        """Whacenter has no call for it."""
        return Temporary("not_supported", "Whacenter cannot be told to log out: unlink the device on its phone.")

    def restart(self) -> Accepted | Temporary | SessionLost:
        """Have Whacenter log the device in anew."""
        self._shown = None
        answer = self._call("POST", "/relogDevice", form_of({"device_id": self._device}))
        if isinstance(answer, Temporary | SessionLost):
            return answer
        done = isinstance(answer, http.Answer) and answer.status == 200 and _object(answer).get("status") is True
        return Accepted() if done else self._doubt(answer)

    def _doubt(self, answer: object) -> Temporary | SessionLost:
        """What an answer comes to that does not say yes: refused for a reason that a person can mend, or not clear."""
        if isinstance(answer, http.Answer) and _object(answer).get("status") is False:
            outcome = self._outcome(answer)
            if isinstance(outcome, SessionLost):
                return outcome
        return Temporary("unclear", "Whacenter did not say that this device can send.")

    def _logged_out(self) -> SessionLost:
        return LOGGED_OUT


def _object(answer: http.Answer) -> dict[str, Any]:
    """The body, empty where it is no JSON object. The header does not count: JSON comes as text/html too."""
    try:
        return answer.json()
    except http.BrokenAnswer:
        return {}


class WhacenterDriver:
    """A hosted gateway for WhatsApp sessions that it keeps itself."""

    kind: ClassVar[str] = "whacenter"
    label: ClassVar[str] = "Whacenter"
    transport: ClassVar[Transport] = "http"
    id_semantics: ClassVar[IdSemantics] = "none"
    id_proof: ClassVar[str] = ""
    carries: ClassVar[Mapping[ContentType, Carries]] = {
        "text": Carries(),
        "image": Carries(media="url"),
        "document": Carries(media="url"),
        "video": Carries(media="url"),
        "audio": Carries(max_text=0, media="url"),
    }
    window_hours: ClassVar[int | None] = None
    pairing: ClassVar[frozenset[PairingWay]] = frozenset({"qr"})
    signs_webhooks: ClassVar[bool] = False
    receipts: ClassVar[bool] = False
    replies: ClassVar[bool] = True
    rate: ClassVar[str] = "none published"
    default_base_url: ClassVar[str] = "https://app.whacenter.com/api"
    credential_fields: ClassVar[tuple[CredentialField, ...]] = (
        CredentialField(name="device_id", label="Device ID", help_text="From the device's page at Whacenter."),
    )

    def connect(self, config: DeviceConfig) -> WhacenterClient:
        """A client for this device. Opens nothing."""
        return WhacenterClient(config)

    def webhook(self, hook: Hook) -> tuple[News, ...]:
        """At most one reply. Unsigned: the device's own address is the proof. Raises Malformed."""
        given = fields_of(hook)
        if flag(given, "isGroup") or flag(given, "isFromMe"):
            return ()
        phone = phone_of(given, "from")
        text = said(given, "message", most=MAX_REPLY)
        if not phone or not text:
            raise Malformed("malformed", "from and message must be there: a number in digits, and what was written.")
        name = event_id(hook.device_id, phone, text, _stretch(hook.now))
        return (Reply(name, phone, text, hook.now, device_id=hook.device_id),)


def _stretch(now: datetime) -> int:
    return int(now.timestamp()) // SAME_SECONDS
