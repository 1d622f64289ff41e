"""What may be asked of devices: pause and resume many at once, and change the settings of one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from django.db.models import Q, QuerySet
from django.db.models.functions import Least, Now

from devices import risky
from devices.models import UNREACHABLE, Device, DeviceState
from devices.secrets import Secrets

PAUSABLE = frozenset({DeviceState.ACTIVE})
REFRESHABLE = frozenset({DeviceState.ACTIVE, DeviceState.NEEDS_ATTENTION})
RESUMABLE = frozenset({DeviceState.PAUSED, DeviceState.NEEDS_ATTENTION})

ENTER_AGAIN = "Stored credentials are not sent to another gateway or address: enter them again."
CHANGED_MEANWHILE = "Somebody has just changed this device's gateway, address or credentials: look again and repeat."

CONFIGURATION = frozenset({"gateway", "base_url", "credentials", "options"})
"""Columns that live clients are made from; each write of one moves ``config_version`` on."""

_RHYTHM = frozenset(
    {"lanes", "delay_min_seconds", "delay_max_seconds", "cap_per_hour", "cap_per_day"}
    | {"warm_up", "window_start", "window_end", "time_zone"}
)
"""Columns by which the release and the senders decide when a device may send."""

OUTSIDE_WINDOW = "Outside the device's sending window."
CAP_REACHED = "The device's sending cap is reached."
OWN_RULES = (OUTSIDE_WINDOW, CAP_REACHED)
"""Reasons of rests that follow from a device's own columns, and not from its gateway."""


def pause(*, devices: QuerySet[Device]) -> int:
    """Connected devices are no longer released to; returns how many. What is at a gateway now ends as it ends."""
    return devices.filter(state__in=PAUSABLE).update(state=DeviceState.PAUSED, state_reason="Paused by hand.")


def resume(*, devices: QuerySet[Device]) -> int:
    """Paused devices, and those whose trouble a person has mended, go on; returns how many.

    ``wake_at`` is lowered in the same statement, so that the release looks at them at its next tick. A session that was
    set aside, because it brought its host down, gets another chance.
    """
    risky.forgive(devices=devices.filter(state__in=RESUMABLE))
    return devices.filter(state__in=RESUMABLE).update(
        state=DeviceState.ACTIVE,
        state_reason="",
        attention_code="",
        reconnect_failures=0,
        wake_at=Least("wake_at", Now()),
    )


def ask_refresh(*, devices: QuerySet[Device]) -> int:
    """Have these devices connected anew, wherever that is done, within seconds; returns how many.

    Paused and unpaired ones are left out. A device that needed attention goes on by itself once it is connected. What
    came of it is in its row: ``refresh_asked_at`` is empty again, ``refreshed_at`` is new if it went well.
    """
    risky.forgive(devices=devices.filter(state__in=REFRESHABLE))
    return devices.filter(state__in=REFRESHABLE).update(refresh_asked_at=Now())


def troubled(*, devices: QuerySet[Device]) -> QuerySet[Device]:
    """Those that could not be reached, or are still being tried. What was logged out or banned needs more than that."""
    unreachable = Q(state=DeviceState.NEEDS_ATTENTION, attention_code=UNREACHABLE)
    return devices.filter(unreachable | Q(state=DeviceState.ACTIVE, reconnect_failures__gt=0))


def reconnect_all(*, devices: QuerySet[Device]) -> int:
    """Refresh all that are :func:`troubled`; returns how many. One click after an outage."""
    return ask_refresh(devices=troubled(devices=devices))


def wake(*, devices: QuerySet[Device]) -> None:
    """Let the release look at these devices again: their settings changed, perhaps to more lanes."""
    devices.update(wake_at=Least("wake_at", Now()))


def wake_if_rhythm_changed(*, device: Device, columns: Iterable[str]) -> None:
    """Wake the device if one of the ``columns`` just written has a say in when it may send.

    A rest by the old rules ends with them: the next send asks the new ones.
    """
    if not _RHYTHM.isdisjoint(columns):
        changed = Device.objects.filter(pk=device.pk)
        changed.filter(hold_reason__in=OWN_RULES).update(held_until=None, hold_reason="")
        wake(devices=changed)


# -- Credentials -------------------------------------------------------------------------------------------------------


def keeps_credentials(*, device: Device, gateway: str, base_url: str) -> bool:
    """Whether what ``device`` has stored may be used with this gateway and address.

    Credentials stay with the gateway and address they were entered for; otherwise whoever may change an address could
    have them sent to one of their own, and read them.
    """
    return (device.gateway, device.base_url) == (gateway, base_url)


def merged_credentials(*, device: Device, gateway: str, base_url: str, entered: Mapping[str, str]) -> Secrets:
    """What ``device``, as it is stored, will have once ``entered`` is added.

    A name left out keeps its stored value where :func:`keeps_credentials` allows it; an empty value removes one.
    """
    kept = device.credentials if keeps_credentials(device=device, gateway=gateway, base_url=base_url) else {}
    return Secrets({name: value for name, value in {**kept, **entered}.items() if value})


def locked_as_read(*, device: Device) -> bool:
    """Whether the ``CONFIGURATION`` is still what ``device`` was read with; locks its row until the commit.

    The race: one request changes the address and brings credentials for it, while another, which has read the device
    before, merges and writes the old credentials after it. They would meet the new address.
    """
    as_read = Device.objects.select_for_update(no_key=True).filter(pk=device.pk, config_version=device.config_version)
    return as_read.exists()
