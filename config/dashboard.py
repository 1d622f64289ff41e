"""The admin's home page: how the fleet and today's messages are, for the person who looks.

Every figure comes from counters or from an index, so the page costs the same however many messages there are.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from django.db.models import Count, Q, QuerySet, Sum
from django.urls import reverse
from django.utils import timezone

from campaigns.admin_words import RUN_COLOURS, state_words
from campaigns.models import Run, RunState
from devices.access import AnyUser, Role, role_of
from devices.admin import STATE_COLOURS
from devices.models import Device, DeviceState
from messaging import halting
from messaging.admin_halt import may_resume
from messaging.admin_progress import bar, parts
from messaging.models import BatchState, Message, Stream
from messaging.services import Counts, counts_of
from messaging.states import IN_FLIGHT, State

RUNS_SHOWN = 8
FAILURES_SHOWN = 8


def overview(*, user: AnyUser, now: datetime) -> dict[str, Any]:
    """What the cards show. Empty for people without a role, and for ops, who see no leads and no messages."""
    role = role_of(user)
    halted = {"halt": halting.current(), "may_resume": may_resume(user)} if role else {}
    if role in {None, Role.OPS}:
        return {"role": role, "now": now, **halted}
    today = todays_counts(user=user, now=now)
    return {
        "role": role,
        "now": now,
        **halted,
        "devices": devices_by_state(user=user),
        "today": today,
        "today_parts": parts(today),
        "today_bar": bar(today),
        "shows_runs": role is not Role.TEAM,
        "runs": live_runs(user=user),
        "failures": latest_failures(user=user),
    }


def devices_by_state(*, user: AnyUser) -> list[dict[str, Any]]:
    """Every state with its number of devices and the list behind it."""
    numbers = dict(Device.objects.visible_to(user).order_by().values_list("state").annotate(Count("id")))
    url = reverse("admin:devices_device_changelist")
    return [
        {
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


def live_runs(*, user: AnyUser) -> list[dict[str, Any]]:
    """Runs that are going on, the newest first, with how far they are."""
    runs = list(
        Run.objects.visible_to(user)
        .filter(state__in=[RunState.PENDING, RunState.TRIGGERED])
        .select_related("campaign", "batch")
        .defer("batch__content", "audience", "left_out")[:RUNS_SHOWN]
    )
    counts = counts_of([run.batch_id for run in runs if run.batch_id])
    return [
        {
            "name": str(run.campaign),
            "url": reverse("admin:campaigns_run_change", args=[run.pk]),
            "words": state_words(run),
            "colour": "warning" if state_words(run) == "Paused" else RUN_COLOURS[RunState(run.state)],
            "bar": bar(counts[run.batch_id] if run.batch_id else Counts()),
        }
        for run in runs
    ]


def latest_failures(*, user: AnyUser) -> list[Message]:
    """The newest messages that failed for good (index message_troubled)."""
    return list(
        Message.objects.visible_to(user)
        .filter(state=State.FAILED)
        .select_related("device", "lead")
        .defer("device__credentials")
        .order_by("-id")[:FAILURES_SHOWN]
    )
