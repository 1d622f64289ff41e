"""The driver for any HTTP gateway that a person can describe: see :mod:`devices.gateways.generic_options`.

What no option names is decided by :func:`devices.gateways.http.unlisted`: an answer that nobody described does not
prove that nothing was sent.

Webhooks come to the device's own address, unsigned, in one plain format that a small bridge can make of any other:
``{"event": "receipt", "message_id", "reference"?, "status", "timestamp"?, "code"?, "text"?}`` with a status of sent,
delivered, read or failed, and ``{"event": "message", "from", "text", "message_id"?, "timestamp"?}``; as JSON or a form.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, cast, get_args
from urllib.parse import quote, urlencode

from devices.gateways import http, payloads
from devices.gateways.base import (
    Accepted,
    Carries,
    ContentType,
    CredentialField,
    DeviceConfig,
    IdSemantics,
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
from devices.gateways.bodies import event_id, fields_of, moment_or, phone_of, said
from devices.gateways.generic_options import (
    SECRETS,
    BadOption,
    Described,
    Rule,
    filled,
    problems_of,
    text_at,
    understood,
)
from devices.gateways.news import Hook, Malformed, News, Receipt, ReceiptStatus, Reply
from devices.gateways.webhooks import MAX_ID, MAX_REPLY, MAX_TEXT


class GenericClient:
    """One described device. Holds no connection of its own, so any number of threads may use it."""

    def __init__(self, config: DeviceConfig) -> None:
        self._config = config
        self._base = config.base_url.rstrip("/")
        self._problem: SessionLost | None = None
        self._described = Described(path="/", body={})
        try:
            self._described = understood(config.options)
        except BadOption as problem:
            self._problem = SessionLost(
                "bad_options", f"The options of this device make no sense. {problem}"[:MAX_TEXT]
            )
        if not self._base:
            self._problem = SessionLost("no_address", "Enter the gateway's address for this device.")
        self._own = {name: config.credentials.get(name, "") for name in SECRETS}
        self._own["device_id"] = str(config.device_id)

    def __repr__(self) -> str:
        return f"GenericClient(device_id={self._config.device_id}, host={http.host_of(self._base)!r})"

    def send(self, outgoing: Outgoing) -> Outcome:
        """Send one message as described."""
        described = self._described
        if self._problem is not None:
            return self._problem
        if refused := payloads.refusal(outgoing, carries=GenericDriver.carries, label=GenericDriver.label):
            return refused
        template = described.body if outgoing.media is None else described.media_body
        if template is None:
            return Rejected("not_supported", f"This device's options describe no {outgoing.type}.")
        values = {**self._own, **_values(outgoing)}
        body = filled(template, values)
        target = self._target(described.path, values)
        if described.format == "query":
            target += ("&" if "?" in target else "?") + urlencode(_texts(body))
        answer = http.call(
            method=described.method,
            url=target,
            deadlines=self._config.deadlines,
            headers=filled(described.headers, values),
            json=body if described.format == "json" else None,
            form=_texts(body) if described.format == "form" else None,
        )
        return self._outcome(answer) if isinstance(answer, http.Answer) else answer

    def check(self) -> Accepted | Temporary | SessionLost:
        """Ask as described; without a description every device is taken to be able."""
        if self._problem is not None:
            return self._problem
        check = self._described.check
        if check is None:
            return Accepted()
        answer = http.call(
            method="GET",
            url=self._target(check.path, self._own),
            deadlines=self._config.deadlines,
            headers=filled(self._described.headers, self._own),
        )
        if isinstance(answer, Temporary | SessionLost):
            return answer
        if isinstance(answer, http.Answer):
            if check.success.fits(status=answer.status, body=_value(answer)):
                return Accepted()
            outcome = self._failure(answer)
            if isinstance(outcome, SessionLost):
                return outcome
        return Temporary("no_status", "The gateway did not say that this device can send.")

    def close(self) -> None:
        """Nothing is held."""

    def _target(self, path: str, values: Mapping[str, str]) -> str:
        return self._base + str(filled(path, {name: quote(value, safe="") for name, value in values.items()}))

    def _outcome(self, answer: http.Answer) -> Outcome:
        if failed := self._listed(answer):
            return failed
        described, body = self._described, _value(answer)
        if not described.success.fits(status=answer.status, body=body):
            return http.unlisted(answer)
        if not described.external_id:
            return Accepted()
        external_id = text_at(body, described.external_id)[:MAX_ID]
        if external_id:
            return Accepted(external_id)
        return Unknown("broken_answer", f"The gateway answered HTTP {answer.status} without an id for the message.")

    def _failure(self, answer: http.Answer) -> Outcome:
        return self._listed(answer) or http.unlisted(answer)

    def _listed(self, answer: http.Answer) -> Outcome | None:
        """The outcome of an answer that one of the rules names."""
        described, body = self._described, _value(answer)
        code = text_at(body, described.error_code) if described.error_code else ""
        words = text_at(body, described.error_text) if described.error_text else ""

        def fits(rule: Rule) -> bool:
            return rule.fits(status=answer.status, code=code, text=words)

        credentials = self._config.credentials
        name = http.clean(code or f"http_{answer.status}", credentials=credentials)[:60]
        text = http.clean(words or f"The gateway answered HTTP {answer.status}.", credentials=credentials)
        if fits(described.throttled):
            return Throttled(name, text, http.retry_after_seconds(answer))
        if fits(described.session_lost):
            return SessionLost(name, text)
        if fits(described.rejected):
            return Rejected(name, text)
        if fits(described.temporary):
            return Temporary(name, text)
        return None


def _values(outgoing: Outgoing) -> dict[str, str]:
    media = outgoing.media
    return {
        "phone": outgoing.phone,
        "digits": outgoing.phone.removeprefix("+"),
        "text": outgoing.text,
        "reference": outgoing.reference,
        "message_id": str(outgoing.message_id),
        "attempt": str(outgoing.attempt),
        "type": outgoing.type,
        "media_url": media.url if media else "",
        "media_type": media.mime_type if media else "",
        "filename": media.filename if media else "",
    }


def _texts(body: Mapping[str, Any]) -> dict[str, str]:
    """A form's values: JSON's true and false in their own words."""
    return {name: value if isinstance(value, str) else text_at({"v": value}, "v") for name, value in body.items()}


def _value(answer: http.Answer) -> object:
    """The body as a JSON object, None where it is none."""
    try:
        return answer.json()
    except http.BrokenAnswer:
        return None


class GenericDriver:
    """Whatever speaks HTTP."""

    kind: ClassVar[str] = "generic"
    label: ClassVar[str] = "Any HTTP gateway"
    transport: ClassVar[Transport] = "http"
    id_semantics: ClassVar[IdSemantics] = "none"
    id_proof: ClassVar[str] = ""
    carries: ClassVar[Mapping[ContentType, Carries]] = {
        "text": Carries(),
        "image": Carries(media="url"),
        "document": Carries(media="url"),
        "video": Carries(media="url"),
        "audio": Carries(media="url"),
    }
    window_hours: ClassVar[int | None] = None
    pairing: ClassVar[frozenset[PairingWay]] = frozenset()
    signs_webhooks: ClassVar[bool] = False
    receipts: ClassVar[bool] = True
    replies: ClassVar[bool] = True
    rate: ClassVar[str] = "the gateway's own"
    default_base_url: ClassVar[str] = ""
    credential_fields: ClassVar[tuple[CredentialField, ...]] = (
        CredentialField(name="secret", label="Secret", help_text="For {secret} in the options.", required=False),
        CredentialField(
            name="secret_2", label="Second secret", help_text="For {secret_2} in the options.", required=False
        ),
        CredentialField(
            name="username", label="User name", help_text="For {username} in the options.", secret=False, required=False
        ),
    )

    def connect(self, config: DeviceConfig) -> GenericClient:
        """A client for this device. Opens nothing; options that make no sense are said by every send."""
        return GenericClient(config)

    def option_problems(self, options: Mapping[str, Any]) -> tuple[str, ...]:
        """What is wrong with a device's options, each naming the option."""
        return problems_of(options)

    def webhook(self, hook: Hook) -> tuple[News, ...]:
        """One event. Unsigned: the device's own address is the proof. Raises Malformed."""
        given = fields_of(hook)
        at = moment_or(given, "timestamp", hook.now)
        message_id, status = said(given, "message_id"), said(given, "status")
        reference = said(given, "reference")
        match said(given, "event"):
            case "receipt" if status in get_args(ReceiptStatus) and (message_id or reference):
                receipt = Receipt(
                    event_id=event_id(hook.device_id, message_id, reference, status),
                    status=cast("ReceiptStatus", status),
                    at=at,
                    reference=reference,
                    external_id=message_id,
                    device_id=hook.device_id,
                    code=said(given, "code", most=60),
                    text=said(given, "text", most=MAX_TEXT),
                )
                return (receipt,)
            case "message" if (phone := phone_of(given, "from")) and (text := said(given, "text", most=MAX_REPLY)):
                name = event_id(hook.device_id, "reply", message_id or f"{phone} {at.isoformat()} {text}")
                return (Reply(name, phone, text, at, external_id=message_id, device_id=hook.device_id),)
        raise Malformed(
            "malformed",
            "event must be “receipt” with message_id or reference and a known status, or “message” with from and text.",
        )
