"""Where, when and how people agreed, with nothing of it lost; and the waivers that let bulk sends do without.

The consent in force is on the lead: ``consent_at`` and ``consent_source``. Whatever is about to replace it, or comes
on top of it, calls :func:`preserve` or :func:`note_again` in the same transaction.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import structlog
from django.contrib.auth.models import User
from django.db import IntegrityError, connection, transaction
from django.db.models import Q

from leads import suppression
from leads.imports import LeadRow
from leads.models import ConsentEvent, ConsentWaiver, Lead

log = structlog.get_logger(__name__)

_AGREED = (ConsentEvent.Kind.GIVEN, ConsentEvent.Kind.OPTED_IN)

# Leads that agreed before and now say something new. Unique lead_owner_phone, number by number (OFFSET 0 keeps the
# planner from reading all leads for it).
_AGAIN = """
FROM unnest(%(phones)s::varchar[], %(sources)s::varchar[], %(ats)s::timestamptz[], %(dated)s::boolean[])
     AS named (phone, source, at, dated)
CROSS JOIN LATERAL (SELECT id, consent_at, consent_source, opted_out_at FROM leads_lead
                    WHERE owner_id = %(owner)s AND phone = named.phone OFFSET 0) l
WHERE l.consent_at IS NOT NULL AND l.opted_out_at IS NULL
  AND (l.consent_source <> named.source OR (named.dated AND l.consent_at <> named.at))
"""
_KEEP = """
INSERT INTO leads_consentevent (lead_id, kind, channel, source, happened_at, recorded_at)
SELECT l.id, 'given', 'record', l.consent_source, l.consent_at, %(now)s
{again}
  AND NOT EXISTS (SELECT FROM leads_consentevent e
                  WHERE e.lead_id = l.id AND e.kind IN ('given', 'opted_in')
                    AND e.happened_at = l.consent_at AND e.source = l.consent_source)
"""
_TELL = """
INSERT INTO leads_consentevent (lead_id, kind, channel, source, happened_at, by_id, recorded_at)
SELECT l.id, 'given', %(channel)s, named.source, named.at, %(by)s, %(now)s
{again}
  AND NOT EXISTS (SELECT FROM leads_consentevent e
                  WHERE e.lead_id = l.id AND e.kind = 'given' AND e.source = named.source
                    AND (e.happened_at = named.at OR NOT named.dated))
"""


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of a lead's history. ``by`` is the user name of whoever did it, or nothing."""

    kind: ConsentEvent.Kind
    channel: ConsentEvent.Channel
    source: str
    happened_at: datetime
    by: str = ""


@dataclass(frozen=True, slots=True)
class Agreement:
    """Somebody agrees: who, when, and where and how. ``dated``: the time was told with it, and is not ours."""

    phone: str
    at: datetime
    source: str
    dated: bool = False


# -- History -----------------------------------------------------------------------------------------------------------


def history(lead: Lead) -> list[Entry]:
    """Everything known about the lead's consent, newest first: the events, and what the lead itself says."""
    events = list(lead.consent_events.select_related("by").order_by("-id"))
    found = [
        Entry(
            ConsentEvent.Kind(event.kind),
            ConsentEvent.Channel(event.channel),
            event.source,
            event.happened_at,
            event.by.get_username() if event.by else "",
        )
        for event in events
    ]
    told = {(entry.happened_at, entry.source) for entry in found if entry.kind in _AGREED}
    if lead.consent_at is not None and (lead.consent_at, lead.consent_source) not in told:
        found.append(Entry(ConsentEvent.Kind.GIVEN, ConsentEvent.Channel.RECORD, lead.consent_source, lead.consent_at))
    return sorted(found, key=lambda entry: entry.happened_at, reverse=True)


def preserve(*, lead_ids: Sequence[int], now: datetime) -> None:
    """Copy the consent these leads carry into their history, where it is not there yet."""
    with connection.cursor() as cursor:
        cursor.execute(
            """INSERT INTO leads_consentevent (lead_id, kind, channel, source, happened_at, recorded_at)
               SELECT l.id, 'given', 'record', l.consent_source, l.consent_at, %(now)s
               FROM leads_lead l
               WHERE l.id = ANY(%(leads)s) AND l.consent_at IS NOT NULL
                 AND NOT EXISTS (SELECT FROM leads_consentevent e
                                 WHERE e.lead_id = l.id AND e.kind IN ('given', 'opted_in')
                                   AND e.happened_at = l.consent_at AND e.source = l.consent_source)""",
            {"leads": list(lead_ids), "now": now},
        )


def agreements_in(rows: Iterable[LeadRow], *, source: str, now: datetime) -> list[Agreement]:
    """The consent that comes with the rows of a file: each row's own before that of the whole file, which whoever
    refused in the file does not give."""
    found = []
    for row in rows:
        if row.consent_at is not None or row.consent_source:
            at, dated = row.consent_at or now, row.consent_at is not None
            found.append(Agreement(row.phone, at, row.consent_source or source, dated))
        elif source and row.opted_out_at is None:
            found.append(Agreement(row.phone, now, source))
    return found


def note_again(
    *,
    owner_id: int,
    agreements: Sequence[Agreement],
    channel: ConsentEvent.Channel,
    now: datetime,
    by: User | None = None,
    replaces: bool = False,
) -> None:
    """People who had agreed before agree again, somewhere else: one row each in their history.

    Call it before the merge that might fill in the consent of those who had none; where that ``replaces`` what stands
    on the lead, what stood there is kept first. An import that is resumed, or made again, tells nothing new.
    """
    told = [agreement for agreement in agreements if agreement.source]
    if not told:
        return
    values: dict[str, Any] = {
        "owner": owner_id,
        "phones": [agreement.phone for agreement in told],
        "sources": [agreement.source for agreement in told],
        "ats": [agreement.at for agreement in told],
        "dated": [agreement.dated for agreement in told],
        "channel": channel.value,
        "by": by.pk if by else None,
        "now": now,
    }
    with connection.cursor() as cursor:
        if replaces:
            cursor.execute(_KEEP.format(again=_AGAIN), values)
        cursor.execute(_TELL.format(again=_AGAIN), values)


@contextmanager
def editing(*, lead: Lead, channel: ConsentEvent.Channel, now: datetime, by: User | None = None) -> Iterator[None]:
    """Save ``lead``, new or changed, inside: its consent is kept track of, and a suppressed number is noticed."""
    phones: list[str] = []
    with suppression.admitting(owner_id=lead.owner_id, phones=phones, now=now):
        before = Lead.objects.filter(pk=lead.pk).values_list("consent_at", "consent_source").first()
        if lead.pk is not None:
            preserve(lead_ids=[lead.pk], now=now)
        yield
        phones.append(lead.phone)
        if lead.consent_at is not None and (lead.consent_at, lead.consent_source) != before:
            ConsentEvent.objects.create(
                lead=lead,
                kind=ConsentEvent.Kind.GIVEN,
                channel=channel,
                source=lead.consent_source,
                happened_at=lead.consent_at,
                by=by,
                recorded_at=now,
            )


# -- Waivers -----------------------------------------------------------------------------------------------------------


class WaiverRefused(Exception):  # noqa: N818 - reads as a fact
    """A waiver that cannot be made, with what to do; ``field`` names what to change."""

    def __init__(self, code: str, text: str, field: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = text
        self.field = field


def waiver_for(owner_id: int) -> ConsentWaiver | None:
    """The waiver in force for this owner's leads: their own, else everybody's."""
    in_force = ConsentWaiver.objects.filter(Q(owner=owner_id) | Q(owner=None), ended_at__isnull=True)
    return in_force.order_by("owner").first()  # NULLs come last


def waive(*, owner: User | None, reason: str, by: User, now: datetime) -> ConsentWaiver:
    """Let bulk sends go to leads without recorded consent. Whether ``by`` is an admin is the caller's to check.

    Raises :class:`WaiverRefused` without a reason, and where one is in force for the same leads.
    """
    reason = " ".join(reason.split())
    if not reason:
        raise WaiverRefused("required", "Say on what ground these people may be written to.", "reason")
    try:
        with transaction.atomic():
            waiver = ConsentWaiver.objects.create(owner=owner, reason=reason[:300], made_by=by, made_at=now)
    except IntegrityError:
        raise WaiverRefused("in_force", "There is one in force for these leads: end it first.", "owner") from None
    log.warning("consent.waived", waiver=waiver.pk, owner=owner.pk if owner else None, by=by.pk)
    return waiver


def end_waiver(*, waiver: ConsentWaiver, by: User, now: datetime) -> bool:
    """From now on consent is needed again; what a run has already made stays. Whether it was in force."""
    ended = ConsentWaiver.objects.filter(pk=waiver.pk, ended_at__isnull=True).update(ended_at=now, ended_by=by)
    if ended:
        log.warning("consent.waiver_ended", waiver=waiver.pk, by=by.pk)
    return bool(ended)
