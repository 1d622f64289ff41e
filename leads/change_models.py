"""What became of a lead's fields, line by line."""

from __future__ import annotations

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.utils import timezone

from devices.access import Access, OwnedQuerySet


class LeadChange(models.Model):
    """One change of one lead by a person or a program. Goes with the lead.

    That an import made a lead stands on the lead (``first_import``): a million rows of a file would be a million rows
    here. What an import changed of somebody who was there is a row, like any other change.
    """

    class Kind(models.TextChoices):
        """What happened."""

        CREATED = "created", "Created"
        EDITED = "edited", "Edited"
        TRANSFERRED = "transferred", "Moved to another device"
        MERGED = "merged", "Merged"

    class Channel(models.TextChoices):
        """Through which door."""

        ADMIN = "admin", "Admin"
        API = "api", "API"
        WEBHOOK = "webhook", "Webhook"
        IMPORT = "import", "Import"
        SYSTEM = "system", "By itself"

    access = Access(owner="lead__owner", device="lead__device")

    lead = models.ForeignKey("leads.Lead", on_delete=models.CASCADE, related_name="changes", db_index=False)
    kind = models.CharField(max_length=11, choices=Kind)
    channel = models.CharField(max_length=7, choices=Channel)
    values = models.JSONField(default=dict, help_text='{"name": ["before", "after"]}')
    note = models.CharField(max_length=300, blank=True)
    by = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.SET_NULL, null=True, blank=True, related_name="+")
    changed_at = models.DateTimeField(default=timezone.now)

    objects = OwnedQuerySet.as_manager()

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=Q(kind__in=["created", "edited", "transferred", "merged"]), name="lead_change_kind_known"
            )
        ]
        indexes = [
            # one lead's history, newest first
            models.Index(fields=["lead", "-changed_at", "-id"], name="lead_change_history")
        ]
        ordering = ["-id"]

    def __str__(self) -> str:
        return f"{self.get_kind_display()} ({self.get_channel_display()})"
