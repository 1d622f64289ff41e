"""Drip sequences: steps, and the leads that walk through them."""

from __future__ import annotations

from django.conf import settings
from django.core.validators import MinValueValidator
from django.db import models
from django.db.models import Q
from django.utils import timezone

from devices.access import Access, OwnedQuerySet
from leads.models import Lead
from messaging.models import Batch


class SequenceState(models.TextChoices):
    """Only ACTIVE sequences enrol and send."""

    DRAFT = "draft", "Draft"
    ACTIVE = "active", "Active"
    PAUSED = "paused", "Paused"


class Sequence(models.Model):
    """Messages that follow one another, for leads that enter by a trigger tag, by hand or by API."""

    access = Access(owner="owner")

    owner = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="sequences")
    name = models.CharField(max_length=150)
    state = models.CharField(max_length=6, choices=SequenceState, default=SequenceState.DRAFT)
    trigger = models.CharField(max_length=60, blank=True, help_text="Leads that carry this exact tag enter.")
    next_sequence = models.ForeignKey("self", on_delete=models.SET_NULL, null=True, blank=True, related_name="previous")
    delay_min_seconds = models.FloatField(default=10, validators=[MinValueValidator(0)])
    delay_max_seconds = models.FloatField(default=30, validators=[MinValueValidator(0)])
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    objects = OwnedQuerySet.as_manager()

    class Meta:
        constraints = [models.CheckConstraint(condition=Q(state__in=SequenceState.values), name="sequence_state_known")]
        ordering = ["-id"]

    def __str__(self) -> str:
        return self.name


class Step(models.Model):
    """One message of a sequence, ``delay_minutes`` after the step before it was sent."""

    access = Access(owner="sequence__owner")

    sequence = models.ForeignKey(Sequence, on_delete=models.CASCADE, related_name="steps")
    position = models.PositiveSmallIntegerField()
    delay_minutes = models.PositiveIntegerField(default=24 * 60)
    text = models.TextField(help_text="Variables as {{ name }}; a fallback as {{ name or 'friend' }}.")

    objects = OwnedQuerySet.as_manager()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["sequence", "position"], name="step_sequence_position")]
        ordering = ["position"]

    def __str__(self) -> str:
        return f"{self.sequence}, step {self.position}"


class EnrolmentState(models.TextChoices):
    """ACTIVE enrolments have a step ahead; PAUSED ones wait for their device or a person."""

    ACTIVE = "active", "Active"
    PAUSED = "paused", "Paused"
    COMPLETED = "completed", "Completed"
    EXITED = "exited", "Exited"
    FAILED = "failed", "Failed"


class Enrolment(models.Model):
    """One lead inside one sequence, once."""

    access = Access(owner="sequence__owner", device="lead__device")

    sequence = models.ForeignKey(Sequence, on_delete=models.CASCADE, related_name="enrolments")
    lead = models.ForeignKey(Lead, on_delete=models.CASCADE, related_name="enrolments")
    state = models.CharField(max_length=9, choices=EnrolmentState, default=EnrolmentState.ACTIVE)
    reason = models.CharField(max_length=200, blank=True)
    next_step = models.ForeignKey(Step, on_delete=models.SET_NULL, null=True, blank=True, related_name="+")
    due_at = models.DateTimeField(null=True, blank=True)
    last_batch = models.ForeignKey(Batch, on_delete=models.SET_NULL, null=True, blank=True, related_name="+")
    enrolled_at = models.DateTimeField(default=timezone.now, editable=False)
    finished_at = models.DateTimeField(null=True, blank=True)

    objects = OwnedQuerySet.as_manager()

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["sequence", "lead"], name="enrolment_sequence_lead"),
            models.CheckConstraint(condition=Q(state__in=EnrolmentState.values), name="enrolment_state_known"),
        ]
        indexes = [
            # the sequences tick: enrolments whose next step is due
            models.Index(fields=["due_at"], name="enrolment_due", condition=Q(state="active")),
        ]
        ordering = ["-id"]

    def __str__(self) -> str:
        return f"{self.lead} in {self.sequence}"
