"""What /metrics says, in Prometheus' text format: the figures of the health check, and what the workers count.

Counters carry the worker they come from, so a restart is the reset that Prometheus expects; nothing carries a device.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from itertools import accumulate
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from messaging import health, workers
from messaging.health import Health, Level
from messaging.meters import RELEASE_BOUNDS, SEND_BOUNDS


def text(*, now: datetime) -> bytes:
    """The page. While the database is away it says so, and nothing of what only the database knows."""
    found = health.look(now=now)
    crew = workers.crew(now=now).live if found.numbers.database else ()
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Page(found, crew))
    return generate_latest(registry)


class _Page(Collector):
    """One answer."""

    def __init__(self, found: Health, crew: Iterable[Any]) -> None:
        self._health = found
        # Two processes of one name would be one series twice: the one heard of last speaks.
        self._crew = list({worker.name: worker for worker in sorted(crew, key=lambda w: w.seen_at)}.values())

    def collect(self) -> Iterator[Metric]:
        yield from _of_health(self._health)
        yield from _of_broker(self._health)
        if self._health.numbers.database:
            yield from _of_rows(self._health)
            yield from _of_workers(self._crew)


def _gauge(name: str, words: str, value: float | None) -> GaugeMetricFamily:
    """None: there is nothing of the kind, which for an age is 0."""
    return GaugeMetricFamily(f"flotilla_{name}", words, value=value or 0.0)


def _labelled(name: str, words: str, label: str, values: Mapping[str, float]) -> GaugeMetricFamily:
    family = GaugeMetricFamily(f"flotilla_{name}", words, labels=[label])
    for key, value in values.items():
        family.add_metric([key], value)
    return family


def _of_health(found: Health) -> Iterator[Metric]:
    numbers = found.numbers
    levels = {level.value: float(level is found.overall) for level in Level}
    yield _labelled("health", "1 at the level the installation is at.", "level", levels)
    reasons = GaugeMetricFamily("flotilla_health_reason", "1 for each reason of the level.", labels=["code", "level"])
    for reason in found.reasons:
        reasons.add_metric([reason.code, reason.level.value], 1.0)
    yield reasons
    yield _gauge("database_up", "Whether the database answers.", float(numbers.database))


def _of_broker(found: Health) -> Iterator[Metric]:
    broker = found.numbers.broker
    yield _gauge("broker_up", "Whether the broker answers.", float(broker.answers))
    if not broker.answers:
        return
    depths = {"control": float(broker.control_tasks), "pairing": float(broker.pairing_tasks)}
    yield _labelled("broker_queue_tasks", "Tasks that wait in a queue of the installation.", "queue", depths)
    yield _gauge("broker_device_queues", "Device queues that hold tasks.", broker.device_queues)
    yield _gauge("beat_ticks", "Whether a beat holds the lease to tick.", float(bool(broker.beats.leader)))
    yield _gauge("beats_standing_by", "Beats that would take over.", broker.beats.standbys)
    yield _gauge("broker_unacked", "Tasks that workers have taken and not acknowledged.", broker.unacked)
    yield _gauge("broker_memory_bytes", "Memory the broker uses.", broker.memory_bytes)
    yield _gauge("broker_memory_limit_bytes", "Memory it may use; 0 without a limit.", broker.memory_limit_bytes)


def _of_rows(found: Health) -> Iterator[Metric]:
    n = found.numbers
    yield _gauge("oldest_due_seconds", "For how long something could have been released.", n.oldest_due_seconds)
    yield _gauge("late_devices", "Devices at which something could be released now.", n.late_devices)
    yield _gauge("messages_queued", "Messages released and not claimed yet.", n.queued)
    yield _gauge("messages_sending", "Messages at a gateway.", n.sending)
    yield _gauge("oldest_queued_seconds", "Age of the oldest release not claimed yet.", n.oldest_queued_seconds)
    yield _gauge("leases_expired", "Sends past their lease that nobody has looked after.", n.leases_expired)
    yield _gauge("messages_unknown", "Messages of unknown outcome, counted up to 10,001.", n.unknown)
    yield _gauge("messages_failed_last_hour", "Failed for good lately, counted up to 10,001.", n.failed_last_hour)
    yield _gauge("gateways_resting", "Gateway addresses at which nobody answered.", n.resting_gateways)
    yield _gauge("incidents", "Troubles that many devices share.", n.incidents)
    yield _gauge("halted", "Whether STOP ALL is in force.", float(n.halted))
    if n.ticks_silent_seconds is not None:
        yield _gauge("tick_age_seconds", "Since a tick was last carried out.", n.ticks_silent_seconds)
    yield _gauge("workers_live", "Worker processes heard of lately.", n.workers)
    yield _gauge("workers_silent", "Worker processes that fell silent in the last hour.", len(n.workers_silent))
    yield _gauge("sent_per_minute", "Messages sent in the last minute.", n.sent_per_minute)
    states = {state: float(number) for state, number in n.devices.items()}
    yield _labelled("devices", "Devices by state.", "state", states)


def _of_workers(crew: Iterable[Any]) -> Iterator[Metric]:
    sends = CounterMetricFamily(
        "flotilla_sends", "Calls to gateways, by the state they brought.", labels=["worker", "state"]
    )
    released = CounterMetricFamily("flotilla_released", "Messages released by ticks.", labels=["worker"])
    tasks = CounterMetricFamily("flotilla_worker_tasks", "Tasks taken.", labels=["worker"])
    active = GaugeMetricFamily("flotilla_worker_active_tasks", "Tasks at work.", labels=["worker"])
    memory = GaugeMetricFamily("flotilla_worker_memory_bytes", "Resident memory.", labels=["worker"])
    send_seconds = HistogramMetricFamily("flotilla_send_seconds", "Calls to gateways.", labels=["worker"])
    release_seconds = HistogramMetricFamily("flotilla_release_seconds", "Release ticks.", labels=["worker"])
    for worker in crew:
        figures = worker.figures
        for state, number in figures.get("sends", {}).items():
            sends.add_metric([worker.name, state], number)
        released.add_metric([worker.name], figures.get("released", 0))
        tasks.add_metric([worker.name], worker.tasks)
        active.add_metric([worker.name], worker.active_tasks)
        memory.add_metric([worker.name], worker.memory_mb << 20)
        _add(send_seconds, worker.name, figures.get("send_seconds"), SEND_BOUNDS)
        _add(release_seconds, worker.name, figures.get("release_seconds"), RELEASE_BOUNDS)
    yield from (sends, released, tasks, active, memory, send_seconds, release_seconds)


def _add(family: HistogramMetricFamily, worker: str, told: Mapping[str, Any] | None, bounds: tuple[float, ...]) -> None:
    """A worker of another release may have other buckets, which cannot be added to ours: it is left out."""
    if told is None or tuple(told["bounds"]) != bounds:
        return
    edges = [*(str(float(bound)) for bound in bounds), "+Inf"]
    buckets = list(zip(edges, accumulate(told["counts"]), strict=True))
    family.add_metric([worker], buckets=buckets, sum_value=told["seconds"])
