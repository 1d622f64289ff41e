"""The product's Celery app as the programs of a chaos run load it: ``celery -A config.chaos.worker_app``.

Every task into a device queue is published twice, side by side; :mod:`config.chaos.doubling` adds late ones. The
forgetful gateway is known, and one program's clock may be wrong.
"""

from __future__ import annotations

import os

from config.celery import app
from config.chaos import gateway, skew
from messaging.dispatch import publish
from messaging.dispatch.publish import Released

__all__ = ["app"]

_send_once = publish.send_to_device_queue


def _send_twice(item: Released, *, producer: object) -> None:
    _send_once(item, producer=producer)
    _send_once(item, producer=producer)


publish.send_to_device_queue = _send_twice
gateway.known_here()
if os.environ.get(skew.VARIABLE):
    skew.set_wrong(float(os.environ[skew.VARIABLE]))
