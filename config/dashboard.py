"""The admin's home page: how the fleet and today's messages are, for the person who looks.

Every figure comes from counters or from an index, so the page costs the same however many messages there are.
"""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

from django.core.cache import cache
from django.db.models import Count, Q, QuerySet, Sum
from django.urls import reverse
from django.utils import timezone
from redis.exceptions import RedisError

from campaigns import loads
from campaigns.admin_words import RUN_COLOURS, state_words
from campaigns.models import Run, RunState
from campaigns.running import progress_of
from config.attention import Finding, findings, overall
from devices.access import AnyUser, Role, may_change, role_of
from devices.admin import STATE_COLOURS
from devices.models import Device, DeviceState
from leads.models import Lead
from messaging import days, halting, health
from messaging.admin_progress import bar, parts
from messaging.models import BatchState, DayCount, Message, Stream
from messaging.services import Counts
from messaging.states import IN_FLIGHT, State

RUNS_SHOWN = 6
FAILURES_SHOWN = 6
CHART_DAYS = 14

ESTIMATES_AT_ONCE, ESTIMATE_SECONDS = 2, 60
"""An estimate takes half a dozen queries, so it is kept for a minute, and one look at the page makes only a few."""


def overview(*, user: AnyUser, now: datetime) -> dict[str, Any]:
    """What the cards show. Nothing for people without a role; ops see how the installation is, no leads or messages."""
    role = role_of(user)
    if role is None:
        return {"role": role, "now": now}
    known: dict[str, Any] = {"role": role, "now": now}
    numbers, halt = health.gather(now=now), halting.current()
    if role is Role.OPS:
        found = findings(user=user, numbers=numbers, halt=halt, states=None, failed=0)
        return {**known, **health_of(found)}
    today = todays_counts(user=user, now=now)
    devices = devices_by_state(user=user)
    states = {each["state"]: each["number"] for each in devices}
    found = findings(user=user, numbers=numbers, halt=halt, states=states, failed=today.failed)
    return {
        **known,
        **health_of(found),
        "devices": devices,
        "steps": first_steps(user=user, devices=sum(states.values())),
        "today": today,
        "today_parts": parts(today),
        "today_bar": bar(today),
        "chart": chart(user=user, now=now),
        "shows_runs": role is not Role.TEAM,
        "runs": live_runs(user=user, now=now),
        "failures": latest_failures(user=user),
        "may_change": may_change(user),
    }


def health_of(found: list[Finding]) -> dict[str, Any]:
    """The word, and what it comes from."""
    level = overall(found)
    return {"overall": level, "findings": found}


def first_steps(*, user: AnyUser, devices: int) -> list[dict[str, Any]]:
    """What somebody who begins has to do, with what is done; empty once a campaign has run. Three queries at most."""
    if not may_change(user) or Run.objects.visible_to(user).exists():
        return []
    leads = Lead.objects.visible_to(user).exists()
    return [
        {"text": "Add a device", "done": devices > 0, "url": reverse("admin:devices_device_add")},
        {"text": "Import your leads", "done": leads, "url": reverse("admin:leads_leadimport_add")},
        {"text": "Write a campaign and launch it", "done": False, "url": reverse("admin:campaigns_campaign_add")},
    ]


SERIES = (
    # drawn over one another: of what was sent, so much was delivered, read, answered
    ("Replied", "replied", "--fl-chart-replied"),
    ("Read", "read", "--fl-chart-read"),
    ("Delivered", "delivered", "--fl-chart-delivered"),
    ("Sent", "sent", "--fl-chart-sent"),
)
CHART_OPTIONS = json.dumps(
    {
        "animation": False,
        "responsive": True,
        "maintainAspectRatio": False,
        "interaction": {"mode": "index", "intersect": False},
        "plugins": {
            "legend": {
                "position": "bottom",
                "reverse": True,
                "labels": {"boxWidth": 10, "boxHeight": 10, "color": "#8a919e", "usePointStyle": True},
            },
            "tooltip": {"itemSort": None},
        },
        "scales": {
            "x": {
                "border": {"display": False},
                "grid": {"display": False},
                "ticks": {"color": "#8a919e", "maxRotation": 0, "autoSkipPadding": 12},
            },
            "y": {
                "beginAtZero": True,
                "border": {"display": False},
                "grid": {"lineWidth": 0.5, "tickWidth": 0},
                "ticks": {"color": "#8a919e", "precision": 0, "maxTicksLimit": 5},
            },
        },
    }
)


def chart(*, user: AnyUser, now: datetime) -> dict[str, Any]:
    """The last days: as Chart.js takes it, as a table, and in one sentence for those who see neither."""
    found = days.last_days(user=user, days=CHART_DAYS, now=now)
    failed: dict[str, Any] = {
        "type": "line",
        "label": "Failed",
        "data": [day.failed for day in found],
        "borderColor": "var(--fl-chart-failed)",
        "backgroundColor": "var(--fl-chart-failed)",
        "borderWidth": 2,
        "pointRadius": 2.5,
        "tension": 0.25,
    }
    bars = [
        {
            "label": label,
            "data": [getattr(day, name) for day in found],
            "backgroundColor": f"var({colour})",
            "grouped": False,
            "borderRadius": 3,
            "maxBarThickness": 36,
        }
        for label, name, colour in SERIES
    ]
    total = {name: sum(getattr(day, name) for day in found) for name in DayCount.COUNTED}
    return {
        "json": json.dumps({"labels": [f"{day.day:%-d %b}" for day in found], "datasets": [failed, *bars]}),
        "options": CHART_OPTIONS,
        "days": [day for day in reversed(found) if any((day.sent, day.delivered, day.read, day.failed, day.replied))],
        "words": f"In {CHART_DAYS} days: " + ", ".join(f"{number:,} {name}" for name, number in total.items()) + ".",
        "empty": not any(total.values()),
    }


def devices_by_state(*, user: AnyUser) -> list[dict[str, Any]]:
    """Every state with its number of devices and the list behind it."""
    numbers = dict(Device.objects.visible_to(user).order_by().values_list("state").annotate(Count("id")))
    url = reverse("admin:devices_device_changelist")
    return [
        {
            "state": state,
            "label": DeviceState(state).label,
            "number": numbers.get(state, 0),
            "colour": STATE_COLOURS[DeviceState(state)] if numbers.get(state) else "default",
            "url": f"{url}?state__exact={state}",
        }
        for state in DeviceState.values
    ]


def todays_counts(*, user: AnyUser, now: datetime) -> Counts:
    """Counts of what ``user`` may see today."""
    return counts_today(streams=Stream.objects.visible_to(user), messages=Message.objects.visible_to(user), now=now)


def counts_today(*, streams: QuerySet[Stream], messages: QuerySet[Message], now: datetime) -> Counts:
    """Counts of the batches that are live, or began or ended today: the streams' counters, and what is in flight."""
    midnight = timezone.localtime(now).replace(hour=0, minute=0, second=0, microsecond=0)
    batches = (
        Q(batch__state__in=[BatchState.RUNNING, BatchState.PAUSED])
        | Q(batch__created_at__gte=midnight)
        | Q(batch__finished_at__gte=midnight)
    )
    sums = streams.filter(batches).aggregate(total_=Sum("total"), **{f"{name}_": Sum(name) for name in Stream.COUNTERS})
    numbers = {name.removesuffix("_"): value or 0 for name, value in sums.items()}
    waiting = numbers.pop("waiting")
    # Index message_one_in_flight: at most one row per lane of the fleet.
    queued = min(messages.filter(state__in=sorted(IN_FLIGHT)).count(), waiting)
    return Counts(pending=waiting - queued, queued=queued, **numbers)


def live_runs(*, user: AnyUser, now: datetime) -> list[dict[str, Any]]:
    """Runs that are going on, the newest first, with how far they are and when they will be done."""
    runs = list(
        Run.objects.visible_to(user)
        .filter(state__in=[RunState.PENDING, RunState.TRIGGERED])
        .select_related("campaign", "batch")
        .defer("batch__content", "audience", "left_out")[:RUNS_SHOWN]
    )
    counts = progress_of(runs) if runs else {}
    finish = finish_times([run for run in runs if run.state == RunState.TRIGGERED], now=now)
    return [
        {
            "name": str(run.campaign),
            "url": reverse("admin:campaigns_run_change", args=[run.pk]),
            "words": state_words(run),
            "colour": "warning" if state_words(run) == "Paused" else RUN_COLOURS[RunState(run.state)],
            "bar": bar(counts.get(run.pk, Counts())),
            "finish_at": finish.get(run.pk),
        }
        for run in runs
    ]


def finish_times(runs: list[Run], *, now: datetime) -> dict[int, datetime | None]:
    """Estimated ends by run, those that are known by now; the others come with the next looks at the page."""
    keys = {f"finish-{run.pk}": run for run in runs}
    try:
        known = cache.get_many(keys)
        for key, run in [(key, run) for key, run in keys.items() if key not in known][:ESTIMATES_AT_ONCE]:
            estimate = loads.during(run, now=now)
            known[key] = estimate.finish_at if estimate else None
            cache.set(key, known[key], ESTIMATE_SECONDS)
    except RedisError:  # without the cache nobody pays for estimates every ten seconds
        return {}
    return {keys[key].pk: at for key, at in known.items()}


def latest_failures(*, user: AnyUser) -> list[Message]:
    """The newest messages that failed for good (index message_troubled)."""
    return list(
        Message.objects.visible_to(user)
        .filter(state=State.FAILED)
        .select_related("device", "lead")
        .defer("device__credentials")
        .order_by("-id")[:FAILURES_SHOWN]
    )
