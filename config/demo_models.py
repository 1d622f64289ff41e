"""Which owner is the demo's."""

from __future__ import annotations

from django.conf import settings
from django.db import models
from django.utils import timezone


class DemoData(models.Model):
    """That everything of this owner is demo data: the one mark by which it is found again, and taken away."""

    owner = models.OneToOneField(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="+")
    added_at = models.DateTimeField(default=timezone.now)

    def __str__(self) -> str:
        return f"demo data of {self.owner}"
