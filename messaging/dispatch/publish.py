"""Putting released messages on their devices' queues: always after COMMIT, many at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import structlog
from celery import current_app
from django.conf import settings
from kombu.exceptions import BatchPublishError, OperationalError

from devices.gateways import registry
from messaging import failpoints
from messaging.bells import session_bell
from messaging.transport import device_route

log = structlog.get_logger(__name__)

SEND_TASK = "messaging.send"


@dataclass(frozen=True, slots=True)
class Released:
    """One release of one message: what the task carries."""

    message_id: int
    device_id: int
    release_no: int
    gateway: str = ""


def bell_of(device_id: int, *, gateway: str = "") -> str:
    """The bell that rings for a device: ``devices.<transport>.<shard>``; its shard never changes.

    Without a gateway it is a platform's. A worker that finds a device on the wrong bell gives its message back.
    """
    if gateway in registry.session_kinds():
        return session_bell(device_id % settings.FLOTILLA_SESSION_SHARDS)
    return f"devices.http.{device_id % settings.FLOTILLA_SHARDS}"


def all_bells() -> list[str]:
    """Every bell of platform devices, as names for ``celery worker -Q``. Those of sessions come and go with leases."""
    return [f"devices.http.{shard}" for shard in range(settings.FLOTILLA_SHARDS)]


def queue_depths(devices: Sequence[int]) -> list[int] | None:
    """How many tasks lie in each device's queue; None while the broker is away."""
    try:
        with (
            current_app.connection_for_read() as connection,
            connection.default_channel.client.pipeline(transaction=False) as pipeline,
        ):
            for device_id in devices:
                pipeline.llen(f"device.{device_id}")
            return list(pipeline.execute())
    except (OperationalError, ConnectionError, TimeoutError):
        return None


def publish(released: Sequence[Released]) -> int:
    """Publish one task per release; returns how many went out.

    Losing any of them does no harm: what stays queued and unclaimed is published again by the recovery.
    """
    if not released:
        return 0
    failpoints.hit("after_commit")
    done = 0
    try:
        with current_app.producer_or_acquire() as producer, producer.batch():
            for item in released:
                send_to_device_queue(item, producer=producer)
                failpoints.hit("mid_publish")
                done += 1
    except (BatchPublishError, OperationalError, ConnectionError, TimeoutError) as problem:
        log.warning("publish.broker_unreachable", wanted=len(released), error=type(problem).__name__)
        return 0
    return done


def send_to_device_queue(item: Released, *, producer: object) -> None:
    """One task into queue ``device.<id>``."""
    current_app.send_task(
        SEND_TASK,
        kwargs={"message_id": item.message_id, "release_no": item.release_no},
        producer=producer,
        ignore_result=True,
        retry=False,
        **device_route(queue=f"device.{item.device_id}", bell=bell_of(item.device_id, gateway=item.gateway)),
    )
