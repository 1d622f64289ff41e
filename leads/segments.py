"""Segments as queries: who matches a set of rules, and how many.

Nothing about a segment is stored beside its rules, so that it is always right. A page of a list walks the primary key
backwards and stops when it is full, or takes one of the indexes that a count reads as well: ``lead_niches`` and
``lead_triggers`` for tags, ``lead_custom`` for own fields, ``lead_opted_out``, ``lead_in_review`` and
``lead_no_consent`` for those few, ``lead_owner_id`` where nothing else is asked of the lead. Other counts read the
table itself. The indexes for engagement are named in :mod:`messaging.engagement`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from datetime import datetime

from django.db.models import F, Func, JSONField, Q, QuerySet, TextField, Value
from django.db.models.functions import Cast, Coalesce
from django.db.models.lookups import Exact, GreaterThan
from django.utils import timezone

from leads import engagement
from leads.engagement import Condition
from leads.models import Lead, Segment
from leads.rules import ENGAGEMENT, Rules, parse

_BARE = re.compile(r"true|false|-?(?:0|[1-9][0-9]{0,30})(?:\.[0-9]{1,30})?")
"""A truth value or a number, as PostgreSQL writes one of a JSON document."""
EMPTY = Value("", output_field=TextField())


def matching(rules: Rules) -> Q:
    """The condition on leads that ``rules`` stand for; they must be settled. Tags match exactly."""
    return _all(
        engagement.condition_of(name, value) if name in ENGAGEMENT else _CONDITIONS[name](value)
        for name, value in rules.asked()
    )


def leads_of(*, segment: Segment, now: datetime) -> QuerySet[Lead]:
    """The segment's leads as they are now: its owner's, whoever asks."""
    return narrowed(Lead.objects.all(), segment=segment, now=now)


def narrowed(leads: QuerySet[Lead], *, segment: Segment, now: datetime) -> QuerySet[Lead]:
    """Those of ``leads`` who match the segment."""
    return leads.filter(matching(rules_of(segment=segment, now=now)), owner_id=segment.owner_id)


def rules_of(*, segment: Segment, now: datetime) -> Rules:
    """The segment's rules, settled: days begin at midnight in the installation's time zone."""
    return parse(segment.rules).settled(now=timezone.localtime(now))


def count(*, owner_id: int, rules: Rules, now: datetime) -> int:
    """How many of the owner's leads match, whether we may write to them or not."""
    return Lead.objects.filter(matching(rules.settled(now=timezone.localtime(now))), owner_id=owner_id).count()


def _all(conditions: Iterable[Q]) -> Q:
    found = Q()
    for condition in conditions:
        found &= condition
    return found


def _own(field: str) -> Func:
    """An own field as text; NULL where it is missing. The function takes any name, also one made of digits."""
    return Func(F("custom"), Value(field), function="jsonb_extract_path_text", output_field=TextField())


def _own_is(field: str, text: str) -> Q:
    """Index lead_custom finds whoever has the value, as a text or as the number or truth value it may be as well; what
    counts is that it reads the same (1.0 is not 1)."""
    held = Q(custom__contains={field: text})
    if _BARE.fullmatch(text):
        held |= Q(custom__contains=Cast(Value(f"{{{json.dumps(field)}: {text}}}"), JSONField()))
    return held & Q(Exact(_own(field), Value(text)))


def _tag_conditions(tags: str) -> dict[str, Condition]:
    return {
        f"{tags}_any": lambda value: Q(**{f"{tags}__overlap": list(value)}),
        f"{tags}_all": lambda value: Q(**{f"{tags}__contains": list(value)}),
        f"{tags}_none": lambda value: ~Q(**{f"{tags}__overlap": list(value)}),
    }


_CONDITIONS: dict[str, Condition] = {
    "status": lambda value: Q(status=value),
    **_tag_conditions("niches"),
    **_tag_conditions("triggers"),
    "custom": lambda value: _all(_own_is(field, text) for field, text in value),
    "custom_set": lambda value: _all(Q(GreaterThan(_own(field), EMPTY)) for field in value),
    "custom_unset": lambda value: _all(Q(Exact(Coalesce(_own(field), EMPTY), EMPTY)) for field in value),
    "consent": lambda value: Q(consent_at__isnull=not value),
    "opted_out": lambda value: Q(opted_out_at__isnull=not value),
    "in_review": lambda value: Q(review_at__isnull=not value),
    "device": lambda value: Q(device_id=value),
    "has_device": lambda value: Q(device__isnull=not value),
    "created_from": lambda value: Q(created_at__gte=value),
    "created_before": lambda value: Q(created_at__lt=value),
}
