"""Letting somebody look at a device, and what hangs on it: who may be chosen, and the rows."""

from __future__ import annotations

from django.contrib.auth.models import User
from django.db.models import QuerySet

from devices.access import Role
from devices.models import Device, DeviceShare


def lookers() -> QuerySet[User]:
    """With whom a device can be shared: team members, and staff beside what they own. Admins see everything anyway,
    operators no devices."""
    roles = User.objects.filter(groups__name__in=[Role.TEAM.value, Role.STAFF.value], is_active=True)
    return roles.distinct().order_by("username")


def share(*, device: Device, user: User) -> tuple[DeviceShare, bool]:
    """Let ``user`` look at ``device``; whether that is new."""
    return DeviceShare.objects.get_or_create(device=device, user=user)


def unshare(*, device: Device, user_id: int) -> bool:
    """End it; whether there was anything to end."""
    number, _ = DeviceShare.objects.filter(device=device, user=user_id).delete()
    return bool(number)
