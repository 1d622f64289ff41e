"""Drip sequences: steps, their versions, and the leads that walk through them."""

from __future__ import annotations

from zoneinfo import available_timezones

from django.conf import settings
from django.contrib.postgres.fields import ArrayField
from django.core.exceptions import ValidationError
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models
from django.db.models import F, Q
from django.utils import timezone

from devices.access import Access, OwnedQuerySet
from leads.models import Lead
from messaging.content.fields import ContentFields
from messaging.models import Batch, Message


class SequenceState(models.TextChoices):
    """Leads enter ACTIVE sequences and are sent to from those alone. A draft has no version yet."""

    DRAFT = "draft", "Draft"
    ACTIVE = "active", "Active"
    PAUSED = "paused", "Paused"


class OnFailure(models.TextChoices):
    """What becomes of a lead whose step could not be sent."""

    STOP = "stop", "The lead stops there, as failed"
    GO_ON = "go_on", "The lead goes on to the next step"


class OnReply(models.TextChoices):
    """What a reply does to a lead that had this step last."""

    DEFAULT = "", "As the sequence says"
    IGNORE = "ignore", "Nothing: the lead goes on"
    GO = "go", "The lead goes on with another step"


class Sequence(models.Model):
    """Messages that follow one another, for leads that enter by a trigger tag, by hand, by API or from another one."""

    access = Access(owner="owner")

    owner = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="sequences")
    name = models.CharField(max_length=150)
    state = models.CharField(max_length=6, choices=SequenceState, default=SequenceState.DRAFT)
    trigger = models.CharField(
        max_length=60,
        blank=True,
        help_text="Leads that carry this exact tag enter, now and later. Empty: by hand and by API alone.",
    )
    re_entry = models.BooleanField(
        default=False,
        help_text="Whether a lead that has been through it may enter again. The trigger is then taken off the lead as "
        "it enters, so that it can be put on again.",
    )
    goal = models.CharField(max_length=60, blank=True, help_text="Leads that carry this exact trigger tag leave.")
    exit_on_reply = models.BooleanField(default=True, help_text="Leads that write back leave, unless a step says more.")
    on_failure = models.CharField(max_length=5, choices=OnFailure, default=OnFailure.STOP)
    late_hours = models.PositiveIntegerField(
        default=72,
        validators=[MinValueValidator(1), MaxValueValidator(24 * 365)],
        help_text="A step that could not go out for so many hours after its time is skipped.",
    )
    time_zone = models.CharField(
        max_length=64, blank=True, help_text="Zone of the steps' hours, as Asia/Kuala_Lumpur. Empty: each lead's own."
    )
    next_sequence = models.ForeignKey(
        "self",
        on_delete=models.SET_NULL,
        null=True,
        blank=True,
        related_name="previous",
        help_text="Where leads go that have come to the end.",
    )
    delay_min_seconds = models.FloatField(default=10, validators=[MinValueValidator(0)])
    delay_max_seconds = models.FloatField(default=30, validators=[MinValueValidator(0)])
    version = models.ForeignKey(
        "Version", on_delete=models.PROTECT, null=True, blank=True, related_name="+", editable=False
    )
    # How far the look for leads with the trigger has come: this trigger, all leads up to this id (NULL: all there
    # are), and what changed up to that time.
    swept_trigger = models.CharField(max_length=60, blank=True, default="", editable=False)
    swept_to = models.BigIntegerField(null=True, blank=True, editable=False)
    heard_at = models.DateTimeField(null=True, blank=True, editable=False)
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    objects = OwnedQuerySet.as_manager()

    class Meta:
        constraints = [
            models.CheckConstraint(condition=Q(state__in=SequenceState.values), name="sequence_state_known"),
            models.CheckConstraint(
                condition=Q(delay_min_seconds__gte=0, delay_max_seconds__gte=F("delay_min_seconds")),
                name="sequence_delay_ordered",
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
        if self.time_zone and self.time_zone not in available_timezones():
            errors["time_zone"] = f"“{self.time_zone}” is not a time zone; use a name like Asia/Kuala_Lumpur."
        if self.goal and self.goal == self.trigger:
            errors["goal"] = "A lead that enters by this tag would leave at once: choose another one."
        if self._leads_back():
            errors["next_sequence"] = f"“{self.next_sequence}” leads back to this sequence: choose another, or none."
        if errors:
            raise ValidationError(errors)

    def _leads_back(self) -> bool:
        """Whether the chain that starts with ``next_sequence`` comes to this one."""
        following, seen = self.next_sequence, set[int]()
        while following is not None and following.pk not in seen:
            if following.pk == self.pk:
                return True
            seen.add(following.pk)
            following = following.next_sequence
        return False


class StepFields(models.Model):
    """What a step says, in the draft and in each version."""

    position = models.PositiveSmallIntegerField()
    delay_minutes = models.PositiveIntegerField(
        default=24 * 60,
        validators=[MaxValueValidator(366 * 24 * 60)],
        help_text="After the step before was sent; after entering, for the first.",
    )
    window_start = models.TimeField(null=True, blank=True, help_text="Only from this time of day …")
    window_end = models.TimeField(null=True, blank=True, help_text="… to this one; past midnight if it is earlier.")
    weekdays = ArrayField(
        models.PositiveSmallIntegerField(validators=[MinValueValidator(1), MaxValueValidator(7)]),
        default=list,
        blank=True,
        help_text="1 is Monday, 7 is Sunday. Empty: every day.",
    )
    on_reply = models.CharField(max_length=6, choices=OnReply, blank=True, default=OnReply.DEFAULT)
    reply_goes_to = models.PositiveSmallIntegerField(
        null=True, blank=True, help_text="Position of the step that a reply leads to; a later one."
    )
    wait_minutes = models.PositiveIntegerField(
        default=0,
        validators=[MaxValueValidator(366 * 24 * 60)],
        help_text="Wait so long for a reply before the delay of the step that follows begins.",
    )
    silence_goes_to = models.PositiveSmallIntegerField(
        null=True, blank=True, help_text="Position of the step that follows without a reply. Empty: the next."
    )
    ends = models.BooleanField(default=False, help_text="Without a reply the sequence ends with this step.")

    class Meta:
        abstract = True


class Step(ContentFields, StepFields):
    """One message of a sequence as its author has it in front of them. What is sent is a version of it.

    Its key stays the same from version to version, so that a lead in the middle finds its place again.
    """

    access = Access(owner="sequence__owner")

    sequence = models.ForeignKey(Sequence, on_delete=models.CASCADE, related_name="steps")
    objects = OwnedQuerySet.as_manager()

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["sequence", "position"], name="step_sequence_position", deferrable=models.Deferrable.DEFERRED
            )
        ]
        ordering = ["position"]

    def __str__(self) -> str:
        return f"{self.sequence}, step {self.position}"

    def clean(self) -> None:
        """Problems a person can fix, each at its field."""
        errors: dict[str, str] = {}
        if (self.window_start is None) != (self.window_end is None):
            errors["window_end" if self.window_end is None else "window_start"] = (
                "Hours have a start and an end: fill in both, or neither."
            )
        if self.on_reply == OnReply.GO and self.reply_goes_to is None:
            errors["reply_goes_to"] = "Name the position of the step that a reply leads to."
        for name in ("reply_goes_to", "silence_goes_to"):
            target = getattr(self, name)
            if target is not None and self.position is not None and target <= self.position:
                errors[name] = "Name the position of a later step: a sequence never goes back."
        errors |= self.content_problems()
        if errors:
            raise ValidationError(errors)


class Version(models.Model):
    """The steps as they were applied at one moment: who did it, and when. Versions never change."""

    access = Access(owner="sequence__owner")

    sequence = models.ForeignKey(Sequence, on_delete=models.CASCADE, related_name="versions")
    number = models.PositiveIntegerField()
    made_at = models.DateTimeField()
    made_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.SET_NULL, null=True, blank=True, related_name="+"
    )

    objects = OwnedQuerySet.as_manager()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["sequence", "number"], name="version_sequence_number")]
        ordering = ["-id"]

    def __str__(self) -> str:
        return f"{self.sequence}, version {self.number}"


class StepVersion(StepFields):
    """One step in one version. ``revision`` counts the contents that the step has had: messages belong to one."""

    access = Access(owner="version__sequence__owner")

    version = models.ForeignKey(Version, on_delete=models.CASCADE, related_name="steps")
    key = models.BigIntegerField()
    revision = models.PositiveIntegerField(default=1)
    content = models.JSONField()

    objects = OwnedQuerySet.as_manager()

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["version", "key"], name="step_version_key"),
            models.UniqueConstraint(fields=["version", "position"], name="step_version_position"),
        ]
        ordering = ["position"]

    def __str__(self) -> str:
        return f"{self.version}, step {self.position}"


class StepBatch(models.Model):
    """The messages of one content of one step.

    ``turn`` is above 1 for leads that get the same content once more: a person is in a batch once, so these have
    another one.
    """

    access = Access(owner="sequence__owner")

    sequence = models.ForeignKey(Sequence, on_delete=models.CASCADE, related_name="batches")
    key = models.BigIntegerField()
    revision = models.PositiveIntegerField()
    turn = models.PositiveIntegerField()
    batch = models.OneToOneField(Batch, on_delete=models.PROTECT, related_name="step_batch")

    objects = OwnedQuerySet.as_manager()

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["sequence", "key", "revision", "turn"], name="step_batch_once"),
        ]

    def __str__(self) -> str:
        return str(self.batch)


class EnrolmentState(models.TextChoices):
    """ACTIVE and PAUSED enrolments are live; PAUSED ones wait for their device or for a person (see ``code``)."""

    ACTIVE = "active", "Active"
    PAUSED = "paused", "Paused"
    COMPLETED = "completed", "Completed"
    EXITED = "exited", "Exited"
    FAILED = "failed", "Failed"


LIVE = (EnrolmentState.ACTIVE, EnrolmentState.PAUSED)


class EntrySource(models.TextChoices):
    """How a lead came in."""

    TAG = "tag", "Trigger tag"
    HAND = "hand", "By hand"
    API = "api", "API"
    CHAIN = "chain", "From another sequence"


class Enrolment(models.Model):
    """One lead inside one sequence, once; entering again, where that is allowed, begins the same row anew.

    ``next_key`` is the step ahead and ``last_key`` the one that was sent or skipped last; ``base_at`` is the moment
    from which the delay of the step ahead counts (the actual send of the last one), ``due_at`` its time. While a
    step's message is on its way, ``message`` is it. ``look_at`` is when the tick has anything to do here, NULL for
    nothing. Moved by :mod:`sequences.walking` and :mod:`sequences.exits` only.
    """

    access = Access(owner="sequence__owner", device="lead__device")

    sequence = models.ForeignKey(Sequence, on_delete=models.CASCADE, related_name="enrolments", db_index=False)
    lead = models.ForeignKey(Lead, on_delete=models.CASCADE, related_name="enrolments")
    state = models.CharField(
        max_length=9, choices=EnrolmentState, default=EnrolmentState.ACTIVE, db_default=EnrolmentState.ACTIVE
    )
    code = models.CharField(max_length=20, blank=True, default="", db_default="", help_text="Of the reason.")
    reason = models.CharField(max_length=200, blank=True, default="", db_default="")
    source = models.CharField(max_length=5, choices=EntrySource, default=EntrySource.HAND)
    turn = models.PositiveIntegerField(default=1, db_default=1, editable=False)
    path = ArrayField(models.BigIntegerField(), default=list, blank=True, help_text="Sequences it came through.")
    next_key = models.BigIntegerField(null=True, blank=True)
    last_key = models.BigIntegerField(null=True, blank=True)
    base_at = models.DateTimeField(default=timezone.now)
    due_at = models.DateTimeField(null=True, blank=True)
    look_at = models.DateTimeField(null=True, blank=True, editable=False)
    message = models.ForeignKey(
        Message, on_delete=models.SET_NULL, null=True, blank=True, related_name="+", db_index=False
    )
    handed_at = models.DateTimeField(null=True, blank=True, editable=False)
    reply_no = models.IntegerField(default=0, db_default=0, editable=False)
    enrolled_at = models.DateTimeField(default=timezone.now, editable=False)
    finished_at = models.DateTimeField(null=True, blank=True)

    objects = OwnedQuerySet.as_manager()

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["sequence", "lead"], name="enrolment_sequence_lead"),
            models.CheckConstraint(condition=Q(state__in=EnrolmentState.values), name="enrolment_state_known"),
        ]
        indexes = [
            # the sequences tick: what of an active sequence is to be looked at now
            models.Index(fields=["sequence", "look_at"], name="enrolment_look", condition=Q(look_at__isnull=False)),
            # messages that are deleted
            models.Index(fields=["message"], name="enrolment_message", condition=Q(message__isnull=False)),
        ]
        ordering = ["-id"]

    def __str__(self) -> str:
        return f"{self.lead} in {self.sequence}"


class Tally(models.Model):
    """How many enrolments of a sequence stand where; a trigger adds lines as they move, a tick sums them up.

    ``step_key`` is the step ahead for live enrolments, the one that failed, or the last one that went out; 0 for none.
    """

    access = Access(owner="sequence__owner")

    sequence = models.ForeignKey(Sequence, on_delete=models.CASCADE, related_name="+", db_constraint=False)
    state = models.CharField(max_length=9)
    code = models.CharField(max_length=20)
    step_key = models.BigIntegerField()
    number = models.IntegerField()

    objects = OwnedQuerySet.as_manager()

    def __str__(self) -> str:
        return f"{self.state}: {self.number}"


class Feed(models.Model):
    """How far the tick has read what it learns about leads from elsewhere, by name of the source."""

    access = Access(owner=None)

    name = models.CharField(max_length=20, unique=True)
    cursor = models.BigIntegerField(default=0)

    objects = OwnedQuerySet.as_manager()

    def __str__(self) -> str:
        return self.name
