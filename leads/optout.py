"""Refusing, agreeing again, and the cases a person has to judge: one function for each, and one for what people write.

Each is one transaction that takes the suppression's door lock and then the lead's row. The claim share-locks that row,
so from the moment one of these commits no message to the lead is claimed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

import structlog
from django.conf import settings
from django.contrib.auth.models import User
from django.db import transaction
from django.db.models import F, Q
from django.db.models.functions import Coalesce

from leads import consent, suppression
from leads.keywords import Kind, Meaning, meaning_of
from leads.models import ConsentEvent, Lead, Suppression
from leads.phones import mask

log = structlog.get_logger(__name__)

Channel = ConsentEvent.Channel
Event = ConsentEvent.Kind

_AT_ONCE = 2000
REPLY_LENGTH = 200
"""Characters of somebody's message that are kept with what it came to."""


@dataclass(frozen=True, slots=True)
class Heard:
    """What a message came to.

    ``changed``: this call made the difference (the same message again does not). ``reply`` is what to answer, once, if
    the installation answers at all: send it with ``messaging.services.confirm_opt_out``. ``event_id`` is its key.
    """

    kind: Kind
    lead_id: int | None = None
    changed: bool = False
    reply: str = ""
    event_id: int | None = None


@dataclass(frozen=True, slots=True)
class _Deed:
    """Who said or did what, how we know, and when."""

    channel: Channel
    source: str
    now: datetime
    by: User | None = None


class OptInRefused(Exception):  # noqa: N818 - reads as a fact
    """An opt-in that says too little; ``field`` names what to add."""

    def __init__(self, code: str, text: str, field: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = text
        self.field = field


def hear(*, owner_id: int, phone: str, text: str, now: datetime) -> Heard:
    """Act on what somebody wrote to a device of this owner; ``phone`` is theirs, in E.164.

    Call it for every message that comes in, with or without a lead of that number: STOP from a stranger is remembered
    as well. In a longer transaction call it before anything locks a lead. START counts only from those who had refused
    or are under review: to all others it is just a word.
    """
    meaning = meaning_of(text)
    if meaning.kind is Kind.NOTHING:
        return Heard(Kind.NOTHING)
    deed = _Deed(Channel.REPLY, " ".join(text.split())[:REPLY_LENGTH], now)
    with transaction.atomic():
        suppression.close_door()
        match meaning.kind:
            case Kind.OPT_OUT:
                heard = _heard_stop(owner_id, phone, deed)
            case Kind.OPT_IN:
                heard = _heard_start(owner_id, phone, deed)
            case _:
                heard = _hold(owner_id, phone, deed)
    _tell(heard, meaning, phone)
    return heard


def opt_out(*, lead: Lead, channel: Channel, now: datetime, source: str = "", by: User | None = None) -> bool:
    """They refuse: by API or by a person. Whether that is news. ``lead`` is brought up to date."""
    with transaction.atomic():
        suppression.close_door()
        deed = _Deed(channel, source[:300], now, by)
        marked = _refuse(lead.owner_id, lead.phone, deed, also=lead.pk)
    lead.refresh_from_db(fields=["opted_out_at", "review_at", "updated_at"])
    return lead.pk in marked


def opt_in(*, lead: Lead, channel: Channel, source: str, now: datetime, by: User | None = None) -> bool:
    """They agree (again), as ``source`` says. Whether that is news. ``lead`` is brought up to date.

    Raises :class:`OptInRefused` without a source: consent that nobody can show is none.
    """
    source = " ".join(source.split())[:REPLY_LENGTH]
    if not source:
        raise OptInRefused("required", "Say where and how they agreed again.", "source")
    with transaction.atomic():
        suppression.close_door()
        changed = _agree(lead.pk, _Deed(channel, source, now, by))
    lead.refresh_from_db(fields=["opted_out_at", "review_at", "consent_at", "consent_source", "updated_at"])
    return changed is not None


def dismiss_review(*, lead: Lead, channel: Channel, now: datetime, by: User | None = None) -> bool:
    """A person has read it: no refusal. Whether the lead was held; messages to it go on within minutes."""
    with transaction.atomic():
        held = Lead.objects.filter(pk=lead.pk, review_at__isnull=False).update(review_at=None, updated_at=now)
        if held:
            _note(lead.pk, Event.DISMISSED, _Deed(channel, "", now, by))
    lead.refresh_from_db(fields=["opted_out_at", "review_at", "updated_at"])
    return bool(held)


def delete_lead(*, lead: Lead, now: datetime) -> None:
    """Delete the lead. That it refused is kept, as a hash of its number, so that a later import does not forget it."""
    with transaction.atomic():
        suppression.close_door()
        # Rows written before there was a list of suppressed numbers, or by hand, may not be on it.
        refused_at = Lead.objects.filter(pk=lead.pk).values_list("opted_out_at", flat=True).first()
        known = suppression.suppressed(owner_id=lead.owner_id, phones=[lead.phone], own=True)
        if refused_at is not None and not known:
            suppression.suppress(owner_id=lead.owner_id, phone=lead.phone, reason=Suppression.Reason.OPTED_OUT, now=now)
        lead.delete()


def delete_leads(*, ids: Sequence[int], owner_id: int, now: datetime) -> None:
    """The same for many of one owner's leads: the caller has closed the door and locked them, in its transaction."""
    for start in range(0, len(ids), _AT_ONCE):
        part = Lead.objects.filter(pk__in=ids[start : start + _AT_ONCE])
        refused = list(part.filter(opted_out_at__isnull=False).order_by().values_list("phone", flat=True))
        known = suppression.suppressed(owner_id=owner_id, phones=refused, own=True)
        for phone in refused:
            if phone not in known:
                suppression.suppress(owner_id=owner_id, phone=phone, reason=Suppression.Reason.OPTED_OUT, now=now)
        part.delete()


def refuse_for_good(*, owner_id: int, phone: str, reason: Suppression.Reason, now: datetime) -> None:
    """Suppress the number and mark every lead in scope, in the caller's transaction, which must hold no lead yet."""
    suppression.close_door()
    suppression.suppress(owner_id=owner_id, phone=phone, reason=reason, now=now)
    for lead_id in _mark(owner_id, phone, now):
        _note(lead_id, Event.SUPPRESSED, _Deed(Channel.RECORD, "", now))


# -- The steps, behind the closed door ---------------------------------------------------------------------------------


def _heard_stop(owner_id: int, phone: str, deed: _Deed) -> Heard:
    marked = _refuse(owner_id, phone, deed)
    lead_id = _lead_of(owner_id, phone)
    event_id = marked.get(lead_id) if lead_id is not None else None
    reply = settings.FLOTILLA_OPT_OUT_REPLY if event_id is not None else ""
    return Heard(Kind.OPT_OUT, lead_id, bool(marked), reply, event_id)


def _heard_start(owner_id: int, phone: str, deed: _Deed) -> Heard:
    lead_id = _lead_of(owner_id, phone)
    if lead_id is None:
        known = suppression.suppressed(owner_id=owner_id, phones=[phone])
        if known:
            suppression.lift(owner_id=owner_id, phone=phone, now=deed.now)
        return Heard(Kind.OPT_IN, changed=bool(known))
    held_back = Q(opted_out_at__isnull=False) | Q(review_at__isnull=False)
    if not Lead.objects.filter(held_back, pk=lead_id).exists():
        return Heard(Kind.NOTHING, lead_id)
    event_id = _agree(lead_id, deed)
    return Heard(Kind.OPT_IN, lead_id, event_id is not None, event_id=event_id)


def _hold(owner_id: int, phone: str, deed: _Deed) -> Heard:
    """Pause the lead until somebody has looked. Whoever opted out already needs no review."""
    lead_id = _lead_of(owner_id, phone)
    if lead_id is None:
        return Heard(Kind.REVIEW)
    changed = Lead.objects.filter(pk=lead_id, opted_out_at__isnull=True).update(
        review_at=Coalesce(F("review_at"), deed.now), updated_at=deed.now
    )
    if not changed:
        return Heard(Kind.REVIEW, lead_id)
    event_id = _note(lead_id, Event.HELD, deed)
    return Heard(Kind.REVIEW, lead_id, changed=True, event_id=event_id)


def _refuse(owner_id: int, phone: str, deed: _Deed, *, also: int | None = None) -> dict[int, int]:
    """Suppress the number and mark its leads; returns {lead: event} of those that had not refused before."""
    suppression.suppress(owner_id=owner_id, phone=phone, reason=Suppression.Reason.OPTED_OUT, now=deed.now)
    marked = _mark(owner_id, phone, deed.now, also=also)
    consent.preserve(lead_ids=marked, now=deed.now)
    return {pk: _note(pk, Event.OPTED_OUT, deed) for pk in marked}


def _mark(owner_id: int, phone: str, now: datetime, *, also: int | None = None) -> list[int]:
    """Mark the leads with this number in scope (and ``also``, whatever its number is by now); ids of the new ones.

    Unique lead_owner_phone, owner by owner: there is no index on numbers alone, and owners are few.
    """
    asked = Q(owner_id__in=suppression.owners_in_scope(owner_id), phone=phone) | Q(pk=also)
    ids = list(
        Lead.objects.filter(asked, opted_out_at__isnull=True)
        .order_by("pk")
        .select_for_update(no_key=True)
        .values_list("pk", flat=True)
    )
    Lead.objects.filter(pk__in=ids).update(opted_out_at=now, review_at=None, updated_at=now)
    # held for review and opted out already: nothing is left to decide
    Lead.objects.filter(asked, review_at__isnull=False).update(review_at=None, updated_at=now)
    return ids


def _agree(lead_id: int, deed: _Deed) -> int | None:
    """Opt the lead in and lift the suppression for its owner; the event's id, None if nothing stood against it."""
    lead = Lead.objects.select_for_update(no_key=True).get(pk=lead_id)
    if lead.opted_out_at is None and lead.review_at is None and lead.consent_at is not None:
        return None
    consent.preserve(lead_ids=[lead_id], now=deed.now)
    suppression.lift(owner_id=lead.owner_id, phone=lead.phone, now=deed.now)
    if deed.channel == Channel.REPLY:
        deed = replace(deed, source=f"Wrote “{deed.source}”"[:REPLY_LENGTH])
    Lead.objects.filter(pk=lead_id).update(
        opted_out_at=None, review_at=None, consent_at=deed.now, consent_source=deed.source, updated_at=deed.now
    )
    return _note(lead_id, Event.OPTED_IN, deed)


def _lead_of(owner_id: int, phone: str) -> int | None:
    return Lead.objects.filter(owner_id=owner_id, phone=phone).values_list("pk", flat=True).first()


def _note(lead_id: int, kind: Event, deed: _Deed) -> int:
    event = ConsentEvent.objects.create(
        lead_id=lead_id,
        kind=kind,
        channel=deed.channel,
        source=deed.source,
        happened_at=deed.now,
        by=deed.by,
        recorded_at=deed.now,
    )
    return event.pk


def _tell(heard: Heard, meaning: Meaning, phone: str) -> None:
    log.info(
        "consent.heard", kind=heard.kind.value, lead_id=heard.lead_id, changed=heard.changed, phone=mask(phone),
        language=meaning.language,
    )  # fmt: skip
