"""Runs by day: what ran, what was missed, and what is still to come."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from itertools import takewhile
from zoneinfo import ZoneInfo

from campaigns import schedules
from campaigns.models import Campaign, Run, Schedule
from campaigns.states import CampaignState
from devices.access import AnyUser

MOST_DAYS = 62
PER_CAMPAIGN = 200
"""Occurrences to come that are shown of one campaign; those of every minute would fill any page."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One occurrence. ``run_id`` is None for one that is still to come; ``state`` is then “planned”."""

    at: datetime
    campaign_id: int
    name: str
    state: str
    run_id: int | None = None
    reason: str = ""


def entries(*, user: AnyUser, first: date, last: date, zone: ZoneInfo, now: datetime) -> list[Entry]:
    """Everything from the first moment of ``first`` to the last of ``last`` by the clock of ``zone``, in order."""
    begins = datetime.combine(first, time(), tzinfo=zone)
    ends = datetime.combine(last + timedelta(days=1), time(), tzinfo=zone)
    runs = Run.objects.visible_to(user).filter(planned_at__gte=begins, planned_at__lt=ends)  # index run_planned
    found = [
        Entry(at, campaign_id, name, state, pk, reason)
        for pk, at, campaign_id, name, state, reason in runs.values_list(
            "pk", "planned_at", "campaign_id", "campaign__name", "state", "reason"
        )
    ]
    found += _to_come(user, max(begins, now), ends)
    return sorted(found, key=lambda entry: (entry.at, entry.campaign_id))


def by_day(found: list[Entry], *, first: date, last: date, zone: ZoneInfo) -> list[tuple[date, list[Entry]]]:
    """Every day from first to last with its entries."""
    days: dict[date, list[Entry]] = {first + timedelta(days=n): [] for n in range((last - first).days + 1)}
    for entry in found:
        days[entry.at.astimezone(zone).date()].append(entry)
    return list(days.items())


def _to_come(user: AnyUser, begins: datetime, ends: datetime) -> Iterator[Entry]:
    watched = Campaign.objects.visible_to(user).filter(state=CampaignState.SCHEDULED, schedule=Schedule.CRON)
    for campaign in watched.only("pk", "name", "cron", "time_zone", "planned_until"):
        after = max(begins, campaign.planned_until or begins)
        try:
            zone = schedules.zone_of(campaign.time_zone)
            coming = schedules.occurrences(campaign.cron, zone=zone, after=after)
            moments = list(takewhile(lambda moment: moment < ends, coming))[:PER_CAMPAIGN]
        except schedules.ScheduleProblem:
            continue
        for moment in moments:
            yield Entry(moment, campaign.pk, campaign.name, "planned")
