"""How far what is old was looked through."""

from __future__ import annotations

from django.db import models

from devices.access import Access, OwnedQuerySet


class RetentionMark(models.Model):
    """For one kind of rows, the id up to which everything old has been dealt with. Moved by messaging.retention."""

    access = Access(owner=None)

    kind = models.CharField(max_length=20, primary_key=True)
    row_id = models.BigIntegerField(default=0)

    objects = OwnedQuerySet.as_manager()

    def __str__(self) -> str:
        return f"{self.kind} up to {self.row_id}"
