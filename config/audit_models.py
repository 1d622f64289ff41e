"""Who changed or did what: written by the database, kept as it was written."""

from __future__ import annotations

from django.conf import settings
from django.db import models
from django.utils import timezone

from devices.access import Access, OwnedQuerySet


class AuditEntry(models.Model):
    """One row that somebody added, changed or removed, or one log-in.

    A trigger on each audited table writes these (migration 0003) whenever the statement says who acts, which
    :mod:`config.audit` sees to; another refuses UPDATE and DELETE here. Leads are not among the audited tables: their
    own histories of changes and consent are, and those can be erased with the person.
    """

    access = Access(owner="user")

    class Event(models.TextChoices):
        INSERT = "insert", "Added"
        UPDATE = "update", "Changed"
        DELETE = "delete", "Removed"
        LOGIN = "login", "Logged in"
        REFUSED = "refused", "Log-in refused"

    at = models.DateTimeField(default=timezone.now)
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.PROTECT, null=True, related_name="+", db_index=False
    )
    address = models.GenericIPAddressField(null=True, help_text="Where the request came from.")
    action = models.CharField(max_length=120, help_text="What was asked for: the method and the name of the address.")
    event = models.CharField(max_length=8, choices=Event)
    table = models.CharField(max_length=63)
    object_id = models.CharField(max_length=64)
    before = models.JSONField(null=True, help_text="Fields as they were; of a change, only those that changed.")
    after = models.JSONField(null=True, help_text="Fields as they became. Secrets are hidden.")

    objects = OwnedQuerySet.as_manager()

    class Meta:
        ordering = ["-id"]
        verbose_name_plural = "audit entries"
        indexes = [
            # what somebody did, newest first
            models.Index(fields=["user", "-id"], name="audit_user"),
            # what was done to one row
            models.Index(fields=["table", "object_id"], name="audit_object"),
        ]

    def __str__(self) -> str:
        return f"{self.action} {self.table} {self.object_id}"
