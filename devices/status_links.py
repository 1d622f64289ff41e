"""Public, read-only links to a device's state: made, revoked, looked up."""

from __future__ import annotations

import hashlib
import re
import secrets
from datetime import datetime

import structlog
from django.contrib.auth.models import User

from devices.models import Device, StatusLink

log = structlog.get_logger(__name__)

KEY_BYTES = 32
_KEY = re.compile(r"[A-Za-z0-9_-]{43}")


def make(*, device: Device, by: User, now: datetime) -> str:
    """The key of a new link, to be shown once; a link made before stops working at once."""
    key = secrets.token_urlsafe(KEY_BYTES)
    StatusLink.objects.update_or_create(
        device=device, defaults={"digest": _digest(key), "created_at": now, "created_by": by}
    )
    log.info("status_link.made", device_id=device.pk, by=by.pk)
    return key


def revoke(*, device: Device) -> bool:
    """The link stops working at once; whether there was one."""
    number, _ = StatusLink.objects.filter(device=device).delete()
    return bool(number)


def find(key: str) -> Device | None:
    """The device behind a key, without its credentials; None for a key that is not good (any more)."""
    if not _KEY.fullmatch(key):
        return None
    device_id = StatusLink.objects.filter(digest=_digest(key)).values_list("pk", flat=True).first()
    if device_id is None:
        return None
    return Device.objects.filter(pk=device_id).defer("credentials", "options").first()


def _digest(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()
