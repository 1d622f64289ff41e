"""One audience, one content, one schedule: campaigns and their runs."""

from __future__ import annotations

from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError
from django.conf import settings
from django.contrib.postgres.fields import ArrayField
from django.core.exceptions import ValidationError
from django.core.validators import MinValueValidator
from django.db import models
from django.db.models import F, Q
from django.utils import timezone

from devices.access import Access, OwnedQuerySet
from devices.models import Device, Pool
from leads.models import LeadStatus, Segment
from messaging.content.problems import TemplateProblem
from messaging.content.wording import check_template
from messaging.models import Batch


class CampaignState(models.TextChoices):
    """``scheduled`` campaigns are watched by the tick; the others wait for a person."""

    DRAFT = "draft", "Draft"
    SCHEDULED = "scheduled", "Scheduled"
    PAUSED = "paused", "Paused"
    CANCELLED = "cancelled", "Cancelled"


class Schedule(models.TextChoices):
    """When a campaign runs."""

    NOW = "now", "As soon as it is launched"
    AT = "at", "Once, at a time"
    CRON = "cron", "Again and again, by a cron expression"


class Routing(models.TextChoices):
    """Which device sends to which lead."""

    OWN = "own", "Each lead's own device"
    POOLED = "pooled", "Turn by turn over a pool"


def default_time_zone() -> str:
    """The installation's time zone, as a field default."""
    return settings.TIME_ZONE


class Campaign(models.Model):
    """What to send, to whom, and when. Launching it makes runs; a one-off makes exactly one."""

    access = Access(owner="owner")

    owner = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="campaigns")
    name = models.CharField(max_length=150)
    state = models.CharField(max_length=10, choices=CampaignState, default=CampaignState.DRAFT)

    text = models.TextField(help_text="Variables as {{ name }}; a fallback as {{ name or 'friend' }}.")

    status = models.CharField(
        max_length=10, choices=LeadStatus, blank=True, help_text="Empty: prospects and customers."
    )
    niches = ArrayField(models.CharField(max_length=60), default=list, blank=True, help_text="Any of these exact tags.")
    triggers = ArrayField(
        models.CharField(max_length=60), default=list, blank=True, help_text="Any of these exact tags."
    )
    lead_device = models.ForeignKey(
        Device,
        on_delete=models.SET_NULL,
        null=True,
        blank=True,
        related_name="+",
        help_text="Only leads of this device.",
    )
    segment = models.ForeignKey(
        Segment,
        on_delete=models.PROTECT,  # a campaign whose segment were gone would speak to everybody
        null=True,
        blank=True,
        related_name="campaigns",
        help_text="Only leads of this segment, as they are when the run is triggered.",
    )

    routing = models.CharField(max_length=6, choices=Routing, default=Routing.OWN)
    pool = models.ForeignKey(Pool, on_delete=models.PROTECT, null=True, blank=True, related_name="campaigns")
    delay_min_seconds = models.FloatField(default=10, validators=[MinValueValidator(0)])
    delay_max_seconds = models.FloatField(default=30, validators=[MinValueValidator(0)])
    expires_after_days = models.PositiveSmallIntegerField(default=7, validators=[MinValueValidator(1)])

    schedule = models.CharField(max_length=4, choices=Schedule, default=Schedule.NOW)
    scheduled_at = models.DateTimeField(null=True, blank=True)
    cron = models.CharField(max_length=120, blank=True, help_text='As "0 9 * * MON".')
    time_zone = models.CharField(max_length=64, default=default_time_zone)
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    launched_at = models.DateTimeField(null=True, blank=True, editable=False)

    objects = OwnedQuerySet.as_manager()

    class Meta:
        constraints = [
            models.CheckConstraint(condition=Q(state__in=CampaignState.values), name="campaign_state_known"),
            models.CheckConstraint(
                condition=Q(delay_min_seconds__gte=0, delay_max_seconds__gte=F("delay_min_seconds")),
                name="campaign_delay_ordered",
            ),
        ]
        ordering = ["-id"]

    def __str__(self) -> str:
        return self.name

    def clean(self) -> None:
        """Problems a person can fix, each at its field."""
        errors: dict[str, str] = {}
        if self.delay_max_seconds < self.delay_min_seconds:
            errors["delay_max_seconds"] = "The longest delay must not be shorter than the shortest."
        if self.routing == Routing.POOLED and self.pool is None:
            errors["pool"] = "Choose the pool whose devices take turns, or route by each lead's own device."
        if self.schedule == Schedule.AT and self.scheduled_at is None:
            errors["scheduled_at"] = "Say when to run it, or choose another schedule."
        try:
            zone = ZoneInfo(self.time_zone)
        except (KeyError, ValueError, OSError):
            errors["time_zone"] = f"“{self.time_zone}” is not a time zone; use a name like Asia/Kuala_Lumpur."
        else:
            if self.schedule == Schedule.CRON:
                try:
                    CronSim(self.cron, timezone.now().astimezone(zone))
                except CronSimError as problem:
                    errors["cron"] = f"{problem}; write five fields, as “0 9 * * MON” for Mondays at nine."
        try:
            check_template(self.text)
        except TemplateProblem as problem:
            errors["text"] = str(problem)
        if errors:
            raise ValidationError(errors)


class RunState(models.TextChoices):
    """pending → triggered → finished | failed; an occurrence that nobody was there for is missed."""

    PENDING = "pending", "Pending"
    TRIGGERED = "triggered", "Triggered"
    FINISHED = "finished", "Finished"
    FAILED = "failed", "Failed"
    MISSED = "missed", "Missed"


class Run(models.Model):
    """One occurrence of a campaign. The unique (campaign, occurrence) is what makes it happen once."""

    access = Access(owner="campaign__owner")

    campaign = models.ForeignKey(Campaign, on_delete=models.CASCADE, related_name="runs")
    occurrence = models.CharField(max_length=40, help_text='"once" for a one-off, else the planned moment in UTC.')
    state = models.CharField(max_length=9, choices=RunState, default=RunState.PENDING)
    reason = models.CharField(max_length=300, blank=True)
    batch = models.OneToOneField(Batch, on_delete=models.PROTECT, null=True, blank=True, related_name="run")
    audience = models.JSONField(default=dict, help_text="The audience as it was when the run was triggered.")
    left_out = models.JSONField(default=dict, help_text="How many leads were left out, by reason.")
    planned_at = models.DateTimeField()
    triggered_at = models.DateTimeField(null=True, blank=True)
    finished_at = models.DateTimeField(null=True, blank=True)

    objects = OwnedQuerySet.as_manager()

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["campaign", "occurrence"], name="run_campaign_occurrence"),
            models.CheckConstraint(condition=Q(state__in=RunState.values), name="run_state_known"),
        ]
        indexes = [
            # the campaigns tick: runs to trigger, to resume, to finish
            models.Index(fields=["id"], name="run_live", condition=Q(state__in=["pending", "triggered"])),
        ]
        ordering = ["-id"]

    def __str__(self) -> str:
        return f"{self.campaign} ({self.occurrence})"
