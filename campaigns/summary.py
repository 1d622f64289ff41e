"""Campaigns at a glance: how many are in which state, and what their runs of a span of time have come to."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta
from zoneinfo import ZoneInfo

from django.db.models import Count, Sum

from campaigns.models import AnswerCount, Campaign, Run, RunVariant
from campaigns.states import CampaignState, RunState
from devices.access import AnyUser
from messaging.models import Stream
from messaging.services import Counts


@dataclass(frozen=True, slots=True)
class Summary:
    """Numbers by state; ``messages`` and ``replied`` are of the runs planned in the span, from their counters."""

    campaigns: dict[str, int]
    runs: dict[str, int]
    messages: Counts = field(default_factory=Counts)
    replied: int = 0


def span(*, first: date, last: date, zone: ZoneInfo) -> tuple[datetime, datetime]:
    """From the first moment of ``first`` up to the end of ``last``, by the clock of ``zone``."""
    return (
        datetime.combine(first, time(), tzinfo=zone),
        datetime.combine(last + timedelta(days=1), time(), tzinfo=zone),
    )


def summary(*, user: AnyUser, begins: datetime, ends: datetime) -> Summary:
    """What the person may see. What is in flight counts as pending here: one query less."""
    campaigns = Campaign.objects.visible_to(user).order_by().values_list("state").annotate(Count("pk"))
    runs = Run.objects.visible_to(user).filter(planned_at__gte=begins, planned_at__lt=ends).order_by()
    batches = set(runs.filter(batch__isnull=False).values_list("batch_id", flat=True))
    batches |= set(RunVariant.objects.filter(run__in=runs.values("pk")).values_list("batch_id", flat=True))
    names = ("total", *Stream.COUNTERS)
    sums = Stream.objects.filter(batch__in=batches).aggregate(**{f"{name}_": Sum(name) for name in names})
    numbers = {name: sums[f"{name}_"] or 0 for name in names}
    replied = AnswerCount.objects.filter(batch__in=batches).aggregate(n=Sum("replied"))["n"] or 0
    return Summary(
        campaigns={**dict.fromkeys(CampaignState.values, 0), **dict(campaigns)},
        runs={**dict.fromkeys(RunState.values, 0), **dict(runs.values_list("state").annotate(Count("pk")))},
        messages=Counts(pending=numbers.pop("waiting"), **numbers),
        replied=replied,
    )
