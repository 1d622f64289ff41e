"""Keys of webhook addresses: made, changed, shown.

A gateway that signs nothing is believed for one reason: nobody else knows where it posts to.
"""

from __future__ import annotations

import hashlib
import secrets as tokens
from datetime import datetime, timedelta

import structlog
from django.conf import settings
from django.db import transaction
from django.urls import reverse

from devices.hook_models import HookKey
from devices.models import Device
from devices.secrets import Secrets

log = structlog.get_logger(__name__)

KEY_BYTES = 32


def digest_of(key: str) -> str:
    """What a key is looked up by."""
    return hashlib.sha256(key.encode("utf-8", "replace")).hexdigest()


def rotate(*, device: Device, now: datetime, keep_hours: float | None = None) -> HookKey:
    """A new key; the one before still works for ``keep_hours`` (None: the setting; 0: not any more).

    Two at once come one after the other, by the device's lock.
    """
    keep = settings.FLOTILLA_HOOK_KEY_KEEP_HOURS if keep_hours is None else keep_hours
    key = tokens.token_urlsafe(KEY_BYTES)
    with transaction.atomic():
        Device.objects.select_for_update(no_key=True).only("pk").get(pk=device.pk)
        before = HookKey.objects.filter(device=device)
        if keep > 0:
            before.filter(expires_at__lte=now).delete()
            before.filter(expires_at=None).update(expires_at=now + timedelta(hours=keep))
        else:
            before.delete()
        made = HookKey.objects.create(
            device=device, digest=digest_of(key), sealed=Secrets({"key": key}), created_at=now
        )
    log.info("hook_key.rotated", device_id=device.pk, kept_hours=keep)
    return made


def current(*, device: Device) -> HookKey | None:
    """The key that the device's pages show; None before one was made."""
    return HookKey.objects.filter(device=device, expires_at=None).first()


def older_until(*, device: Device, now: datetime) -> datetime | None:
    """Until when a key before the current one still works; None if none does."""
    older = HookKey.objects.filter(device=device, expires_at__gt=now).order_by("-expires_at")
    return older.values_list("expires_at", flat=True).first()


def path_of(*, gateway: str, key: HookKey) -> str:
    """The address without its host; empty if the key does not decrypt with the field keys in use."""
    readable = key.sealed.get("key", "")
    return reverse("device-hook", args=[gateway, readable]) if readable else ""
