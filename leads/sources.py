"""Leads that come in by webhook: believed if signed, taken in once, and merged by the rules of the import.

A request carries ``X-Flotilla-Timestamp`` (seconds since 1970) and ``X-Flotilla-Signature``: ``sha256=`` and the hex
HMAC-SHA256, by the source's secret, of the timestamp, a full stop and the raw body. Its key is the ``Idempotency-Key``
header, else ``event_id`` in the body, else the signed text itself: so a recorded request can be repeated by nobody.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from zlib import crc32

import structlog
from django.core.cache import cache
from django.db import connection, transaction
from redis.exceptions import RedisError

from devices.access import may_change
from devices.gateways.news import BadSignature, Hook, Malformed
from devices.gateways.webhooks import json_object, require_fresh, require_hmac
from devices.models import Device
from leads import changes, services
from leads.source_body import LeadBody
from leads.source_models import LeadSource, LeadSourceEvent

log = structlog.get_logger(__name__)

MAX_BODY_BYTES = 64 * 1024
KEEP_EVENTS = timedelta(days=7)
"""For so long a repeated request finds its answer."""
_FORGET_AT_ONCE = 20
_KEY = re.compile(r"[\x21-\x7e]{1,200}")
_STAMP = re.compile(r"[0-9]{1,11}")


class NoSuchSource(LookupError):  # noqa: N818 - reads as a fact
    """No source has this key."""


class SourceClosed(Exception):  # noqa: N818 - reads as a fact
    """The source is disabled, or its owner may not change leads any more."""


class TooMany(Exception):  # noqa: N818 - reads as a fact
    """More requests this minute than the source allows."""

    def __init__(self, wait_seconds: int) -> None:
        super().__init__(f"wait {wait_seconds} s")
        self.wait_seconds = wait_seconds


class KeyReused(Exception):  # noqa: N818 - reads as a fact
    """This key came with another body before."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What to answer: an HTTP status and a JSON object without anybody's number. ``replay``: it was told before."""

    status: int
    body: Mapping[str, Any]
    replay: bool = False


# -- One request -------------------------------------------------------------------------------------------------------


def receive(*, key: str, headers: Mapping[str, str], body: bytes, now: datetime) -> Answer:
    """Take in one request; ``headers`` have lower-case names. Told twice, even at once, it happens once.

    Raises NoSuchSource, BadSignature, SourceClosed, TooMany, Malformed, DRF's ValidationError with the fields, and
    KeyReused. Only success is remembered: a mended request may use the same key.
    """
    source = LeadSource.objects.select_related("owner").filter(key=key).first()
    if source is None:
        raise NoSuchSource(key)
    signed = _believed(source, headers, body, now)
    if not source.enabled or not may_change(source.owner):
        raise SourceClosed
    _count(source, now)
    given = _storable_object(body)
    form = LeadBody(data=given, context={"source": source})
    form.is_valid(raise_exception=True)
    wanted: dict[str, Any] = dict(form.validated_data)
    ignored = sorted(set(given) - set(form.fields))
    event_key = _event_key(headers, wanted.pop("event_id", ""), signed)
    with transaction.atomic():
        event_id = _claim(source, event_key, hashlib.sha256(body).hexdigest(), now)
        if event_id is None:
            return _told_before(source, event_key, body)
        answer = _take(source, wanted, ignored, now)
        LeadSourceEvent.objects.filter(pk=event_id).update(status=answer.status, answer=answer.body)
        _forget(source, now)
    log.info("lead_source.taken", source=source.pk, lead_id=answer.body["lead"], created=answer.body["created"])
    return answer


def _believed(source: LeadSource, headers: Mapping[str, str], body: bytes, now: datetime) -> bytes:
    """What was signed. Raises BadSignature."""
    stamp = headers.get("x-flotilla-timestamp", "")
    if not _STAMP.fullmatch(stamp):
        raise BadSignature("bad_signature", "X-Flotilla-Timestamp must be the time of signing in seconds since 1970.")
    usable = source.valid_secrets(now=now)
    if not usable:
        log.error("lead_source.secret_unreadable", source=source.pk, remedy="put the FLOTILLA_FIELD_KEYS key back")
        raise BadSignature("bad_signature", "This source has no readable secret: make a new one.")
    signed = stamp.encode() + b"." + body
    require_hmac(Hook(headers=headers, body=signed, secrets=usable, now=now), header="x-flotilla-signature")
    require_fresh(datetime.fromtimestamp(int(stamp), tz=UTC), now=now)
    return signed


def _count(source: LeadSource, now: datetime) -> None:
    """Raises TooMany. Without Redis everybody passes: leads are accepted while the broker is down."""
    minute, second = divmod(int(now.timestamp()), 60)
    name = f"lead_source:{source.pk}:{minute}"
    try:
        cache.add(name, 0, 120)
        if cache.incr(name) > source.rate_per_minute:
            raise TooMany(60 - second)
    except RedisError as problem:
        log.warning("lead_source.uncounted", source=source.pk, error=type(problem).__name__)


def _storable_object(body: bytes) -> dict[str, Any]:
    """The body as an object of values that PostgreSQL takes. Raises Malformed."""
    given = json_object(body)
    try:
        text = json.dumps(given, ensure_ascii=False, allow_nan=False)
        text.encode()  # a half of a surrogate pair has no UTF-8
    except (ValueError, RecursionError):
        raise Malformed("malformed", "The body holds a number or a character that cannot be stored.") from None
    if "\\u0000" in text:
        raise Malformed("malformed", "The body holds a null character: leave it out.")
    return given


def _event_key(headers: Mapping[str, str], event_id: str, signed: bytes) -> str:
    """Raises Malformed for a header that is no key."""
    header = headers.get("idempotency-key")
    if header is None:
        return event_id or f"signed {hashlib.sha256(signed).hexdigest()}"
    if not _KEY.fullmatch(header):
        raise Malformed("idempotency_key_invalid", "Idempotency-Key: use 1 to 200 visible ASCII characters, as a UUID.")
    return header


def _claim(source: LeadSource, key: str, fingerprint: str, now: datetime) -> int | None:
    """The new event's id; None if it was told before. Whoever tells it at the same time waits here for the first."""
    with connection.cursor() as cursor:
        cursor.execute(
            """INSERT INTO leads_leadsourceevent (source_id, key, fingerprint, status, answer, created_at)
               VALUES (%s, %s, %s, 0, '{}', %s) ON CONFLICT (source_id, key) DO NOTHING RETURNING id""",
            [source.pk, key, fingerprint, now],
        )
        row = cursor.fetchone()
    return int(row[0]) if row else None


def _told_before(source: LeadSource, key: str, body: bytes) -> Answer:
    stored = LeadSourceEvent.objects.get(source=source, key=key)
    if stored.fingerprint != hashlib.sha256(body).hexdigest():
        raise KeyReused
    return Answer(stored.status, stored.answer, replay=True)


def _take(source: LeadSource, wanted: dict[str, Any], ignored: list[str], now: datetime) -> Answer:
    phone = wanted["phone"]
    device = wanted.pop("device", None) or source.device or _of_pool(source, phone)
    with changes.noted(
        owner_id=source.owner_id, phone=phone, channel=changes.Channel.WEBHOOK, now=now, note=source.name
    ):
        lead, created = services.upsert_lead(
            owner=source.owner,
            region=source.region,
            device=device,
            consent_source=source.consent_source,
            **wanted,
        )
    body = {
        "lead": lead.pk,
        "created": created,
        "device": lead.device_id,
        "opted_out": lead.opted_out_at is not None,
        "ignored": ignored,
    }
    return Answer(201 if created else 200, body)


def _of_pool(source: LeadSource, phone: str) -> Device | None:
    """A device of the pool, a connected one where there is one; the same for the same number."""
    if source.pool_id is None:
        return None
    devices = Device.objects.filter(pool_id=source.pool_id, owner_id=source.owner_id).defer("credentials")
    choice = list(devices.able().order_by("pk")) or list(devices.order_by("pk"))
    return choice[crc32(phone.encode()) % len(choice)] if choice else None


def _forget(source: LeadSource, now: datetime) -> None:
    """Each request takes a few that are too old along, so that nothing piles up. Index lead_source_event_age."""
    with connection.cursor() as cursor:
        cursor.execute(
            """DELETE FROM leads_leadsourceevent WHERE id IN (
                   SELECT id FROM leads_leadsourceevent WHERE created_at < %s AND source_id = %s
                   ORDER BY created_at LIMIT %s FOR UPDATE SKIP LOCKED)""",
            [now - KEEP_EVENTS, source.pk, _FORGET_AT_ONCE],
        )
