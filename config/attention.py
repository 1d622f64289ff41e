"""What is not as it should be, for the person who looks: the worst first, each with what to do about it.

Every figure comes from counters or a partial index, so asking costs the same however many messages there are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from django.db import connection
from django.db.models import F, Sum
from django.urls import reverse

from campaigns.models import Run, RunState
from devices import services
from devices.access import AnyUser, Role, may_change, role_of
from devices.models import Device, DeviceState, GatewayRest, Incident
from messaging.admin_halt import may_resume
from messaging.dispatch.publish import queue_depths
from messaging.models import BatchState, Halt, Stream


class Level(StrEnum):
    """How bad it is, from nothing to everything stands still."""

    HEALTHY = "healthy"
    DEGRADED = "degraded"
    WARNING = "warning"
    CRITICAL = "critical"

    @property
    def rank(self) -> int:
        """0 for healthy, 3 for critical."""
        return list(Level).index(self)

    @property
    def colour(self) -> str:
        """unfold's word for its colour."""
        return {"healthy": "success", "degraded": "info", "warning": "warning", "critical": "danger"}[self.value]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing to know, and the button that does something about it (none: it mends itself)."""

    code: str
    level: Level
    text: str
    button: str = ""
    url: str = ""


@dataclass(frozen=True, slots=True)
class Pulse:
    """Whether what is due moves. Ages in seconds; 0 where nothing waits."""

    broker: bool
    late_devices: int = 0
    late_seconds: float = 0.0
    queued: int = 0
    sending: int = 0
    unclaimed_seconds: float = 0.0


LATE_SECONDS, LATE_CRITICAL_SECONDS = 30.0, 120.0
"""How long something due may wait for its release, or something released for a worker, until somebody is told."""

# Indexes device_due (without devices whose gateway rests, which the release leaves alone as well) and
# message_one_in_flight, which holds no more rows than the fleet has lanes.
_PULSE = """
SELECT due.n, due.seconds, flying.queued, flying.sending, flying.seconds
FROM (SELECT count(*) AS n, coalesce(extract(epoch FROM flotilla_now() - min(d.wake_at)), 0) AS seconds
      FROM devices_device d
      WHERE d.state = 'active' AND d.wake_at <= flotilla_now() - interval '1 second'
        AND NOT EXISTS (SELECT FROM devices_gatewayrest r WHERE r.gateway = d.gateway AND r.base_url = d.base_url
                        AND r.until > flotilla_now())) due,
     (SELECT count(*) FILTER (WHERE state = 'queued') AS queued, count(*) FILTER (WHERE state = 'sending') AS sending,
             coalesce(extract(epoch FROM flotilla_now() - min(queued_at) FILTER (WHERE state = 'queued')), 0) AS seconds
      FROM messaging_message WHERE state IN ('queued', 'sending')) flying
"""


def pulse() -> Pulse:
    """One query and one trip to the broker."""
    with connection.cursor() as cursor:
        cursor.execute(_PULSE)
        late, late_seconds, queued, sending, unclaimed = cursor.fetchone()
    broker = queue_depths([0]) is not None
    return Pulse(broker, late, max(float(late_seconds), 0.0), queued, sending, max(float(unclaimed), 0.0))


def findings(
    *, user: AnyUser, now: datetime, beat: Pulse, halt: Halt | None, states: Mapping[str, int] | None, failed: int
) -> list[Finding]:
    """Everything that ``user`` should know, the worst first. ``states``: devices by state, None without any to see."""
    found = [*_installation(user=user, beat=beat, halt=halt, now=now)]
    if states is not None:
        found += _devices(user=user, states=states)
        found += _messages(user=user, failed=failed)
        found += _runs(user=user)
    return sorted(found, key=lambda each: -each.level.rank)


def overall(found: list[Finding]) -> Level:
    """The worst of them."""
    return max((each.level for each in found), key=lambda level: level.rank, default=Level.HEALTHY)


def _installation(*, user: AnyUser, beat: Pulse, halt: Halt | None, now: datetime) -> list[Finding]:
    found = []
    if halt is not None:
        by = f" by {halt.started_by}" if halt.started_by else ""
        text = f"Everything is stopped{by}" + (f": {halt.reason}" if halt.reason else ".")
        button = ("Go on …", reverse("admin:messaging_halt_resume")) if may_resume(user) else ("", "")
        found.append(Finding("halted", Level.CRITICAL, text, *button))
    if not beat.broker:
        text = "The broker does not answer. Messages are accepted and kept; none goes out until it is back."
        found.append(Finding("broker_away", Level.CRITICAL, text))
    if halt is None and beat.late_seconds > LATE_SECONDS:
        text = f"{_some(beat.late_devices, 'device')} had something to send {_words(beat.late_seconds)} ago and nothing"
        text += " was released: beat or the worker for ticks is away."
        found.append(Finding("release_late", _by_age(beat.late_seconds), text, *_workers(user)))
    if halt is None and beat.unclaimed_seconds > LATE_SECONDS:
        text = f"Released messages have waited for a worker for {_words(beat.unclaimed_seconds)}."
        found.append(Finding("unclaimed", _by_age(beat.unclaimed_seconds), text, *_workers(user)))
    for incident in Incident.objects.filter(ended_at__isnull=True)[:3]:
        text = f"{incident} has failed {_some(incident.devices, 'device')}; they come back by themselves."
        found.append(Finding("incident", Level.WARNING, text))
    if rests := GatewayRest.objects.filter(until__gt=now).count():
        text = f"{_some(rests, 'gateway address', 'gateway addresses')} rest, because nobody answered there."
        found.append(Finding("gateway_rests", Level.DEGRADED, text))
    return found


def _devices(*, user: AnyUser, states: Mapping[str, int]) -> list[Finding]:
    found = []
    listed = reverse("admin:devices_device_changelist")
    total, troubled = sum(states.values()), states.get(DeviceState.NEEDS_ATTENTION, 0)
    if not total:
        add = ("Add a device", reverse("admin:devices_device_add")) if may_change(user) else ("", "")
        text = "There is no device yet: it takes one to send anything."
        return [Finding("no_device", Level.DEGRADED, text, *add)]
    if not states.get(DeviceState.ACTIVE, 0):
        text = "No device is connected, so nothing can be sent."
        found.append(Finding("none_connected", Level.CRITICAL, text, "Look at them", listed))
    if troubled:
        level = Level.WARNING if troubled * 5 >= total else Level.DEGRADED
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
    # Index stream_unsure_by_batch: a row for each stream with an outcome that is still open.
    unsure = Stream.objects.visible_to(user).filter(unknown__gt=F("presumed"))
    unknown = unsure.aggregate(n=Sum(F("unknown") - F("presumed")))["n"] or 0
    listed = reverse("admin:messaging_message_changelist")
    if unknown:
        text = f"Of {_some(unknown, 'message')} nobody knows whether {'it' if unknown == 1 else 'they'} arrived."
        level = Level.WARNING if unknown >= 100 else Level.DEGRADED
        found.append(Finding("unknown", level, text, "Settle", f"{listed}?state__exact=unknown"))
    if failed:
        text = f"{_some(failed, 'message')} of today's batches failed."
        level = Level.WARNING if failed >= 500 else Level.DEGRADED
        found.append(Finding("failed", level, text, "See why", f"{reverse('admin:health')}#failed"))
    return found


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


def _workers(user: AnyUser) -> tuple[str, str]:
    return ("Look at health", reverse("admin:health")) if role_of(user) else ("", "")


def _by_age(seconds: float) -> Level:
    return Level.CRITICAL if seconds > LATE_CRITICAL_SECONDS else Level.WARNING


def _some(number: int, one: str, many: str = "") -> str:
    return f"1 {one}" if number == 1 else f"{number:,} {many or one + 's'}"


def _words(seconds: Any) -> str:
    """An age for people."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.0f} h"
