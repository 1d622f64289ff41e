"""The driver for the simulator, Flotilla's own pretend gateway.

Wire format: ``POST /sim/v1/devices/{token}/messages`` and ``GET /sim/v1/devices/{token}``.

=========================== ===================================================
answer                      outcome
=========================== ===================================================
200 with ``id``             accepted
422, 400, 413               rejected, with the gateway's code and text
429                         throttled, for ``Retry-After`` seconds
401                         session lost (``error.code`` ``banned``: banned)
503, code ``unavailable``   temporary: the simulator says that it took nothing
anything else               see :mod:`devices.gateways.http`
=========================== ===================================================

``GET …/messages?reference=`` looks a message up. Webhooks are JSON, signed in ``X-Simulator-Signature`` over the raw
body, which holds the time of signing; ``sender`` is the device's number here, as we sent it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, ClassVar, get_args
from urllib.parse import quote

from devices.gateways import http, webhooks
from devices.gateways.base import (
    WEBHOOK_SECRET,
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
    PairingWay,
    Rejected,
    SessionLost,
    Temporary,
    Throttled,
    Transport,
    Unknown,
)
from devices.gateways.news import Hook, Malformed, News, Receipt, ReceiptStatus, Reply

SIGNATURE = "x-simulator-signature"
_PHONE = re.compile(r"\+[1-9][0-9]{5,14}")
_DEVICE = re.compile(r"[0-9]{1,18}")


class SimulatorClient:
    """One simulated device. Holds no connection of its own, so any number of threads may use it."""

    path: ClassVar[str] = "/sim/v1/devices"

    def __init__(self, config: DeviceConfig) -> None:
        self._config = config
        token = config.credentials.get("token", "")
        base = (config.base_url or SimulatorDriver.default_base_url).rstrip("/")
        self._url = f"{base}{self.path}/{quote(token, safe='')}"

    def __repr__(self) -> str:
        return f"SimulatorClient(device_id={self._config.device_id}, host={http.host_of(self._url)!r})"

    def send(self, outgoing: Outgoing) -> Outcome:
        """Post one message; the reference is its id there, so a repeat is dropped and answered alike."""
        answer = http.call(
            method="POST", url=f"{self._url}/messages", deadlines=self._config.deadlines, json=self._body(outgoing)
        )
        if not isinstance(answer, http.Answer):
            return answer
        try:
            return self._outcome(answer)
        except http.BrokenAnswer:
            return Unknown(
                "broken_answer", f"The gateway answered HTTP {answer.status} and a body that makes no sense."
            )

    def check(self) -> Accepted | Temporary | SessionLost:
        """Ask for the device's status. Nothing is sent by asking, so every doubt is temporary."""
        answer = http.call(method="GET", url=self._url, deadlines=self._config.deadlines)
        if isinstance(answer, Unknown):
            return Temporary(answer.code, "The gateway did not say whether this device can send.")
        if not isinstance(answer, http.Answer):
            return answer
        try:
            if answer.status == 200 and answer.json().get("status") == "connected":
                return Accepted()
            outcome = self._outcome(answer) if answer.status != 200 else None
        except http.BrokenAnswer:
            outcome = None
        if isinstance(outcome, SessionLost):
            return outcome
        return Temporary(f"http_{answer.status}", "The gateway did not say that this device can send.")

    def look_up(self, reference: str) -> LookedUp:
        """Ask for the message of this reference."""
        url = f"{self._url}/messages?reference={quote(reference, safe='')}"
        answer = http.call(method="GET", url=url, deadlines=self._config.deadlines)
        if not isinstance(answer, http.Answer):
            return CannotSay(answer.code, "The gateway did not say whether it has this message.")
        try:
            found = answer.json().get("messages") if answer.status == 200 else None
        except http.BrokenAnswer:
            found = None
        match found:
            case []:
                return Absent()
            case [{"id": str() as external_id, "reference": named}, *_] if named == reference:
                return Found(external_id)
            case _:
                return CannotSay(f"http_{answer.status}", "The gateway did not say whether it has this message.")

    def close(self) -> None:
        """Nothing is held: connections belong to the process."""

    def _body(self, outgoing: Outgoing) -> dict[str, Any]:
        body: dict[str, Any] = {
            "id": outgoing.reference,
            "to": outgoing.phone,
            "type": outgoing.type,
            "text": outgoing.text,
            "message": outgoing.message_id,
            "attempt": outgoing.attempt,
            "sender": str(self._config.device_id),
        }
        if outgoing.media is not None:
            media = outgoing.media
            body["media"] = {"url": media.url, "mime_type": media.mime_type, "filename": media.filename}
        return body

    def _outcome(self, answer: http.Answer) -> Outcome:
        """Raises :class:`~devices.gateways.http.BrokenAnswer` where a body is promised and none can be read."""
        match answer.status:
            case 200:
                external_id = answer.json().get("id")
                if not isinstance(external_id, str) or not external_id:
                    raise http.BrokenAnswer("accepted without an id")
                return Accepted(external_id)
            case 400 | 413 | 422:
                return Rejected(*self._error(answer, fallback=f"http_{answer.status}"))
            case 401:
                code, text = self._error(answer, fallback="http_401")
                return SessionLost(code, text, banned=code == "banned")
            case 429:
                code, text = self._error(answer, fallback="http_429")
                return Throttled(code, text, http.retry_after_seconds(answer))
            case 503 if (error := self._error(answer, fallback=""))[0] == "unavailable":
                return Temporary(*error)
            case _:
                return http.unlisted(answer)

    def _error(self, answer: http.Answer, *, fallback: str) -> tuple[str, str]:
        """Code and text of an error body. The status alone decided already, so a broken body only costs the words."""
        try:
            error = answer.json().get("error")
        except http.BrokenAnswer:
            error = None
        if not isinstance(error, dict):
            return fallback, f"The gateway answered HTTP {answer.status}."
        credentials = self._config.credentials
        code = http.clean(error.get("code") or fallback, credentials=credentials)[:64]
        return code, http.clean(error.get("text") or f"HTTP {answer.status}", credentials=credentials)


class SimulatorDriver:
    """A gateway that exists to be tested against; its ledger knows what reached each phone."""

    kind: ClassVar[str] = "simulator"
    label: ClassVar[str] = "Simulator"
    transport: ClassVar[Transport] = "http"
    id_semantics: ClassVar[IdSemantics] = "dedups"
    id_proof: ClassVar[str] = (
        "messaging/simulator/ledger.py keeps every accepted id per device; tests/devices/gateways/test_conformance.py "
        "sends one reference twice and counts one delivery."
    )
    carries: ClassVar[Mapping[ContentType, Carries]] = {
        "text": Carries(),
        "image": Carries(media="url"),
        "document": Carries(media="url"),
        "video": Carries(media="url"),
        "audio": Carries(media="url"),
    }
    window_hours: ClassVar[int | None] = None
    pairing: ClassVar[frozenset[PairingWay]] = frozenset()
    signs_webhooks: ClassVar[bool] = True
    receipts: ClassVar[bool] = True
    replies: ClassVar[bool] = True
    rate: ClassVar[str] = "as configured"
    default_base_url: ClassVar[str] = "http://127.0.0.1:8030"
    credential_fields: ClassVar[tuple[CredentialField, ...]] = (
        CredentialField(name="token", label="Device token", help_text="Any text: an unknown device springs to life."),
        WEBHOOK_SECRET,
    )

    def connect(self, config: DeviceConfig) -> SimulatorClient:
        """A client for this device. Opens nothing."""
        return SimulatorClient(config)

    def webhook(self, hook: Hook) -> tuple[News, ...]:
        """One event per request. Raises BadSignature or Malformed."""
        webhooks.require_hmac(hook, header=SIGNATURE)
        event = webhooks.json_object(hook.body)
        at = webhooks.moment_of(event, "timestamp")
        webhooks.require_fresh(at, now=hook.now)
        event_id, external_id = webhooks.text_of(event, "id"), webhooks.text_of(event, "message_id")
        device_id = _device_of(event)
        match event.get("event"):
            case "receipt" if event.get("status") in get_args(ReceiptStatus):
                return (
                    Receipt(
                        event_id=event_id,
                        status=event["status"],
                        at=at,
                        reference=webhooks.text_of(event, "reference", required=False),
                        external_id=external_id,
                        device_id=device_id,
                        code=webhooks.text_of(event, "code", most=60, required=False),
                        text=webhooks.text_of(event, "text", most=webhooks.MAX_TEXT, required=False),
                    ),
                )
            case "message":
                phone = webhooks.text_of(event, "from")
                if not _PHONE.fullmatch(phone):
                    raise Malformed("malformed", "from must be a phone number, + and digits.")
                text = webhooks.text_of(event, "text", most=webhooks.MAX_REPLY)
                return (Reply(event_id, phone, text, at, external_id=external_id, device_id=device_id),)
        raise Malformed("malformed", "event must be message, or receipt with a status that is known.")


def _device_of(event: dict[str, Any]) -> int | None:
    """The device's number, as we gave it when we sent; None where the phone wrote to nobody in particular."""
    sender = event.get("sender")
    return int(sender) if isinstance(sender, str) and _DEVICE.fullmatch(sender) else None
