"""Where leads come in by webhook, and what came."""

from __future__ import annotations

import secrets as tokens

from django.conf import settings
from django.core.exceptions import ValidationError
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models
from django.db.models import Q
from django.utils import timezone

from devices.access import Access, OwnedQuerySet
from devices.models import Device, Pool
from devices.rotating import RotatingSecret
from leads.phones import known_region


def make_key() -> str:
    """What a source's address ends with: nobody guesses it."""
    return tokens.token_urlsafe(18)


class LeadSource(RotatingSecret):
    """Somebody who posts leads to ``/hooks/leads/<key>``, signed: a form, a shop, a chat bot."""

    access = Access(owner="owner")

    owner = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="lead_sources")
    name = models.CharField(max_length=100)
    key = models.CharField(max_length=40, unique=True, default=make_key, editable=False)
    region = models.CharField(max_length=2, help_text="Country of numbers written without a country code, as MY.")
    device = models.ForeignKey(
        Device,
        on_delete=models.SET_NULL,
        null=True,
        blank=True,
        related_name="+",
        help_text="For leads that have none and whose request names none.",
    )
    pool = models.ForeignKey(
        Pool,
        on_delete=models.SET_NULL,
        null=True,
        blank=True,
        related_name="+",
        help_text="Instead of one device: such leads are spread over this pool's devices.",
    )
    consent_source = models.CharField(
        max_length=200, blank=True, help_text="Where and how they agree, as “Contact form”. Empty: it records none."
    )
    rate_per_minute = models.PositiveIntegerField(
        default=120, validators=[MinValueValidator(1), MaxValueValidator(60_000)], help_text="Most requests a minute."
    )
    enabled = models.BooleanField(default=True)
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    objects = OwnedQuerySet.as_manager()

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["owner", "name"], name="lead_source_owner_name"),
            models.CheckConstraint(condition=Q(rate_per_minute__gte=1), name="lead_source_rate_positive"),
        ]
        ordering = ["-id"]

    def __str__(self) -> str:
        return self.name

    def clean(self) -> None:
        """Problems a person can fix, each at its field."""
        errors: dict[str, str] = {}
        self.region = self.region.upper()
        if not known_region(self.region):
            errors["region"] = f"“{self.region}” is not a country code; use two letters, as MY."
        if self.device_id and self.pool_id:
            errors["pool"] = "Choose a device or a pool, not both."
        if errors:
            raise ValidationError(errors)


class LeadSourceEvent(models.Model):
    """One request that was taken in, under its key: told again, it has the same answer and no second effect."""

    access = Access(owner="source__owner")

    source = models.ForeignKey(LeadSource, on_delete=models.CASCADE, related_name="events", db_index=False)
    key = models.CharField(max_length=255)
    fingerprint = models.CharField(max_length=64, help_text="SHA-256 of the body.")
    status = models.PositiveSmallIntegerField(default=0)
    answer = models.JSONField(default=dict)
    created_at = models.DateTimeField()

    objects = OwnedQuerySet.as_manager()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["source", "key"], name="lead_source_event_once")]
        indexes = [
            # what is old enough to forget
            models.Index(fields=["created_at"], name="lead_source_event_age")
        ]
        ordering = ["-id"]
