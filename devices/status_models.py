"""Links under which anybody may look at one device."""

from __future__ import annotations

from django.conf import settings
from django.db import models

from devices.access import Access, OwnedQuerySet


class StatusLink(models.Model):
    """Who knows the key behind ``digest`` sees how the device is, and nothing else. The key is stored nowhere."""

    access = Access(owner="device__owner")

    device = models.OneToOneField("devices.Device", on_delete=models.CASCADE, primary_key=True, related_name="+")
    digest = models.CharField(max_length=64, unique=True)
    created_at = models.DateTimeField()
    created_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.SET_NULL, null=True, blank=True, related_name="+"
    )

    objects = OwnedQuerySet.as_manager()

    def __str__(self) -> str:
        return f"status link of device {self.pk}"
