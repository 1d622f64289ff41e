"""What is not as it should be, for the person who looks: the worst first, each with what to do about it.

How the installation is comes from :mod:`messaging.health`; what belongs to somebody is counted for them alone. Every
figure comes from counters or a partial index, so asking costs the same however many messages there are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from django.db.models import F, Sum
from django.urls import reverse

from campaigns.models import Run, RunState
from devices import services
from devices.access import AnyUser, Role, may_change, role_of
from devices.models import Device, DeviceState
from messaging import health
from messaging.admin_halt import may_resume
from messaging.health import Level, Numbers
from messaging.models import BatchState, Halt, Stream


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing to know, and the button that does something about it (none: it mends itself)."""

    code: str
    level: Level
    text: str
    button: str = ""
    url: str = ""


SOMEBODYS = frozenset({"halted", "unknown", "failing", "devices_attention", "no_device"})
"""Reasons that count what belongs to people: said here for the person who looks, with numbers of their own."""

LOOK_AT_QUEUES = frozenset({"release_late", "unclaimed", "control_backlog"})
LOOK_AT_WORKERS = frozenset({"no_device_worker", "worker_silent"})


def findings(
    *, user: AnyUser, numbers: Numbers, halt: Halt | None, states: Mapping[str, int] | None, failed: int
) -> list[Finding]:
    """Everything that ``user`` should know, the worst first. ``states``: devices by state, None without any to see."""
    found = []
    if halt is not None:
        by = f" by {halt.started_by}" if halt.started_by else ""
        text = f"Everything is stopped{by}" + (f": {halt.reason}" if halt.reason else ".")
        button = ("Go on …", reverse("admin:messaging_halt_resume")) if may_resume(user) else ("", "")
        found.append(Finding("halted", Level.WARNING, text, *button))
    found += _installation(numbers, everything=states is None)
    if states is not None:
        found += _devices(user=user, states=states)
        found += _messages(user=user, failed=failed)
        found += _runs(user=user)
    return sorted(found, key=lambda each: -each.level.rank)


def overall(found: list[Finding]) -> Level:
    """The worst of them."""
    return max((each.level for each in found), key=lambda level: level.rank, default=Level.HEALTHY)


def _installation(numbers: Numbers, *, everything: bool) -> list[Finding]:
    """What the installation says of itself; ``everything`` with what belongs to people, as plain numbers."""
    said = [
        reason
        for reason in health.assess(numbers)
        if reason.code != "halted" and (everything or reason.code not in SOMEBODYS)
    ]
    looks = {
        **dict.fromkeys(LOOK_AT_QUEUES, ("Look at the queues", reverse("admin:queues"))),
        **dict.fromkeys(LOOK_AT_WORKERS, ("Look at the workers", reverse("admin:workers"))),
    }
    return [Finding(reason.code, reason.level, reason.text, *looks.get(reason.code, ("", ""))) for reason in said]


def _devices(*, user: AnyUser, states: Mapping[str, int]) -> list[Finding]:
    found = []
    listed = reverse("admin:devices_device_changelist")
    total, troubled = sum(states.values()), states.get(DeviceState.NEEDS_ATTENTION, 0)
    if not total:
        add = ("Add a device", reverse("admin:devices_device_add")) if may_change(user) else ("", "")
        return [Finding("no_device", Level.DEGRADED, "There is no device yet: it takes one to send anything.", *add)]
    if not states.get(DeviceState.ACTIVE, 0):
        text = "No device is connected, so nothing can be sent."
        found.append(Finding("none_connected", Level.WARNING, text, "Look at them", listed))
    if troubled:
        level = Level.WARNING if troubled >= health.LIMITS.attention_share_warning * total else Level.DEGRADED
        text = f"{troubled:,} of {_some(total, 'device')} need{'s' if troubled == 1 else ''} attention."
        mends = may_change(user) and services.troubled(devices=Device.objects.visible_to(user)).exists()
        look = ("Look at them", f"{listed}?state__exact={DeviceState.NEEDS_ATTENTION}")
        again = ("Reconnect all …", reverse("admin:devices_device_reconnect_all"))
        found.append(Finding("devices_attention", level, text, *(again if mends else look)))
    if unpaired := states.get(DeviceState.UNPAIRED, 0):
        text = f"{_some(unpaired, 'device')} {'is' if unpaired == 1 else 'are'} not linked to a phone yet."
        where = f"{listed}?state__exact={DeviceState.UNPAIRED}"
        found.append(Finding("unpaired", Level.DEGRADED, text, "Link", where))
    return found


def _messages(*, user: AnyUser, failed: int) -> list[Finding]:
    found = []
    if unknown := unknown_of(user):
        text = f"Of {_some(unknown, 'message')} nobody knows whether {'it' if unknown == 1 else 'they'} arrived."
        level = Level.WARNING if unknown >= health.LIMITS.unknown_warning else Level.DEGRADED
        where = f"{reverse('admin:messaging_message_changelist')}?state__exact=unknown"
        found.append(Finding("unknown", level, text, "Settle", where))
    if failed:
        text = f"{_some(failed, 'message')} of today's batches failed."
        level = Level.WARNING if failed >= health.LIMITS.failed_hour_warning else Level.DEGRADED
        found.append(Finding("failed", level, text, "See why", f"{reverse('admin:health')}#failed"))
    return found


def unknown_of(user: AnyUser) -> int:
    """Messages of ``user`` whose outcome nobody knows and that are not presumed sent (index stream_unsure_by_batch)."""
    unsure = Stream.objects.visible_to(user).filter(unknown__gt=F("presumed"))
    return int(unsure.aggregate(n=Sum(F("unknown") - F("presumed")))["n"] or 0)


def _runs(*, user: AnyUser) -> list[Finding]:
    """Runs that paused by themselves, with the reason; a pause by a person is known to them."""
    if role_of(user) is Role.TEAM:
        return []
    paused = Run.objects.visible_to(user).filter(state=RunState.TRIGGERED, batch__state=BatchState.PAUSED)
    rows = paused.exclude(batch__reason="").select_related("campaign", "batch").defer("batch__content")[:3]
    return [
        Finding(
            "run_paused",
            Level.WARNING,
            f"“{run.campaign}” is paused: {run.batch.reason if run.batch else ''}",
            "Resume …",
            reverse("admin:campaigns_run_resume_run", args=[run.pk]),
        )
        for run in rows
    ]


def _some(number: int, one: str) -> str:
    return f"1 {one}" if number == 1 else f"{number:,} {one}s"
