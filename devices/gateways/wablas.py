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
    DeviceEvent,
    DeviceStatus,
    Found,
    Hook,
    IdSemantics,
    LookedUp,
    Malformed,
    News,
    Outcome,
    Outgoing,
    Pairing,
    PairingWay,
    Receipt,
    ReceiptStatus,
    Rejected,
    Reply,
    SessionLost,
    Temporary,
    Throttled,
    Transport,
    Unknown,
)
from devices.gateways.bodies import event_id, fields_of, flag, moment_or, phone_of, said
from devices.gateways.webhooks import MAX_REPLY, MAX_TEXT

MEDIA = frozenset({"image", "document", "video", "audio"})
MAX_BYTES = 2_000_000
PNG = b"\x89PNG\r\n\x1a\n"

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


class WablasClient:
    """One Wablas device. Holds no connection of its own, so any number of threads may use it."""

    def __init__(self, config: DeviceConfig) -> None:
        self._config = config
        self._base = config.base_url.rstrip("/")
        token, secret = (config.credentials.get(name, "") for name in ("token", "secret_key"))
        self._token = token
        self._headers = {"Authorization": f"{token}.{secret}" if secret else token}

    def __repr__(self) -> str:
        return f"WablasClient(device_id={self._config.device_id}, host={http.host_of(self._base)!r})"

    def send(self, outgoing: Outgoing) -> Outcome:
        """Queue one message over there. Media travel as a link, which Wablas fetches."""
        form = {"phone": outgoing.phone.removeprefix("+"), "ref_id": outgoing.reference}
        if outgoing.type == "text":
            path, form["message"] = "send-message", outgoing.text
        elif outgoing.type in MEDIA and outgoing.media is not None:
            path, form[outgoing.type] = f"send-{outgoing.type}", outgoing.media.url
            if outgoing.text and outgoing.type != "audio":
                form["caption"] = outgoing.text
        else:
            return Rejected("not_supported", f"Wablas carries no {outgoing.type}.")
        answer = self._call("POST", f"/api/{path}", form=form)
        return self._outcome(answer) if isinstance(answer, http.Answer) else answer

    def check(self) -> Accepted | Temporary | SessionLost:
        """Ask for the device's status. Nothing is sent by asking, so every doubt is temporary."""
        answer = self._call("GET", f"/api/device/info?token={quote(self._token, safe='')}")
        if isinstance(answer, Temporary | SessionLost):
            return answer
        body = _object(answer) if isinstance(answer, http.Answer) else {}
        data = body.get("data")
        match (body.get("status"), data.get("status") if isinstance(data, dict) else None):
            case (True, "connected"):
                return Accepted()
            case (True, "disconnected"):
                return LOGGED_OUT
        refused = self._outcome(answer) if isinstance(answer, http.Answer) else None
        if isinstance(refused, SessionLost):
            return refused
        return Temporary("no_status", "Wablas did not say whether this device can send.")

    def look_up(self, reference: str) -> LookedUp:
        """Search the report for our reference."""
        answer = self._call("GET", f"/api/report/message?ref_id={quote(reference, safe='')}")
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

    def pair(self, *, phone: str | None = None) -> Pairing:
        """The picture to scan, until the device says that it is connected. Wablas gives no code to type."""
        del phone
        known = self.check()
        if isinstance(known, Accepted):
            return Pairing("connected", text="The device is connected.")
        if isinstance(known, Temporary) or known.code != LOGGED_OUT.code:
            return Pairing("waiting" if isinstance(known, Temporary) else "failed", text=known.text)
        answer = self._call("GET", f"/api/device/scan?token={quote(self._token, safe='')}")
        if isinstance(answer, http.Answer) and answer.body.startswith(PNG):
            return Pairing("qr", qr_png=answer.body, text="Scan this with WhatsApp, under “Linked devices”.")
        return Pairing("waiting", text="Wablas gave no picture to scan: open the device's page there and scan it.")

    def log_out(self) -> Accepted | Temporary | SessionLost:
        """Disconnect the device from WhatsApp."""
        return self._order("/api/device/disconnect")

    def restart(self) -> Accepted | Temporary | SessionLost:
        """Have Wablas connect the device anew."""
        return self._order("/api/device/restart")

    def close(self) -> None:
        """Nothing is held."""

    # -- one call --------------------------------------------------------------------------------------------------

    def _call(self, method: str, target: str, *, form: Mapping[str, str] | None = None) -> http.Answer | http.Failure:
        if not self._base:
            return SessionLost("no_address", "Enter the address of the account's server, as https://solo.wablas.com.")
        return http.call(
            method=method,
            url=f"{self._base}{target}",
            deadlines=self._config.deadlines,
            headers=self._headers,
            form=form,
        )

    def _order(self, path: str) -> Accepted | Temporary | SessionLost:
        answer = self._call("GET", path)
        if isinstance(answer, Temporary | SessionLost):
            return answer
        body = _object(answer) if isinstance(answer, http.Answer) else {}
        if body.get("status") is True:
            return Accepted()
        refused = self._outcome(answer) if isinstance(answer, http.Answer) else None
        if isinstance(refused, SessionLost):
            return refused
        return Temporary("not_done", "Wablas did not say that it was done.")

    def _outcome(self, answer: http.Answer) -> Outcome:
        body = _object(answer)
        match body.get("status"):
            case True:
                external_id = _message_id(body.get("data"))
                return Accepted(external_id) if external_id else _nonsense(answer)
            case False:
                return self._refusal(body, answer)
        return _nonsense(answer) if answer.status == 200 else http.unlisted(answer)

    def _refusal(self, body: Mapping[str, Any], answer: http.Answer) -> Outcome:
        if answer.status == 429:
            return Throttled("http_429", "Wablas asked for a rest.", http.retry_after_seconds(answer))
        words = http.clean(said(body, "message", most=MAX_TEXT), credentials=self._config.credentials)
        for parts, outcome in WORDS:
            if any(part in words.lower() for part in parts):
                return Rejected(outcome.code, words) if isinstance(outcome, Rejected) else outcome
        return Temporary("not_sent", words or "Wablas says that it was not sent, and not why.")


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


def _nonsense(answer: http.Answer) -> Unknown:
    return Unknown("broken_answer", f"The gateway answered HTTP {answer.status} and a body that makes no sense.")


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
