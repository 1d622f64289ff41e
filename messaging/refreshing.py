"""Refreshing devices because a person asked: what ``devices.services.ask_refresh`` wrote down is passed on and done.

The wish is a time in the device's row, so neither a lost task nor a worker that dies loses it. It travels to the
device's own queue: for a session that is wherever its lease is.
"""

from __future__ import annotations

import structlog
from celery import current_app
from kombu.exceptions import BatchPublishError, OperationalError

from devices.clients import ClientRegistry, RefreshFailed, shared_registry
from devices.gateways import registry
from devices.models import Device
from devices.remedies import worded
from messaging.dispatch import statements as sql
from messaging.dispatch.pool import Pool, shared_pool
from messaging.dispatch.publish import bell_of, queue_depths
from messaging.dispatch.reconnect import refresh_failed
from messaging.transport import device_route

log = structlog.get_logger(__name__)

REFRESH_TASK = "messaging.refresh"
LIMIT = 1000


def pass_on(*, pool: Pool | None = None) -> int:
    """One tick: put the refreshes that were asked for on their devices' queues; returns how many.

    Where something waits in a device's queue already, it is asked again half a minute later, so that queues nobody
    serves do not fill up.
    """
    asked = (pool or shared_pool()).execute(sql.REFRESHES_ASKED, {"limit": LIMIT})
    depths = queue_depths([device_id for device_id, _ in asked]) if asked else None
    if depths is None:
        return 0
    free = [each for each, depth in zip(asked, depths, strict=True) if not depth]
    try:
        with current_app.producer_or_acquire() as producer, producer.batch():
            for device_id, gateway in free:
                current_app.send_task(
                    REFRESH_TASK,
                    kwargs={"device_id": device_id},
                    producer=producer,
                    ignore_result=True,
                    retry=False,
                    **device_route(queue=f"device.{device_id}", bell=bell_of(device_id, gateway=gateway)),
                )
    except (BatchPublishError, OperationalError, ConnectionError, TimeoutError) as problem:
        log.warning("refresh.broker_unreachable", wanted=len(free), error=type(problem).__name__)
        return 0
    return len(free)


def refresh(*, device_id: int, clients: ClientRegistry | None = None, pool: Pool | None = None) -> bool:
    """Refresh the device if somebody still wants it; whether it can send now.

    A device that needed attention goes on by itself once it is connected, and shows the new reason where it is not.
    """
    pool = pool or shared_pool()
    if clients is None:  # an empty registry counts as false
        clients = shared_registry()
    device = Device.objects.filter(pk=device_id, refresh_asked_at__isnull=False).only("gateway").first()
    if device is None:
        return False
    try:
        clients.refresh(device_id=device_id)
    except RefreshFailed as problem:
        _failed(device, problem, pool)
        return False
    pool.execute(sql.REFRESHED, {"device": device_id})
    log.info("device.refreshed", device_id=device_id)
    return True


def _failed(device: Device, problem: RefreshFailed, pool: Pool) -> None:
    platform = registry.driver_for(device.gateway).transport == "http"
    if platform and not problem.session_lost:
        log.warning("device.refresh_failed", device_id=device.pk, code=problem.code)  # its gateway's trouble, not its
    elif refresh_failed(device_id=device.pk, problem=problem, pool=pool) > 0:
        return  # nothing was tried: it is asked again by itself
    code = "banned" if problem.banned else problem.code if problem.session_lost else "unreachable"
    reason = worded(code=code, text=problem.text, banned=problem.banned)
    pool.execute(sql.NOT_REFRESHED, {"device": device.pk, "reason": reason, "code": code[:60]})
