"""What has been moved over from a system before this one: each move, and which row became what."""

from __future__ import annotations

from django.conf import settings
from django.db import models
from django.utils import timezone


class LegacyMove(models.Model):
    """One call of ``import_legacy`` that wrote something or might have: who answers for it, and on what ground.

    Rows stay. The audit trail keeps them too, so that the declared ground of consent cannot be changed afterwards.
    """

    name = models.CharField(max_length=40, help_text="Which system before, as its operator calls it.")
    by = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="+")
    consent_basis = models.CharField(max_length=200, blank=True, help_text="As declared; empty: no consent was noted.")
    started_at = models.DateTimeField(default=timezone.now)
    finished_at = models.DateTimeField(null=True, blank=True, help_text="Empty: it goes on, or was interrupted.")
    counts = models.JSONField(default=dict, help_text='{"leads": {"taken": 10, "refused": 1}}')

    class Meta:
        ordering = ["-id"]

    def __str__(self) -> str:
        return f"move {self.pk} from {self.name}"


class LegacyRow(models.Model):
    """A row of the system before and the row that it became. Committed together with that, so that it comes over once.

    It stays when ours is deleted: what was thrown away or erased here is not brought back by moving over again.
    """

    name = models.CharField(max_length=40)
    table = models.CharField(max_length=40)
    old_id = models.CharField(max_length=64)
    new_id = models.BigIntegerField()
    lacks = models.CharField(max_length=20, blank=True, default="", db_default="", help_text="What could not come yet.")
    taken_at = models.DateTimeField(default=timezone.now)

    class Meta:
        constraints = [
            # looked up by the ids of a stretch of rows
            models.UniqueConstraint(fields=["name", "table", "old_id"], name="legacy_row_once"),
        ]

    def __str__(self) -> str:
        return f"{self.table} {self.old_id} → {self.new_id}"
