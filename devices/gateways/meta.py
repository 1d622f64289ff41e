"""The driver for Meta's WhatsApp Cloud API.

Wire format: Meta's published OpenAPI description of the API and its "Error codes", "Webhooks" and "Messaging limits"
pages. ``POST /{version}/{phone number id}/messages`` with a bearer token. Errors are told apart by ``error.code``,
whatever the HTTP status: see :mod:`devices.gateways.meta_codes`.

Our reference travels as ``biz_opaque_callback_data`` and comes back in every status of the message: the API has neither
deduplication nor look-up. Free text reaches people for 24 hours after they wrote; outside of that only templates do.
Webhooks are signed by the app's secret and told again for up to seven days, in any order.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import datetime
from hmac import compare_digest
from typing import Any, ClassVar
from urllib.parse import quote

from devices.gateways import http, payloads, webhooks
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
    Transport,
    Unknown,
)
from devices.gateways.bodies import event_id, moment_or, phone_of, said
from devices.gateways.meta_codes import outcome_of
from devices.gateways.news import Hook, News, Receipt, ReceiptStatus, Reply

VERSION = "v23.0"
FIELDS = "id,display_phone_number,quality_rating,status,throughput,whatsapp_business_manager_messaging_limit"
MAX_OPAQUE = 512
ABLE, GONE = frozenset({"CONNECTED", "FLAGGED"}), frozenset({"DISCONNECTED", "DELETED", "MIGRATED", "UNVERIFIED"})
_VERSION = re.compile(r"v[0-9]{1,3}\.[0-9]")
_CHALLENGE = re.compile(r"[\w-]{1,200}", re.ASCII)


class MetaClient:
    """One phone number of the Cloud API. Holds no connection of its own, so any number of threads may use it."""

    def __init__(self, config: DeviceConfig) -> None:
        self._config = config
        base = (config.base_url or MetaDriver.default_base_url).rstrip("/")
        number = quote(config.credentials.get("phone_number_id", ""), safe="")
        self._url = f"{base}/{config.options.get('version') or VERSION}/{number}"
        self._headers = {"Authorization": f"Bearer {config.credentials.get('access_token', '')}"}

    def __repr__(self) -> str:
        return f"MetaClient(device_id={self._config.device_id}, host={http.host_of(self._url)!r})"

    def send(self, outgoing: Outgoing) -> Outcome:
        """Post one message. Media travel as a link, which Meta fetches."""
        if refused := payloads.refusal(outgoing, carries=MetaDriver.carries, label=MetaDriver.label):
            return refused
        content = _content(outgoing)
        if content is None:
            return Rejected("not_supported", f"There is nothing to send as {outgoing.type}.")
        body = {
            "messaging_product": "whatsapp",
            "recipient_type": "individual",
            "to": outgoing.phone.removeprefix("+"),
            "type": outgoing.type,
            outgoing.type: content,
            "biz_opaque_callback_data": outgoing.reference[:MAX_OPAQUE],
        }
        answer = self._call("POST", "/messages", json=body)
        return self._outcome(answer) if isinstance(answer, http.Answer) else answer

    def check(self) -> Accepted | Temporary | SessionLost:
        """Ask for the number's status. Nothing is sent by asking, so every doubt is temporary."""
        answer = self._call("GET", f"?fields={FIELDS}")
        if isinstance(answer, Temporary | SessionLost):
            return answer
        unclear = Temporary("no_status", "Meta did not say whether this number can send.")
        if not isinstance(answer, http.Answer):
            return unclear
        body = _object(answer)
        status = said(body, "status").upper()
        if answer.status == 200 and said(body, "id") and (status in ABLE or not status):
            return Accepted()
        if answer.status == 200 and status == "BANNED":
            return SessionLost("banned", "Meta has banned this number: see its quality page there.", banned=True)
        if answer.status == 200 and status in GONE:
            return SessionLost("not_connected", f"Meta says that this number is {status.lower()}: register it again.")
        outcome = self._outcome(answer) if "error" in body else None
        return outcome if isinstance(outcome, SessionLost) else unclear

    def close(self) -> None:
        """Nothing is held."""

    def _call(self, method: str, target: str, *, json: Any = None) -> http.Answer | http.Failure:
        return http.call(
            method=method,
            url=f"{self._url}{target}",
            deadlines=self._config.deadlines,
            headers=self._headers,
            json=json,
        )

    def _outcome(self, answer: http.Answer) -> Outcome:
        body = _object(answer)
        error = body.get("error")
        if isinstance(error, dict):
            words = http.clean(_words(error), credentials=self._config.credentials)
            seconds = http.retry_after_seconds(answer, default=0.0)
            return outcome_of(error.get("code"), words, retry_after_seconds=seconds) or http.unlisted(answer)
        if answer.status != 200:
            return http.unlisted(answer)
        messages = body.get("messages")
        first = messages[0] if isinstance(messages, list) and messages else None
        external_id = said(first, "id") if isinstance(first, dict) else ""
        if external_id:
            return Accepted(external_id)
        return Unknown("broken_answer", "The gateway answered HTTP 200 and a body that makes no sense.")


def _content(outgoing: Outgoing) -> dict[str, Any] | None:
    """What stands under the message's type; None where there is nothing to send."""
    if outgoing.type == "text":
        return {"body": outgoing.text, "preview_url": False}
    if outgoing.type == "template" and outgoing.template is not None:
        template: dict[str, Any] = {
            "name": outgoing.template.name,
            "language": {"code": outgoing.template.language},
        }
        components = []
        if outgoing.media is not None:
            kind = outgoing.media.mime_type.partition("/")[0]
            kind = kind if kind in {"image", "video"} else "document"
            components.append({"type": "header", "parameters": [{"type": kind, kind: {"link": outgoing.media.url}}]})
        if outgoing.template.parameters:
            filled = [{"type": "text", "text": text} for text in outgoing.template.parameters]
            components.append({"type": "body", "parameters": filled})
        return {**template, **({"components": components} if components else {})}
    if outgoing.media is None:
        return None
    content = {"link": outgoing.media.url}
    if outgoing.text:
        content["caption"] = outgoing.text
    if outgoing.type == "document":
        content["filename"] = outgoing.media.filename
    return content


def _words(error: Mapping[str, Any]) -> str:
    """The title and, where there are any, the details; ``message`` often repeats what both say."""
    data = error.get("error_data")
    details = said(data, "details", most=webhooks.MAX_TEXT) if isinstance(data, dict) else ""
    title = said(error, "title", most=webhooks.MAX_TEXT) or said(error, "message", most=webhooks.MAX_TEXT)
    return f"{title}: {details}" if details and details not in title else title


def _object(answer: http.Answer) -> dict[str, Any]:
    """The body, empty where it is no JSON object."""
    try:
        return answer.json()
    except http.BrokenAnswer:
        return {}


class MetaDriver:
    """WhatsApp's own API for businesses."""

    kind: ClassVar[str] = "meta"
    label: ClassVar[str] = "Meta WhatsApp Cloud API"
    transport: ClassVar[Transport] = "http"
    id_semantics: ClassVar[IdSemantics] = "echoed"
    id_proof: ClassVar[str] = (
        "Meta's description of the API: biz_opaque_callback_data (at most 512 characters) is returned in the statuses "
        "of the message. It names neither an idempotency key nor a look-up."
    )
    carries: ClassVar[Mapping[ContentType, Carries]] = {
        "text": Carries(max_text=4096),
        "image": Carries(1024, 5_000_000, "url", frozenset({"image/jpeg", "image/png"})),
        "document": Carries(1024, 100_000_000, "url"),
        "video": Carries(1024, 16_000_000, "url", frozenset({"video/mp4", "video/3gpp"})),
        "audio": Carries(
            0, 16_000_000, "url", frozenset({"audio/aac", "audio/mp4", "audio/mpeg", "audio/amr", "audio/ogg"})
        ),
        "template": Carries(),
    }
    window_hours: ClassVar[int | None] = 24
    pairing: ClassVar[frozenset[PairingWay]] = frozenset()
    signs_webhooks: ClassVar[bool] = True
    receipts: ClassVar[bool] = True
    replies: ClassVar[bool] = True
    rate: ClassVar[str] = "80 per second and number, up to 1,000 after an upgrade"
    default_base_url: ClassVar[str] = "https://graph.facebook.com"
    credential_fields: ClassVar[tuple[CredentialField, ...]] = (
        CredentialField(name="access_token", label="Access token", help_text="A system user's, that does not expire."),
        CredentialField(
            name="phone_number_id", label="Phone number ID", help_text="Not the number itself.", secret=False
        ),
        CredentialField(name="app_secret", label="App secret", help_text="Signs receipts and replies.", required=False),
        CredentialField(
            name="verify_token",
            label="Verify token",
            help_text="What you entered beside the webhook's address; empty: the last part of that address.",
            required=False,
        ),
    )

    def connect(self, config: DeviceConfig) -> MetaClient:
        """A client for this number. Opens nothing."""
        return MetaClient(config)

    def option_problems(self, options: Mapping[str, Any]) -> tuple[str, ...]:
        """``version`` is the one option."""
        problems = [
            f"{name}: there is no such option; version is the one." for name in sorted(set(options) - {"version"})
        ]
        version = options.get("version", VERSION)
        if not isinstance(version, str) or not _VERSION.fullmatch(version):
            problems.append(f"version: write it as {VERSION}.")
        return tuple(problems)

    def challenge(self, *, query: Mapping[str, str], tokens: tuple[str, ...]) -> str | None:
        """What to answer when Meta asks whether the address is ours; None if it does not know the verify token."""
        given = query.get("hub.verify_token", "").encode()
        fits = [compare_digest(given, token.encode()) for token in tokens if token]
        challenge = query.get("hub.challenge", "")
        if query.get("hub.mode") != "subscribe" or not any(fits) or not _CHALLENGE.fullmatch(challenge):
            return None
        return challenge

    def webhook(self, hook: Hook) -> tuple[News, ...]:
        """All statuses and messages of one request. What is no news of a message is left out, whatever it is.

        Raises BadSignature or Malformed.
        """
        webhooks.require_hmac(hook, header="x-hub-signature-256")
        news: list[News] = []
        for value in _values(webhooks.json_object(hook.body)):
            for status in _objects(value.get("statuses")):
                news += _receipt(status, hook)
            for message in _objects(value.get("messages")):
                news += _reply(message, hook)
        return tuple(news)


def _objects(given: object) -> Iterator[dict[str, Any]]:
    return (each for each in (given if isinstance(given, list) else ()) if isinstance(each, dict))


def _values(body: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for entry in _objects(body.get("entry")):
        for change in _objects(entry.get("changes")):
            value = change.get("value")
            if isinstance(value, dict):
                yield value


_RECEIPTS: Mapping[str, ReceiptStatus] = {"sent": "sent", "delivered": "delivered", "read": "read", "failed": "failed"}


def _receipt(given: Mapping[str, Any], hook: Hook) -> tuple[Receipt, ...]:
    message_id, status = said(given, "id"), _RECEIPTS.get(said(given, "status"))
    if not message_id or status is None:
        return ()
    error = next(_objects(given.get("errors")), {})
    return (
        Receipt(
            event_id=event_id(hook.device_id, message_id, status),
            status=status,
            at=_at(given, hook),
            reference=said(given, "biz_opaque_callback_data"),
            external_id=message_id,
            device_id=hook.device_id,
            code=said(error, "code", most=60),
            text=_words(error)[: webhooks.MAX_TEXT],
        ),
    )


def _reply(given: Mapping[str, Any], hook: Hook) -> tuple[Reply, ...]:
    """Nothing for somebody who hides behind a user name: there is no number to know them by."""
    message_id, phone = said(given, "id"), phone_of(given, "from")
    if not message_id or not phone:
        return ()
    name = event_id(hook.device_id, "reply", message_id)
    return (Reply(name, phone, _text(given), _at(given, hook), external_id=message_id, device_id=hook.device_id),)


def _at(given: Mapping[str, Any], hook: Hook) -> datetime:
    return moment_or(given, "timestamp", hook.now)


_TEXTS = (("text", "body"), ("button", "text"), ("image", "caption"), ("video", "caption"), ("document", "caption"))


def _text(given: Mapping[str, Any]) -> str:
    """What was written or chosen; the message's type in brackets where there are no words."""
    places = [(given.get(part), name) for part, name in _TEXTS]
    chosen = given.get("interactive")
    if isinstance(chosen, dict):
        places += [(chosen.get(part), "title") for part in ("button_reply", "list_reply")]
    for part, name in places:
        if isinstance(part, dict) and (text := said(part, name, most=webhooks.MAX_REPLY)):
            return text
    return f"[{said(given, 'type', most=20) or 'no text'}]"
