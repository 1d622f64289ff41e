"""The secret part of a device's own webhook address."""

from __future__ import annotations

from django.db import models
from django.utils import timezone

from devices.access import Access, OwnedQuerySet
from devices.secrets import SecretsField


class HookKey(models.Model):
    """One key of a device's webhook address: the current one, or one before it that still works for a while.

    Whoever reads the database can neither post nor find out how: requests are looked up by the key's hash (a key is
    random enough to need no salt), and the key itself, for the pages that show the address, is encrypted.
    """

    access = Access(owner="device__owner")

    device = models.ForeignKey("devices.Device", on_delete=models.CASCADE, related_name="hook_keys")
    digest = models.CharField(max_length=64, unique=True, help_text="SHA-256 of the key, in hex.")
    sealed = SecretsField(default=dict)
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    expires_at = models.DateTimeField(null=True, blank=True, help_text="Empty: it is the current one.")

    objects = OwnedQuerySet.as_manager()

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["device"], name="hook_key_one_current", condition=models.Q(expires_at__isnull=True)
            ),
        ]
        ordering = ["-id"]
