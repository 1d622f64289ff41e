"""The product's Celery app as the programs of a chaos run load it: ``celery -A config.chaos.worker_app``.

Every task into a device queue is published twice, side by side; :mod:`config.chaos.doubling` adds late ones.

With ``FLOTILLA_CHAOS_PLAIN`` set the simulator counts as a gateway that drops no repeats. It does drop them and its
driver says so, which lets the product send again by itself; every real gateway is different. The judge then counts a
repeat that the simulator dropped as a second delivery.
"""

from __future__ import annotations

import os

from config.celery import app
from devices.gateways.simulator import SimulatorDriver
from messaging.dispatch import publish
from messaging.dispatch.publish import Released

__all__ = ["app"]

_send_once = publish.send_to_device_queue


def _send_twice(item: Released, *, producer: object) -> None:
    _send_once(item, producer=producer)
    _send_once(item, producer=producer)


publish.send_to_device_queue = _send_twice
if os.environ.get("FLOTILLA_CHAOS_PLAIN", "") not in {"", "0"}:
    SimulatorDriver.id_semantics = "none"
