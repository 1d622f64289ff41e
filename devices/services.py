"""What may be asked of many devices at once."""

from __future__ import annotations

from django.db.models import QuerySet
from django.db.models.functions import Least, Now

from devices.models import Device, DeviceState


def pause(*, devices: QuerySet[Device]) -> int:
    """Connected devices are no longer released to; returns how many. What is at a gateway now ends as it ends."""
    return devices.filter(state=DeviceState.ACTIVE).update(state=DeviceState.PAUSED, state_reason="Paused by hand.")


def resume(*, devices: QuerySet[Device]) -> int:
    """Paused devices, and those whose trouble a person has mended, go on; returns how many.

    ``wake_at`` is lowered in the same statement, so that the release looks at them at its next tick.
    """
    return devices.filter(state__in=[DeviceState.PAUSED, DeviceState.NEEDS_ATTENTION]).update(
        state=DeviceState.ACTIVE, state_reason="", reconnect_failures=0, wake_at=Least("wake_at", Now())
    )


def wake(*, devices: QuerySet[Device]) -> None:
    """Let the release look at these devices again: their settings changed, perhaps to more lanes."""
    devices.update(wake_at=Least("wake_at", Now()))
