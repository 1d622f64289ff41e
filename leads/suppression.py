"""Numbers that must not be written to, remembered without the numbers.

What is stored is HMAC-SHA256 of the E.164 number under a key of its own (``FLOTILLA_SUPPRESSION_KEYS``), so the list
survives the lead, its device and the erasure of the person, and nobody reads phone numbers out of it or out of a
backup. A number cannot be hashed anew once it is forgotten; so each row names its key, new rows use the first key, all
keys are looked under, and a key that rows still name must stay in the setting: without it we refuse to add leads.

``FLOTILLA_SUPPRESSION_SCOPE`` says for whom a refusal counts: ``owner``, whoever heard it, or the ``installation``.

The claim looks at the lead's row alone, so two rules keep that row right:

* whoever suppresses a number marks every lead in scope that has it, in the same transaction;
* whoever makes leads, or gives one another number, does so inside :func:`admitting`, which marks those whose number is
  suppressed.

Each would miss what the other has not committed yet. The door lock (shared to come in, exclusive to suppress) makes
them take turns. It comes before the locks on leads, in every transaction.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from hashlib import sha256

from django.conf import settings
from django.contrib.auth.models import User
from django.core.exceptions import ImproperlyConfigured
from django.db import connection, transaction

from leads.models import ConsentEvent, Suppression

_DOOR = "flotilla.leads.suppression"


@dataclass(frozen=True, slots=True)
class _Key:
    id: str
    secret: bytes

    def digest(self, phone: str) -> str:
        return hmac.digest(self.secret, phone.encode(), "sha256").hex()

    def __repr__(self) -> str:
        return f"_Key({self.id})"


@contextmanager
def admitting(*, owner_id: int, phones: Iterable[str], now: datetime) -> Iterator[None]:
    """Make leads of this owner, or change their numbers, inside: those whose number is suppressed come out opted out.

    ``phones`` are E.164 and may be filled while inside. Opens a transaction if there is none. Raises
    ImproperlyConfigured if a key is missing.
    """
    with transaction.atomic():
        _lock("pg_advisory_xact_lock_shared")
        yield
        _mark_suppressed(owner_id=owner_id, phones=list(phones), now=now)


def close_door() -> None:
    """Keep everybody from adding leads until this transaction ends. Comes before :func:`suppress` and :func:`lift`."""
    _lock("pg_advisory_xact_lock")


def suppress(*, owner_id: int, phone: str, reason: Suppression.Reason, now: datetime) -> None:
    """Remember the number for this owner. Call :func:`close_door` before, and mark the leads in scope as well."""
    key = _keys()[0]
    Suppression.objects.update_or_create(
        owner_id=owner_id,
        key_id=key.id,
        digest=key.digest(phone),
        defaults={"suppressed_at": now, "reason": reason},
    )


def lift(*, owner_id: int, phone: str, now: datetime) -> None:
    """From now on no earlier refusal speaks for this owner; those of other owners stay for them."""
    key = _keys()[0]
    Suppression.objects.update_or_create(
        owner_id=owner_id, key_id=key.id, digest=key.digest(phone), defaults={"lifted_at": now}
    )


def suppressed(*, owner_id: int, phones: Sequence[str], own: bool = False) -> dict[str, datetime]:
    """Which of these numbers this owner must not write to, and since when; with ``own``, by what they heard themselves.

    Index suppression_once.
    """
    in_use = _keys_in_use()
    if not in_use:
        return {}
    number_of = {(key.id, key.digest(phone)): phone for key in in_use for phone in phones}
    rows = (
        Suppression.objects.filter(key_id__in={key.id for key in in_use}, digest__in=[d for _, d in number_of])
        .order_by()
        .values_list("key_id", "digest", "owner_id", "suppressed_at", "lifted_at")
    )
    everywhere = not own and settings.FLOTILLA_SUPPRESSION_SCOPE == "installation"
    since: dict[str, datetime] = {}
    lifted: dict[str, datetime] = {}
    for key_id, digest, whose, suppressed_at, lifted_at in rows:
        phone = number_of.get((key_id, digest))
        if phone is None:
            continue
        if suppressed_at is not None and (everywhere or whose == owner_id):
            since[phone] = max(suppressed_at, since.get(phone, suppressed_at))
        if lifted_at is not None and whose == owner_id:
            lifted[phone] = max(lifted_at, lifted.get(phone, lifted_at))
    return {phone: at for phone, at in since.items() if phone not in lifted or lifted[phone] < at}


def owners_in_scope(owner_id: int) -> list[int]:
    """Owners whose leads a refusal heard by this owner speaks for."""
    if settings.FLOTILLA_SUPPRESSION_SCOPE == "installation":
        return list(User.objects.order_by("pk").values_list("pk", flat=True))
    return [owner_id]


def _mark_suppressed(*, owner_id: int, phones: Sequence[str], now: datetime) -> int:
    """Mark the owner's leads that have one of these numbers and are suppressed; returns how many were not yet."""
    found = suppressed(owner_id=owner_id, phones=phones)
    if not found:
        return 0
    with connection.cursor() as cursor:
        cursor.execute(
            """WITH marked AS (
                   UPDATE leads_lead l SET opted_out_at = known.since, review_at = NULL, updated_at = %(now)s
                   FROM unnest(%(phones)s::varchar[], %(since)s::timestamptz[]) AS known (phone, since)
                   WHERE l.owner_id = %(owner)s AND l.phone = known.phone AND l.opted_out_at IS NULL
                   RETURNING l.id, known.since
               )
               INSERT INTO leads_consentevent (lead_id, kind, channel, source, happened_at, recorded_at)
               SELECT id, %(kind)s, %(channel)s, '', since, %(now)s FROM marked""",
            {
                "owner": owner_id,
                "phones": list(found),
                "since": list(found.values()),
                "now": now,
                "kind": ConsentEvent.Kind.SUPPRESSED.value,
                "channel": ConsentEvent.Channel.RECORD.value,
            },
        )
        return int(cursor.rowcount)


def key_ids() -> list[str]:
    """By what the keys of the settings are known in rows, newest first; tells nothing about them."""
    return [key.id for key in _keys()]


# -- Keys and locks ----------------------------------------------------------------------------------------------------


def _keys() -> tuple[_Key, ...]:
    return _made(tuple(settings.SUPPRESSION_KEYS))


@lru_cache(maxsize=4)
def _made(secrets: tuple[str, ...]) -> tuple[_Key, ...]:
    # What a key is known by must tell nothing about it.
    return tuple(_Key(sha256(b"flotilla.suppression.id:" + s.encode()).hexdigest()[:8], s.encode()) for s in secrets)


def _keys_in_use() -> list[_Key]:
    """Keys that rows name. Raises ImproperlyConfigured if one of them is not in the settings.

    Walks the index from one key to the next, so that it costs a few probes, however many rows there are.
    """
    with connection.cursor() as cursor:
        cursor.execute(
            """WITH RECURSIVE known AS (
                   (SELECT key_id FROM leads_suppression ORDER BY key_id LIMIT 1)
                   UNION ALL
                   SELECT (SELECT s.key_id FROM leads_suppression s WHERE s.key_id > known.key_id
                           ORDER BY s.key_id LIMIT 1)
                   FROM known WHERE known.key_id IS NOT NULL
               )
               SELECT key_id FROM known WHERE key_id IS NOT NULL"""
        )
        named = {row[0] for row in cursor.fetchall()}
    found = [key for key in _keys() if key.id in named]
    missing = named - {key.id for key in found}
    if missing:
        raise ImproperlyConfigured(
            "FLOTILLA_SUPPRESSION_KEYS lacks a key that suppressed numbers were stored with"
            f" ({', '.join(sorted(missing))}): put it back, behind the newest. Without it they would be written to."
        )
    return found


def _lock(function: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT {function}(hashtext(%s))", [_DOOR])
