"""The driver for Wablas, a hosted WhatsApp gateway.

Wire format: the vendor's "Documentation API Gateway" (``{server}.wablas.com/documentation/api``). The server is fixed
per account, so a device needs its address.

=============================================== ===========================================================
answer                                          outcome
=============================================== ===========================================================
``status`` true with a message id               accepted: queued over there, receipts follow by "tracking"
``status`` false (whatever the HTTP status)     certainly not sent; its words decide, see :data:`WORDS`
429                                             throttled
no boolean ``status``                           see :mod:`devices.gateways.http`
=============================================== ===========================================================

Our reference travels as ``ref_id``, which ``GET /api/report/message`` searches; repeats are not dropped. Webhooks are
unsigned and of three kinds (inbound, tracking, device), told apart by their fields.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar
from urllib.parse import quote

from devices.gateways import http
from devices.gateways.base import (
    Absent,
    Accepted,
    CannotSay,
    Carries,
    ContentType,
    CredentialField,
    DeviceConfig,
    Found,
    IdSemantics,
    LookedUp,
    Outcome,
    Outgoing,
    Pairing,
    PairingWay,
    Rejected,
    SessionLost,
    Temporary,
    Throttled,
    Transport,
)
from devices.gateways.bodies import event_id, fields_of, flag, moment_or, phone_of, said
from devices.gateways.hosted import form_of, picture
from devices.gateways.json_client import JsonClient, Standing
from devices.gateways.news import DeviceEvent, DeviceStatus, Hook, Malformed, News, Receipt, ReceiptStatus, Reply
from devices.gateways.webhooks import MAX_REPLY, MAX_TEXT

MAX_BYTES = 2_000_000

LOGGED_OUT = SessionLost("logged_out", "The device is disconnected from WhatsApp: scan its QR code again.")
WORDS: tuple[tuple[tuple[str, ...], Outcome], ...] = (
    (
        ("token invalid", "device expired", "secret key invalid", "invalid token", "invalid secret"),
        SessionLost(
            "credentials_refused",
            "Wablas refuses the token or the secret key, or the device has expired. Check both, the device's expiry, "
            "and that the address is the account's own server.",
        ),
    ),
    (("disconnected", "need to scan", "not connected"), LOGGED_OUT),
    (("limit exceeded", "too many", "rate limit"), Throttled("limit_exceeded", "Wablas asked for a rest.", 60.0)),
    (
        ("not registered", "not valid", "invalid phone", "invalid number", "blacklist", "too long", "format"),
        Rejected("refused", ""),
    ),
)
"""What a refusal means by a part of its words, in lower case; the first that fits. Anything else is temporary."""

_RECEIPTS: Mapping[str, ReceiptStatus] = {
    "sent": "sent", "delivered": "delivered", "received": "delivered", "read": "read",
    "cancel": "failed", "reject": "failed", "rejected": "failed",
}  # fmt: skip
_DEVICE: Mapping[str, DeviceStatus] = {"connected": "connected", "disconnected": "disconnected"}
_NOT_SENT = frozenset({"cancel", "reject", "rejected"})


class WablasClient(JsonClient):
    """One Wablas device."""

    def __init__(self, config: DeviceConfig) -> None:
        token, secret = (config.credentials.get(name, "") for name in ("token", "secret_key"))
        self._token = quote(token, safe="")
        super().__init__(
            config,
            label=WablasDriver.label,
            carries=WablasDriver.carries,
            default_base_url=WablasDriver.default_base_url,
            headers={"Authorization": f"{token}.{secret}" if secret else token},
        )

    def _worded(self, outgoing: Outgoing) -> tuple[str, http.Content]:
        """Attachments travel as a link, which Wablas fetches."""
        form = {"phone": outgoing.phone.removeprefix("+"), "ref_id": outgoing.reference}
        if outgoing.media is None:
            return "/api/send-message", form_of({**form, "message": outgoing.text})
        form[outgoing.type] = outgoing.media.url
        if outgoing.text:
            form["caption"] = outgoing.text
        return f"/api/send-{outgoing.type}", form_of(form)

    def _outcome(self, answer: http.Answer, outgoing: Outgoing | None = None) -> Outcome:
        del outgoing
        body = _object(answer)
        match body.get("status"):
            case True if external_id := _message_id(body.get("data")):
                return Accepted(external_id)
            case False:
                return self._refusal(body, answer)
        if answer.status == 200:
            raise http.BrokenAnswer("neither an id nor a refusal")
        return http.unlisted(answer)

    def _refusal(self, body: Mapping[str, Any], answer: http.Answer) -> Outcome:
        if answer.status == 429:
            return Throttled("http_429", "Wablas asked for a rest.", http.retry_after_seconds(answer))
        words = http.clean(said(body, "message", most=MAX_TEXT), credentials=self._config.credentials)
        for parts, outcome in WORDS:
            if any(part in words.lower() for part in parts):
                return Rejected(outcome.code, words) if isinstance(outcome, Rejected) else outcome
        return Temporary("not_sent", words or "Wablas says that it was not sent, and not why.")

    def look_up(self, reference: str) -> LookedUp:
        """Search the report for our reference."""
        answer = self._ask("GET", f"/api/report/message?ref_id={quote(reference, safe='')}")
        unclear = CannotSay("no_report", "Wablas did not say whether it has this message.")
        body = _object(answer) if isinstance(answer, http.Answer) and answer.status == 200 else {}
        rows, total = body.get("message"), body.get("totalData")
        if body.get("status") is not True or not isinstance(rows, list):
            return unclear
        if not rows:
            return Absent() if str(total) == "0" else unclear
        for row in rows:
            if isinstance(row, dict) and row.get("ref_id") == reference:
                if said(row, "status").lower() in _NOT_SENT:
                    return CannotSay("refused_later", "Wablas took this message and then cancelled or rejected it.")
                return Found(said(row, "id") or None)
        return unclear  # a server that does not know the parameter lists everything

    # -- the device ------------------------------------------------------------------------------------------------

    def _standing(self) -> Standing | Temporary | SessionLost:
        answer = self._ask("GET", f"/api/device/info?token={self._token}")
        if not isinstance(answer, http.Answer):
            return answer
        body = _object(answer)
        data = body.get("data")
        match (body.get("status"), data.get("status") if isinstance(data, dict) else None):
            case (True, "connected"):
                return "linked"
            case (True, "disconnected"):
                return "unlinked"
        return self._doubt(answer)

    def _show(self, phone: str | None) -> Pairing:
        """The picture to scan. Wablas gives no code to type."""
        del phone
        return picture(self._ask("GET", f"/api/device/scan?token={self._token}"), label=self._label)

    def log_out(self) -> Accepted | Temporary | SessionLost:
        """Disconnect the device from WhatsApp."""
        return self._done("/api/device/disconnect")

    def restart(self) -> Accepted | Temporary | SessionLost:
        """Have Wablas connect the device anew."""
        return self._done("/api/device/restart")

    def _done(self, path: str) -> Accepted | Temporary | SessionLost:
        self._shown = None
        answer = self._ask("GET", path)
        if not isinstance(answer, http.Answer):
            return answer
        return Accepted() if _object(answer).get("status") is True else self._doubt(answer)

    def _doubt(self, answer: http.Answer) -> Temporary | SessionLost:
        """What an answer comes to that does not say yes: refused for a reason that a person can mend, or not clear."""
        outcome = self._outcome(answer) if answer.status != 200 or _object(answer).get("status") is False else None
        if isinstance(outcome, SessionLost):
            return outcome
        return Temporary("unclear", "Wablas did not say that this device can send.")

    def _logged_out(self) -> SessionLost:
        return LOGGED_OUT


def _object(answer: http.Answer) -> dict[str, Any]:
    """The body, empty where it is no JSON object."""
    try:
        return answer.json()
    except http.BrokenAnswer:
        return {}


def _message_id(data: object) -> str:
    """The id in ``data``: ``messages`` or ``message``, a list or one, and ``data`` itself sometimes a list."""
    one = data[0] if isinstance(data, list) and data else data
    if not isinstance(one, dict):
        return ""
    found = one.get("messages", one.get("message"))
    message = found[0] if isinstance(found, list) and found else found
    return said(message, "id") if isinstance(message, dict) else ""


class WablasDriver:
    """A hosted gateway for WhatsApp sessions that it keeps itself."""

    kind: ClassVar[str] = "wablas"
    label: ClassVar[str] = "Wablas"
    transport: ClassVar[Transport] = "http"
    id_semantics: ClassVar[IdSemantics] = "searchable"
    id_proof: ClassVar[str] = (
        "The vendor's API documentation: every send takes ref_id, “transaction ID from client”, and GET "
        "/api/report/message?ref_id= reports by it. It promises no dropping of repeats."
    )
    carries: ClassVar[Mapping[ContentType, Carries]] = {
        "text": Carries(max_text=1024),
        "image": Carries(1024, MAX_BYTES, "url", frozenset({"image/jpeg", "image/png"})),
        "document": Carries(1024, MAX_BYTES, "url"),
        "video": Carries(1024, MAX_BYTES, "url", frozenset({"video/mp4", "video/mpeg"})),
        "audio": Carries(0, MAX_BYTES, "url", frozenset({"audio/mpeg", "audio/ogg"})),
    }
    window_hours: ClassVar[int | None] = None
    pairing: ClassVar[frozenset[PairingWay]] = frozenset({"qr"})
    signs_webhooks: ClassVar[bool] = False
    receipts: ClassVar[bool] = True
    replies: ClassVar[bool] = True
    rate: ClassVar[str] = "5 messages per 10 s"
    default_base_url: ClassVar[str] = ""
    credential_fields: ClassVar[tuple[CredentialField, ...]] = (
        CredentialField(name="token", label="Device token", help_text="From the device's settings at Wablas."),
        CredentialField(
            name="secret_key", label="Secret key", help_text="Empty for old accounts that have none.", required=False
        ),
    )

    def connect(self, config: DeviceConfig) -> WablasClient:
        """A client for this device. Opens nothing."""
        return WablasClient(config)

    def webhook(self, hook: Hook) -> tuple[News, ...]:
        """At most one event. Unsigned: the device's own address is the proof. Raises Malformed."""
        given = fields_of(hook)
        status = said(given, "status").lower()
        if "message" in given or "messageType" in given:
            return _inbound(given, hook)
        if (message_id := said(given, "id")) and status:
            if status not in _RECEIPTS:
                return ()
            note = said(given, "note", most=MAX_TEXT)
            failed = _RECEIPTS[status] == "failed"
            return (
                Receipt(
                    event_id=event_id(hook.device_id, message_id, status),
                    status=_RECEIPTS[status],
                    at=moment_or(given, "timestamp", hook.now),
                    external_id=message_id,
                    device_id=hook.device_id,
                    code=status if failed else "",
                    text=note if failed else "",
                ),
            )
        if status in _DEVICE and "phone" not in given:
            at = moment_or(given, "timestamp", hook.now)
            name = event_id(hook.device_id, "device", status, said(given, "timestamp") or at.isoformat())
            return (DeviceEvent(name, _DEVICE[status], at, device_id=hook.device_id),)
        raise Malformed("malformed", "The body is neither a message nor the status of one or of the device.")


def _inbound(given: Mapping[str, Any], hook: Hook) -> tuple[News, ...]:
    if flag(given, "isGroup") or flag(given, "isFromMe"):
        return ()
    message_id, phone = said(given, "id"), phone_of(given, "phone")
    if not message_id or not phone:
        raise Malformed("malformed", "id and phone must be there: the message's id, and a number in digits.")
    text = said(given, "message", most=MAX_REPLY) or f"[{said(given, 'messageType', most=20) or 'no text'}]"
    at = moment_or(given, "timestamp", hook.now)
    name = event_id(hook.device_id, "reply", message_id)
    return (Reply(name, phone, text, at, external_id=message_id, device_id=hook.device_id),)
