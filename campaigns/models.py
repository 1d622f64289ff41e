"""One audience, one content, one schedule: campaigns and their runs."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.contrib.postgres.fields import ArrayField
from django.core.exceptions import ValidationError
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models
from django.db.models import F, Q
from django.utils import timezone

from campaigns import schedules
from campaigns.states import CampaignState, RunState
from devices.access import Access, OwnedQuerySet
from devices.models import Device, Pool
from leads.models import Lead, LeadStatus, Segment
from messaging.content.fields import ContentFields
from messaging.content.problems import TemplateProblem
from messaging.content.wording import check_template
from messaging.models import Batch


class Schedule(models.TextChoices):
    """When a campaign runs."""

    NOW = "now", "As soon as it is launched"
    AT = "at", "Once, at a time"
    CRON = "cron", "Again and again, by a cron expression"


class Routing(models.TextChoices):
    """Which device sends to which lead."""

    OWN = "own", "Each lead's own device"
    POOLED = "pooled", "Turn by turn over a pool"


class CatchUp(models.TextChoices):
    """What becomes of occurrences that nobody was there for in time."""

    NONE = "none", "Record them as missed"
    LATEST = "latest", "Run the latest of them, record the others as missed"


PLANNING = frozenset({"schedule", "cron", "time_zone"})
"""Fields after whose change the next occurrence is worked out anew."""


def default_time_zone() -> str:
    """The installation's time zone, as a field default."""
    return settings.TIME_ZONE


class Campaign(ContentFields):
    """What to send, to whom, and when. Launching it makes runs; a one-off makes exactly one."""

    access = Access(owner="owner")

    owner = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="campaigns")
    name = models.CharField(max_length=150)
    state = models.CharField(max_length=10, choices=CampaignState, default=CampaignState.DRAFT)

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
    limit_per_device = models.PositiveIntegerField(
        null=True,
        blank=True,
        validators=[MinValueValidator(1)],
        help_text="Pooled: at most this many leads of a run per device; the rest stays unassigned. Empty: no limit.",
    )
    pause_at_percent = models.PositiveSmallIntegerField(
        null=True,
        blank=True,
        default=50,
        validators=[MinValueValidator(1), MaxValueValidator(100)],
        help_text="Pause by itself when this share of the latest calls failed. Empty: never.",
    )
    pause_window_minutes = models.PositiveSmallIntegerField(
        default=10, validators=[MinValueValidator(1), MaxValueValidator(1440)], help_text="How far back calls count."
    )
    pause_min_calls = models.PositiveIntegerField(
        default=20, validators=[MinValueValidator(1)], help_text="With fewer calls than this nothing is concluded."
    )
    expires_after_days = models.PositiveSmallIntegerField(default=7, validators=[MinValueValidator(1)])

    schedule = models.CharField(max_length=4, choices=Schedule, default=Schedule.NOW)
    scheduled_at = models.DateTimeField(null=True, blank=True)
    cron = models.CharField(max_length=120, blank=True, help_text='As "0 9 * * MON".')
    time_zone = models.CharField(max_length=64, default=default_time_zone)
    catch_up = models.CharField(
        max_length=6,
        choices=CatchUp,
        default=CatchUp.NONE,
        help_text="What becomes of occurrences nobody was there for.",
    )
    planned_until = models.DateTimeField(
        null=True, blank=True, editable=False, help_text="Occurrences up to then have their runs."
    )
    next_at = models.DateTimeField(
        null=True,
        blank=True,
        editable=False,
        help_text="The next occurrence; unknown until the tick has worked it out.",
    )
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
        indexes = [
            # planning tick: recurring campaigns with an occurrence to write down, or to work out
            models.Index(fields=["next_at"], name="campaign_planned", condition=Q(state="scheduled", schedule="cron")),
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
            schedules.zone_of(self.time_zone)
            if self.schedule == Schedule.CRON:
                schedules.check(self.cron, zone=self.time_zone, now=timezone.now())
        except schedules.ScheduleProblem as problem:
            errors[problem.field] = str(problem)
        for name, text in self.content_problems().items():
            errors.setdefault(name, text)
        if errors:
            raise ValidationError(errors)

    def save(self, **kwargs: Any) -> None:
        """Store the row; after a change of the schedule the tick plans anew from here on, not from the past."""
        fields = kwargs.get("update_fields")
        if fields is None:
            if self.pk and not self._state.adding and self._schedule_changed():
                self.next_at, self.planned_until = None, timezone.now()
        elif PLANNING & set(fields):
            self.next_at, self.planned_until = None, timezone.now()
            kwargs["update_fields"] = {*fields, "next_at", "planned_until"}
        super().save(**kwargs)

    def _schedule_changed(self) -> bool:
        stored = Campaign.objects.filter(pk=self.pk).values(*sorted(PLANNING)).first()
        return stored is not None and any(getattr(self, name) != value for name, value in stored.items())


class Variant(models.Model):
    """One of the texts that a campaign tries on parts of its audience. Without any, everybody gets the campaign's."""

    access = Access(owner="campaign__owner")

    campaign = models.ForeignKey(Campaign, on_delete=models.CASCADE, related_name="variants")
    name = models.CharField(max_length=30, help_text='As "A", or "With the price".')
    share = models.PositiveSmallIntegerField(
        validators=[MinValueValidator(1), MaxValueValidator(99)], help_text="Percent of the audience; all make 100."
    )
    text = models.TextField(blank=True, help_text="Empty: the campaign's own text.")

    objects = OwnedQuerySet.as_manager()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["campaign", "name"], name="variant_campaign_name")]
        ordering = ["id"]

    def __str__(self) -> str:
        return self.name

    def clean(self) -> None:
        """Problems a person can fix, each at its field."""
        try:
            if self.text.strip():
                check_template(self.text)
        except TemplateProblem as problem:
            raise ValidationError({"text": str(problem)}) from None


class Run(models.Model):
    """One occurrence of a campaign. The unique (campaign, occurrence) is what makes it happen once."""

    access = Access(owner="campaign__owner")

    campaign = models.ForeignKey(Campaign, on_delete=models.CASCADE, related_name="runs")
    occurrence = models.CharField(max_length=40, help_text='"once" for a one-off, else the planned moment in UTC.')
    state = models.CharField(max_length=9, choices=RunState, default=RunState.PENDING)
    reason = models.CharField(max_length=300, blank=True)
    batch = models.OneToOneField(Batch, on_delete=models.PROTECT, null=True, blank=True, related_name="run")
    audience = models.JSONField(default=dict, help_text="The audience as it was when the run was triggered.")
    device_ids = ArrayField(
        models.BigIntegerField(), default=list, editable=False, help_text="Pooled: the devices that take turns."
    )
    left_out = models.JSONField(default=dict, help_text="How many leads were left out, by reason.")
    assigned_at = models.DateTimeField(
        null=True, blank=True, help_text="When every lead had a message, or was set aside as unassigned."
    )
    unassigned = models.PositiveIntegerField(default=0, help_text="Leads set aside that no device has taken yet.")
    resumed_at = models.DateTimeField(
        null=True, blank=True, editable=False, help_text="What failed before is forgiven."
    )
    watched_at = models.DateTimeField(null=True, blank=True, editable=False, help_text="When its errors were counted.")
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
            # calendar and summary; the tick, for what a clock that was set back has made due again
            models.Index(fields=["planned_at"], name="run_planned"),
        ]
        ordering = ["-id"]

    def __str__(self) -> str:
        return f"{self.campaign} ({self.occurrence})"


class RunVariant(models.Model):
    """A variant's part of a run: a batch of its own, with the text as it was when the run was triggered.

    A run without variants has ``Run.batch`` only; with variants that is the first one's batch, and all are here.
    """

    access = Access(owner="run__campaign__owner")

    run = models.ForeignKey(Run, on_delete=models.CASCADE, related_name="variants")
    name = models.CharField(max_length=30)
    lower = models.PositiveSmallIntegerField(help_text="Leads whose bucket, 0 to 9999, is at least this …")
    upper = models.PositiveSmallIntegerField(help_text="… and below this.")
    batch = models.OneToOneField(Batch, on_delete=models.PROTECT, related_name="run_variant")

    objects = OwnedQuerySet.as_manager()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["run", "name"], name="run_variant_name")]
        ordering = ["id"]

    def __str__(self) -> str:
        return f"{self.run}: {self.name}"


class Unassigned(models.Model):
    """A lead of a run that no device took: over the limit per device, or without a device of its own."""

    access = Access(owner="run__campaign__owner")

    run = models.ForeignKey(Run, on_delete=models.CASCADE, related_name="unassigned_leads", db_index=False)
    lead = models.ForeignKey(Lead, on_delete=models.CASCADE, related_name="+")
    batch = models.ForeignKey(Batch, on_delete=models.CASCADE, related_name="+", db_index=False)

    objects = OwnedQuerySet.as_manager()

    class Meta:
        constraints = [
            # the list of a run's, in the order of leads
            models.UniqueConstraint(fields=["run", "lead"], name="unassigned_run_lead")
        ]
        verbose_name_plural = "unassigned"


class Answer(models.Model):
    """That a lead answered a batch: the first reply after its message, once."""

    access = Access(owner="batch__owner", device="device")

    batch = models.ForeignKey(Batch, on_delete=models.CASCADE, related_name="answers", db_index=False)
    lead = models.ForeignKey(Lead, on_delete=models.CASCADE, related_name="+")
    device = models.ForeignKey(Device, on_delete=models.CASCADE, related_name="+", db_index=False)
    answered_at = models.DateTimeField()

    objects = OwnedQuerySet.as_manager()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["batch", "lead"], name="answer_batch_lead")]


class AnswerCount(models.Model):
    """How many leads answered a batch, by the device that had written to them; moves with the answers."""

    access = Access(owner="batch__owner", device="device")

    batch = models.ForeignKey(Batch, on_delete=models.CASCADE, related_name="answer_counts", db_index=False)
    device = models.ForeignKey(Device, on_delete=models.CASCADE, related_name="+", db_index=False)
    replied = models.PositiveIntegerField(default=0)

    objects = OwnedQuerySet.as_manager()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["batch", "device"], name="answer_count_batch_device")]


class AnswerCursor(models.Model):
    """How far the replies have been read: one row. Ids may commit out of order, so the last minute is read again."""

    access = Access(owner=None)

    read_again_from = models.BigIntegerField(default=0)
    seen = models.BigIntegerField(default=0)
    seen_at = models.DateTimeField()

    objects = OwnedQuerySet.as_manager()
