"""How the installation is: one word with its reasons, from a handful of bounded figures.

:func:`assess` decides and touches nothing; :func:`gather` is the one place that asks database and broker, with figures
from counters or partial indexes, so it costs the same with ten messages as with a hundred million.

*healthy*: nothing to do. *degraded*: something is slower or rests, and mends itself. *warning*: it works, but a person
should look today. *critical*: what is due does not go out.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from celery import current_app
from django.conf import settings
from django.db import DatabaseError, InterfaceError, connection
from kombu.exceptions import OperationalError as BrokerError
from redis.exceptions import RedisError

from messaging import beats, workers
from messaging.beats import Beats
from messaging.models import Pulse
from messaging.transport.names import WHERE_KEY


class Level(StrEnum):
    """How it is, the best first; the order counts."""

    HEALTHY = "healthy"
    DEGRADED = "degraded"
    WARNING = "warning"
    CRITICAL = "critical"

    @property
    def rank(self) -> int:
        """0 for healthy, 3 for critical."""
        return list(Level).index(self)


@dataclass(frozen=True, slots=True)
class Limits:
    """From where on a figure is bad. Seconds, numbers of things, or shares of all devices."""

    late_warning_seconds: float = 30.0
    late_critical_seconds: float = 120.0
    unclaimed_warning_seconds: float = 60.0
    unclaimed_critical_seconds: float = 300.0
    ticks_silent_seconds: float = 60.0
    control_backlog: int = 1_000
    lease_overdue: int = 1
    unknown_warning: int = 100
    failed_hour_degraded: int = 50
    failed_hour_warning: int = 500
    attention_share_warning: float = 0.2
    broker_memory_share: float = 0.9


LIMITS = Limits()


@dataclass(frozen=True, slots=True)
class Broker:
    """What lies in the broker. ``device_queues`` holds how many device queues are not empty."""

    answers: bool = True
    control_tasks: int = 0
    pairing_tasks: int = 0
    device_queues: int = 0
    unacked: int = 0
    memory_bytes: int = 0
    memory_limit_bytes: int = 0
    """0: no limit is set."""
    beats: Beats = field(default_factory=Beats)


@dataclass(frozen=True, slots=True)
class Numbers:
    """What the assessment looks at. Ages in seconds; None where there is nothing of the kind."""

    database: bool = True
    broker: Broker = field(default_factory=Broker)
    devices: Mapping[str, int] = field(default_factory=dict)
    """By state of :class:`devices.models.DeviceState`."""
    late_devices: int = 0
    oldest_due_seconds: float | None = None
    """For how long something could have gone out at once and has not been released."""
    queued: int = 0
    sending: int = 0
    oldest_queued_seconds: float | None = None
    leases_expired: int = 0
    unknown: int = 0
    failed_last_hour: int = 0
    resting_gateways: int = 0
    incidents: int = 0
    halted: bool = False
    ticks_silent_seconds: float | None = None
    """Since the last tick; None: there has never been one."""
    workers: int = 0
    workers_silent: tuple[str, ...] = ()
    device_workers: bool = False
    control_workers: bool = False
    sent_per_minute: int = 0

    @property
    def work_waits(self) -> bool:
        """Whether anything could go out now, or is about to."""
        return self.oldest_due_seconds is not None or self.queued > 0


@dataclass(frozen=True, slots=True)
class Reason:
    """One thing that is not as it should be. ``code`` is stable and names its part of the runbook."""

    code: str
    level: Level
    text: str


@dataclass(frozen=True, slots=True)
class Health:
    """The worst reason's level, the reasons with the worst first, and the figures they come from."""

    overall: Level
    reasons: tuple[Reason, ...]
    numbers: Numbers
    at: datetime

    @property
    def ready(self) -> bool:
        """Whether what is due goes out."""
        return self.overall is not Level.CRITICAL


def look(*, now: datetime, limits: Limits = LIMITS) -> Health:
    """Gather and assess. Raises nothing: a database or broker that is away is a reason."""
    numbers = gather(now=now)
    reasons = assess(numbers, limits=limits)
    return Health(max((r.level for r in reasons), key=lambda x: x.rank, default=Level.HEALTHY), reasons, numbers, now)


# -- the decision ------------------------------------------------------------------------------------------------------


def assess(numbers: Numbers, *, limits: Limits = LIMITS) -> tuple[Reason, ...]:
    """Everything that is not as it should be, the worst first. Empty: healthy."""
    if not numbers.database:
        return (Reason("database_away", Level.CRITICAL, "The database does not answer: nothing can go out."),)
    reasons = [
        *_servers(numbers, limits),
        *_progress(numbers, limits),
        *_outcomes(numbers, limits),
        *_fleet(numbers, limits),
    ]
    return tuple(sorted(reasons, key=lambda reason: -reason.level.rank))


def _servers(n: Numbers, limits: Limits) -> list[Reason]:
    found = []
    if not n.broker.answers:
        found.append(
            Reason("broker_away", Level.CRITICAL, "The broker does not answer. Messages are kept; none goes out.")
        )
    full = n.broker.memory_bytes / n.broker.memory_limit_bytes if n.broker.memory_limit_bytes else 0.0
    if full >= limits.broker_memory_share:
        found.append(Reason("broker_memory", Level.WARNING, f"The broker's memory is {full:.0%} full."))
    if n.broker.control_tasks >= limits.control_backlog:
        text = f"{n.broker.control_tasks:,} ticks wait in the control queue: its worker is too slow or away."
        found.append(Reason("control_backlog", Level.WARNING, text))
    if n.workers_silent:
        some = ", ".join(n.workers_silent[:3]) + (" …" if len(n.workers_silent) > 3 else "")
        found.append(Reason("worker_silent", Level.DEGRADED, f"Not heard of any more: {some}."))
    return found


_NO_BEAT = "beat or the control worker is away"


def _progress(n: Numbers, limits: Limits) -> list[Reason]:
    """Whether what is due moves. A halt is somebody's will: then nothing has to."""
    if n.halted:
        return [Reason("halted", Level.WARNING, "STOP ALL is in force: nothing goes out until somebody ends it.")]
    found = []
    # Without ticks nothing is released, whether or not something is due at this moment.
    if n.ticks_silent_seconds is None or n.ticks_silent_seconds > limits.ticks_silent_seconds:
        since = "yet" if n.ticks_silent_seconds is None else f"for {_words(n.ticks_silent_seconds)}"
        level = Level.CRITICAL if n.work_waits else Level.WARNING
        away = "beat ticks, so the control worker is away or busy" if n.broker.beats.leader else _NO_BEAT
        found.append(Reason("ticks_silent", level, f"No tick has run {since}: {away}."))
    if n.work_waits and not n.device_workers:
        found.append(Reason("no_device_worker", Level.CRITICAL, "Messages are due and no worker takes device queues."))
    late = n.oldest_due_seconds or 0.0
    if late > limits.late_warning_seconds:
        level = Level.CRITICAL if late > limits.late_critical_seconds else Level.WARNING
        devices = "1 device" if n.late_devices == 1 else f"{n.late_devices:,} devices"
        text = f"Something is due at {devices} and has not been released for {_words(late)}."
        found.append(Reason("release_late", level, text))
    unclaimed = n.oldest_queued_seconds or 0.0
    if unclaimed > limits.unclaimed_warning_seconds:
        level = Level.CRITICAL if unclaimed > limits.unclaimed_critical_seconds else Level.WARNING
        text = f"A released message has waited for a worker for {_words(unclaimed)}; {n.queued:,} are queued."
        found.append(Reason("unclaimed", level, text))
    if n.leases_expired >= limits.lease_overdue:
        text = f"{n.leases_expired:,} sends are past their lease and nobody has looked after them."
        found.append(Reason("leases_expired", Level.WARNING, text))
    return found


def _outcomes(n: Numbers, limits: Limits) -> list[Reason]:
    found = []
    if n.unknown:
        level = Level.WARNING if n.unknown >= limits.unknown_warning else Level.DEGRADED
        text = f"Of {_many(n.unknown)} messages nobody knows whether they arrived: settle them."
        found.append(Reason("unknown", level, text))
    if n.failed_last_hour >= limits.failed_hour_degraded:
        level = Level.WARNING if n.failed_last_hour >= limits.failed_hour_warning else Level.DEGRADED
        text = f"{_many(n.failed_last_hour)} messages failed for good in the last hour."
        found.append(Reason("failing", level, text))
    return found


def _fleet(n: Numbers, limits: Limits) -> list[Reason]:
    found = []
    total, troubled = sum(n.devices.values()), n.devices.get("needs_attention", 0)
    if troubled:
        level = Level.WARNING if troubled >= limits.attention_share_warning * total else Level.DEGRADED
        found.append(Reason("devices_attention", level, f"{troubled:,} of {total:,} devices need attention."))
    if total and not n.devices.get("active", 0):
        found.append(Reason("no_device", Level.WARNING, "No device is connected."))
    if n.incidents:
        text = "Many devices fail for one reason; they come back by themselves once it is over."
        found.append(Reason("incident", Level.WARNING, text))
    elif n.resting_gateways:
        text = f"{n.resting_gateways:,} gateway addresses rest, because nobody answered there."
        found.append(Reason("gateway_rests", Level.DEGRADED, text))
    return found


def _many(number: int) -> str:
    return f"more than {COUNTED_TO:,}" if number > COUNTED_TO else f"{number:,}"


def _words(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.0f} h"


# -- the figures -------------------------------------------------------------------------------------------------------

COUNTED_TO = 10_000
"""Unknown and failed messages are counted up to here: past it, the exact number says nothing more."""

# Index device_due, without devices whose gateway rests (as the release does); message_one_in_flight, which holds no
# more rows than the fleet has lanes; message_unsettled; message_failed. A device that the release has merely not come
# to yet is a fraction of a second late.
_FIGURES = """
WITH due AS (
    SELECT count(*) AS devices, extract(epoch FROM flotilla_now() - min(wake_at)) AS seconds
    FROM devices_device d
    WHERE state = 'active' AND wake_at <= flotilla_now()
      AND NOT EXISTS (SELECT FROM devices_gatewayrest r
                      WHERE r.gateway = d.gateway AND r.base_url = d.base_url AND r.until > flotilla_now())
), flying AS (
    SELECT count(*) FILTER (WHERE state = 'queued') AS queued, count(*) FILTER (WHERE state = 'sending') AS sending,
           extract(epoch FROM flotilla_now() - min(queued_at) FILTER (WHERE state = 'queued')) AS oldest,
           count(*) FILTER (WHERE state = 'sending' AND lease_until < flotilla_now() - interval '30 seconds') AS lapsed
    FROM messaging_message WHERE state IN ('queued', 'sending')
)
SELECT due.devices, due.seconds, flying.queued, flying.sending, flying.oldest, flying.lapsed,
       (SELECT count(*) FROM (SELECT FROM messaging_message WHERE state = 'unknown' AND presumed_at IS NULL
                              LIMIT %(most)s) u),
       (SELECT count(*) FROM (SELECT FROM messaging_message WHERE state = 'failed' AND archived_at IS NULL
                              AND failed_at > flotilla_now() - interval '1 hour' LIMIT %(most)s) f),
       (SELECT count(*) FROM devices_gatewayrest WHERE until > flotilla_now()),
       (SELECT count(*) FROM devices_incident WHERE ended_at IS NULL),
       EXISTS (SELECT FROM messaging_halt WHERE ended_at IS NULL),
       (SELECT json_object_agg(state, n)::text FROM (SELECT state, count(*) AS n FROM devices_device GROUP BY state) s)
FROM due, flying
"""


def gather(*, now: datetime) -> Numbers:
    """Today's figures: three queries and one trip to the broker."""
    broker = look_at_broker()
    try:
        with connection.cursor() as cursor:
            cursor.execute(_FIGURES, {"most": COUNTED_TO + 1})
            row = cursor.fetchone()
        pulse = Pulse.objects.filter(name="ticks").first()
        crew = workers.crew(now=now)
    except (DatabaseError, InterfaceError):
        return Numbers(database=False, broker=broker)
    late_devices, late, queued, sending, oldest, lapsed, unknown, failed, rests, incidents, halted, devices = row
    return Numbers(
        broker=broker,
        devices=json.loads(devices or "{}"),
        late_devices=late_devices,
        oldest_due_seconds=_seconds(late),
        queued=queued,
        sending=sending,
        oldest_queued_seconds=_seconds(oldest),
        leases_expired=lapsed,
        unknown=unknown,
        failed_last_hour=failed,
        resting_gateways=rests,
        incidents=incidents,
        halted=halted,
        ticks_silent_seconds=max((now - pulse.at).total_seconds(), 0.0) if pulse else None,
        workers=len(crew.live),
        workers_silent=tuple(worker.name for worker in crew.silent),
        device_workers=crew.serve("devices."),
        control_workers=crew.serve(settings.CELERY_TASK_DEFAULT_QUEUE),
        sent_per_minute=sum(worker.sent_per_minute for worker in crew.live),
    )


def look_at_broker() -> Broker:
    """What lies in the broker, in one trip; ``answers`` is False while it is away."""
    try:
        with (
            current_app.connection_for_read() as found,
            found.default_channel.client.pipeline(transaction=False) as pipeline,
        ):
            pipeline.llen(settings.CELERY_TASK_DEFAULT_QUEUE)
            pipeline.llen("pairing")
            pipeline.hlen(WHERE_KEY)
            pipeline.hlen(found.default_channel.unacked_key)
            pipeline.info("memory")
            beats.ask(pipeline)
            control, pairing, queues, unacked, memory, leader, alive = pipeline.execute()
    except (BrokerError, RedisError, ConnectionError, TimeoutError):
        return Broker(answers=False)
    return Broker(
        control_tasks=control,
        pairing_tasks=pairing,
        device_queues=queues,
        unacked=unacked,
        memory_bytes=memory["used_memory"],
        memory_limit_bytes=memory["maxmemory"],
        beats=beats.told(leader, alive),
    )


def _seconds(found: Any) -> float | None:
    return None if found is None else max(float(found), 0.0)
