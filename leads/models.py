"""People who agreed to hear from us, and how their details came in."""

from __future__ import annotations

from zoneinfo import available_timezones

from django.conf import settings
from django.contrib.postgres.fields import ArrayField
from django.contrib.postgres.indexes import GinIndex
from django.core.exceptions import ValidationError
from django.db import models
from django.db.models import Q
from django.utils import timezone

from devices.access import Access, OwnedQuerySet
from devices.models import Device
from leads.rules import RulesRefused, parse
from leads.searching import name_words


class LeadStatus(models.TextChoices):
    """Where somebody stands with the business."""

    PROSPECT = "prospect", "Prospect"
    CUSTOMER = "customer", "Customer"


class Lead(models.Model):
    """One person of one owner, reached at one phone number (E.164)."""

    access = Access(owner="owner", device="device")

    owner = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="leads")
    phone = models.CharField(max_length=20, help_text="E.164, as +60123456789.")
    name = models.CharField(max_length=200, blank=True)
    status = models.CharField(max_length=10, choices=LeadStatus, default=LeadStatus.PROSPECT)
    niches = ArrayField(models.CharField(max_length=60), default=list, blank=True)
    triggers = ArrayField(models.CharField(max_length=60), default=list, blank=True)
    notes = models.TextField(blank=True)
    custom = models.JSONField(default=dict, blank=True, help_text="Your own fields, usable in messages.")
    device = models.ForeignKey(Device, on_delete=models.SET_NULL, null=True, blank=True, related_name="leads")

    consent_at = models.DateTimeField(null=True, blank=True, help_text="When they agreed; bulk sends need it.")
    consent_source = models.CharField(max_length=200, blank=True, help_text="Where and how they agreed.")
    opted_out_at = models.DateTimeField(null=True, blank=True)
    review_at = models.DateTimeField(
        null=True,
        blank=True,
        help_text="Since when a person has to decide whether they refused; nothing is sent until then.",
    )
    time_zone = models.CharField(
        max_length=64,
        blank=True,
        default="",
        db_default="",
        help_text="For quiet hours, as Asia/Kuala_Lumpur. Empty: by the country of the number.",
    )
    first_import = models.ForeignKey(
        "leads.LeadImport",
        on_delete=models.SET_NULL,
        null=True,
        blank=True,
        editable=False,
        db_index=False,
        db_constraint=False,  # checked row by row it would cost an import of a million several seconds
        related_name="+",
        help_text="Which import this lead came with.",
    )
    times_replied = models.IntegerField(
        default=0,
        db_default=0,
        editable=False,
        help_text="How often they wrote to us: what is not to go out after a reply is claimed by this number.",
    )
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    updated_at = models.DateTimeField(auto_now=True)

    objects = OwnedQuerySet.as_manager()

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["owner", "phone"], name="lead_owner_phone"),
            models.CheckConstraint(condition=Q(status__in=LeadStatus.values), name="lead_status_known"),
            models.CheckConstraint(condition=Q(phone__regex=r"^\+[1-9][0-9]{5,14}$"), name="lead_phone_e164"),
        ]
        indexes = [
            # the fan-out walks one owner's leads by id
            models.Index(fields=["owner", "id"], name="lead_owner_id"),
            # audience: exact tags
            GinIndex(fields=["niches"], name="lead_niches"),
            GinIndex(fields=["triggers"], name="lead_triggers"),
            # segments: an own field that has one exact value
            GinIndex(fields=["custom"], name="lead_custom", opclasses=["jsonb_path_ops"]),
            # search: beginnings of words of the name
            GinIndex(name_words(), name="lead_name_words"),
            # the list and the number of those without consent
            models.Index(fields=["owner", "id"], name="lead_no_consent", condition=Q(consent_at__isnull=True)),
            # sequences: whose triggers may have changed since the last look
            models.Index(fields=["updated_at"], name="lead_tagged_updated", condition=~Q(triggers=[])),
            # the list of those a person has to decide about
            models.Index(fields=["id"], name="lead_in_review", condition=Q(review_at__isnull=False)),
            # the list and the number of those who refused
            models.Index(fields=["id"], name="lead_opted_out", condition=Q(opted_out_at__isnull=False)),
        ]
        ordering = ["-id"]

    def __str__(self) -> str:
        return self.name or self.phone

    def clean(self) -> None:
        """Problems a person can fix, each at its field."""
        if self.time_zone and self.time_zone not in available_timezones():
            raise ValidationError(
                {"time_zone": f"“{self.time_zone}” is not a time zone; use a name like Asia/Kuala_Lumpur."}
            )

    @property
    def first_name(self) -> str:
        """The name's first word, for greetings."""
        return self.name.split(" ", 1)[0] if self.name else ""


class Segment(models.Model):
    """A filter over its owner's leads, kept under a name. Who matches is asked anew each time (leads.segments)."""

    access = Access(owner="owner")

    owner = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="segments", db_index=False
    )
    name = models.CharField(max_length=150)
    rules = models.JSONField(default=dict, blank=True, help_text="What is asked of a lead; empty: nothing.")
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    updated_at = models.DateTimeField(auto_now=True)

    objects = OwnedQuerySet.as_manager()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["owner", "name"], name="segment_owner_name")]
        ordering = ["-id"]

    def __str__(self) -> str:
        return self.name

    def clean(self) -> None:
        """The rules can be read, and name no device of somebody else's."""
        try:
            rules = parse(self.rules)
        except RulesRefused as refused:
            raise ValidationError({"rules": [problem.text for problem in refused.problems]}) from None
        if rules.device and not Device.objects.filter(pk=rules.device, owner_id=self.owner_id).exists():
            text = f"Rule “device”: you have no device {rules.device}; give the id of one that you have."
            raise ValidationError({"rules": ValidationError(text, code="does_not_exist")})
        self.rules = rules.to_json()


class LeadImport(models.Model):
    """One file of leads: what was asked for, how far it is, and what became of each row."""

    class State(models.TextChoices):
        """An import is resumed from ``rows_done`` when the process that ran it died. A draft waits for its owner."""

        DRAFT = "draft", "Draft"
        WAITING = "waiting", "Waiting"
        RUNNING = "running", "Running"
        FINISHED = "finished", "Finished"
        FAILED = "failed", "Failed"

    class Duplicates(models.TextChoices):
        """What happens to a person who is there already, or stands in the file twice."""

        MERGE = "merge", "Merge: fill what is empty, add tags"
        SKIP = "skip", "Skip: leave those who are there as they are"
        OVERWRITE = "overwrite", "Overwrite: what the file says wins"

    access = Access(owner="owner")

    owner = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="lead_imports")
    file = models.FileField(upload_to="imports/%Y/%m/", blank=True)
    filename = models.CharField(max_length=255)
    region = models.CharField(max_length=2, help_text="Country of numbers written without a country code, as MY.")
    consent_source = models.CharField(max_length=200, blank=True)
    device = models.ForeignKey(Device, on_delete=models.SET_NULL, null=True, blank=True)
    mapping = models.JSONField(default=list, blank=True, help_text="What each column means; empty: by its title.")
    duplicates = models.CharField(max_length=9, choices=Duplicates, default=Duplicates.MERGE)
    dry_run = models.BooleanField(default=False, help_text="Only count and find problems; write no lead.")
    state = models.CharField(max_length=8, choices=State, default=State.WAITING)
    error = models.TextField(blank=True, help_text="Why the whole file was refused.")
    rows_done = models.PositiveIntegerField(default=0)
    rows_total = models.PositiveIntegerField(null=True, blank=True)
    accepted = models.PositiveIntegerField(default=0)
    merged = models.PositiveIntegerField(default=0)
    skipped = models.PositiveIntegerField(default=0)
    rejected = models.PositiveIntegerField(default=0)
    attempts = models.PositiveSmallIntegerField(default=0, help_text="Starts since the last row that went in.")
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    finished_at = models.DateTimeField(null=True, blank=True)
    file_unwanted_at = models.DateTimeField(
        null=True,
        blank=True,
        editable=False,
        help_text="Since when the file has to go as soon as nothing reads it: somebody in it may have been erased.",
    )

    objects = OwnedQuerySet.as_manager()

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=Q(state__in=["draft", "waiting", "running", "finished", "failed"]), name="import_state_known"
            ),
            models.CheckConstraint(
                condition=Q(duplicates__in=["merge", "skip", "overwrite"]), name="import_duplicates_known"
            ),
        ]
        ordering = ["-id"]

    def __str__(self) -> str:
        return self.filename


class LeadImportProblem(models.Model):
    """One row that could not be taken, with what to do about it."""

    access = Access(owner="lead_import__owner")

    lead_import = models.ForeignKey(LeadImport, on_delete=models.CASCADE, related_name="problems")
    row_number = models.PositiveIntegerField(help_text="As a spreadsheet shows it; the header is row 1.")
    field = models.CharField(max_length=60, blank=True)
    code = models.CharField(max_length=40)
    message = models.CharField(max_length=300)
    values = models.JSONField(default=dict)

    objects = OwnedQuerySet.as_manager()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["lead_import", "row_number"], name="import_problem_row")]
        ordering = ["row_number"]

    def __str__(self) -> str:
        return f"row {self.row_number}: {self.message}"


class ConsentEvent(models.Model):
    """One thing that happened to a lead's consent: where, when, how, and by whom.

    The consent in force stands on the lead itself. It is copied here before anything replaces it, so that an import of
    a million new people writes no second row for each; :func:`leads.consent.history` reads both.
    """

    class Kind(models.TextChoices):
        """What happened."""

        GIVEN = "given", "Agreed"
        OPTED_OUT = "opted_out", "Opted out"
        OPTED_IN = "opted_in", "Opted in again"
        HELD = "held", "Held for review"
        DISMISSED = "dismissed", "Review: no refusal"
        SUPPRESSED = "suppressed", "Suppressed earlier"

    class Channel(models.TextChoices):
        """How we came to know."""

        REPLY = "reply", "Their own message"
        ADMIN = "admin", "Admin"
        API = "api", "API"
        IMPORT = "import", "Import"
        RECORD = "record", "Earlier record"

    access = Access(owner="lead__owner", device="lead__device")

    lead = models.ForeignKey(Lead, on_delete=models.CASCADE, related_name="consent_events")
    kind = models.CharField(max_length=10, choices=Kind)
    channel = models.CharField(max_length=6, choices=Channel)
    source = models.CharField(max_length=300, blank=True, help_text="Where and how, or what they wrote.")
    happened_at = models.DateTimeField()
    by = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.SET_NULL, null=True, blank=True, related_name="+")
    recorded_at = models.DateTimeField(default=timezone.now, editable=False)

    objects = OwnedQuerySet.as_manager()

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=Q(kind__in=["given", "opted_out", "opted_in", "held", "dismissed", "suppressed"]),
                name="consent_event_kind_known",
            )
        ]
        ordering = ["-id"]

    def __str__(self) -> str:
        return f"{self.get_kind_display()} ({self.get_channel_display()})"


class ConsentWaiver(models.Model):
    """An admin's decision that bulk sends may go to leads without recorded consent: who, when, why, for whose leads.

    Rows stay when a waiver ends. It waives the record only: whoever opted out is never written to.
    """

    access = Access(owner="owner")

    owner = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        on_delete=models.PROTECT,
        null=True,
        blank=True,
        related_name="consent_waivers",
        help_text="Whose leads. Empty: everybody's.",
    )
    reason = models.CharField(max_length=300, help_text="On what ground these people may be written to.")
    made_at = models.DateTimeField(default=timezone.now, editable=False)
    made_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="+", null=True, editable=False
    )
    ended_at = models.DateTimeField(null=True, blank=True, editable=False)
    ended_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.PROTECT, null=True, blank=True, related_name="+", editable=False
    )

    objects = OwnedQuerySet.as_manager()

    class Meta:
        constraints = [
            # one in force per scope; NULL, which stands for everybody, counts as a scope
            models.UniqueConstraint(
                fields=["owner"], name="waiver_in_force", condition=Q(ended_at__isnull=True), nulls_distinct=False
            ),
        ]
        ordering = ["-id"]

    def __str__(self) -> str:
        return f"consent waiver {self.pk}"


class Suppression(models.Model):
    """A phone number that must not be written to, as a keyed hash: it outlives lead, device and erasure.

    One row per owner and number. ``lifted_at`` says when this owner's lead opted in again; which rows speak for whom is
    :mod:`leads.suppression`'s business.
    """

    class Reason(models.TextChoices):
        """Why."""

        OPTED_OUT = "opted_out", "Opted out"
        ERASED = "erased", "Erased"

    access = Access(owner="owner")

    owner = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="suppressions", db_index=False
    )
    key_id = models.CharField(max_length=8, help_text="Which of FLOTILLA_SUPPRESSION_KEYS made the digest.")
    digest = models.CharField(max_length=64)
    reason = models.CharField(max_length=10, choices=Reason, blank=True)
    suppressed_at = models.DateTimeField(null=True, blank=True)
    lifted_at = models.DateTimeField(null=True, blank=True)

    objects = OwnedQuerySet.as_manager()

    class Meta:
        constraints = [
            # looked up by key and digest, whoever's it is
            models.UniqueConstraint(fields=["key_id", "digest", "owner"], name="suppression_once"),
        ]
        ordering = ["-id"]

    def __str__(self) -> str:
        return f"suppression {self.pk}"


from leads.change_models import LeadChange  # noqa: E402, F401 - Django looks for models here
from leads.source_models import LeadSource, LeadSourceEvent  # noqa: E402, F401 - the same
