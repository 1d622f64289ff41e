"""What goes out: batches, their streams (one per device), messages and attempts.

PostgreSQL is the queue. A row here is the truth; whatever Redis or a worker remembers may be lost or doubled and
nothing happens.
"""

from __future__ import annotations

import uuid

from django.conf import settings
from django.db import models
from django.db.models import F, Q
from django.db.models.functions import Now
from django.utils import timezone

from devices.access import Access, OwnedQuerySet
from devices.models import Device
from leads.models import Lead
from messaging.states import IN_FLIGHT, State

MESSAGE_STATES = [(state.value, state.value.capitalize()) for state in State]


class Priority(models.IntegerChoices):
    """Lower goes first: a reply to a person never waits behind a campaign."""

    INTERACTIVE = 0, "Interactive"
    BULK = 5, "Bulk"


class BatchState(models.TextChoices):
    """Only RUNNING batches are released from; pausing one is one row."""

    RUNNING = "running", "Running"
    PAUSED = "paused", "Paused"
    FINISHED = "finished", "Finished"
    FAILED = "failed", "Failed"
    CANCELLED = "cancelled", "Cancelled"


class Batch(models.Model):
    """The messages one campaign run, one sequence step or one single send produced: content, pacing, exit rules."""

    access = Access(owner="owner")

    owner = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="batches")
    name = models.CharField(max_length=200)
    origin = models.CharField(
        max_length=80,
        unique=True,
        null=True,
        blank=True,
        help_text="Key of whatever asked for this batch; a second request finds the first.",
    )
    state = models.CharField(max_length=10, choices=BatchState, default=BatchState.RUNNING)
    reason = models.CharField(max_length=300, blank=True)
    priority = models.PositiveSmallIntegerField(choices=Priority, default=Priority.BULK)
    content = models.JSONField(help_text='{"type": "text", "text": "Hello {{ name }}"}')
    delay_min_seconds = models.FloatField(default=0)
    delay_max_seconds = models.FloatField(default=0)
    failover = models.BooleanField(default=False, help_text="Whether a message may move to another device of the pool.")
    confirms_opt_out = models.BooleanField(
        default=False,
        db_default=False,
        editable=False,
        help_text="The one message that somebody who opted out still gets: that it was understood.",
    )
    fill_cursor = models.BigIntegerField(default=0, editable=False, help_text="Last lead id the fan-out has handled.")
    filled_at = models.DateTimeField(null=True, blank=True, help_text="When the fan-out was complete.")
    expires_at = models.DateTimeField(help_text="Unsent messages expire then.")
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    finished_at = models.DateTimeField(null=True, blank=True)
    request_id = models.CharField(
        max_length=64, blank=True, db_default="", editable=False, help_text="The request that asked for it in the logs."
    )
    squared_at = models.DateTimeField(
        null=True, blank=True, editable=False, help_text="When its counters were last compared with its messages."
    )
    emptying_at = models.DateTimeField(
        null=True, blank=True, editable=False, help_text="Since when its old messages are removed; its counters stay."
    )
    emptied_at = models.DateTimeField(null=True, blank=True, editable=False, help_text="When they were all gone.")

    objects = OwnedQuerySet.as_manager()

    class Meta:
        constraints = [models.CheckConstraint(condition=Q(state__in=BatchState.values), name="batch_state_known")]
        indexes = [
            # finish and expire ticks
            models.Index(fields=["id"], name="batch_live", condition=Q(state__in=["running", "paused"])),
            # squaring: what has ended since its counters were last compared
            models.Index(
                fields=["id"],
                name="batch_unsquared",
                condition=Q(finished_at__isnull=False)
                & (Q(squared_at__isnull=True) | Q(squared_at__lt=F("finished_at"))),
            ),
            # retention: what ended long ago and still has its messages
            models.Index(
                fields=["finished_at"],
                name="batch_unemptied",
                condition=Q(finished_at__isnull=False, emptied_at__isnull=True),
            ),
        ]
        ordering = ["-id"]
        verbose_name_plural = "batches"

    def __str__(self) -> str:
        return self.name


class Stream(models.Model):
    """One batch on one device: the row that holds the counters, so that no report ever counts messages.

    ``waiting`` counts pending, queued and sending; ``sent`` counts sent, delivered and read; ``delivered`` those whose
    phone has it, read or not; ``presumed`` those of ``unknown`` that count as sent by now. ``is_open`` says that
    ``waiting`` is above zero: it changes once or twice in a stream's life, so the partial index on it keeps every
    counter update HOT.
    """

    access = Access(owner="batch__owner", device="device")

    COUNTERS = ("waiting", "sent", "delivered", "read", "failed", "cancelled", "expired", "unknown", "presumed")

    batch = models.ForeignKey(Batch, on_delete=models.CASCADE, related_name="streams")
    device = models.ForeignKey(Device, on_delete=models.PROTECT, related_name="streams", db_index=False)
    priority = models.PositiveSmallIntegerField(default=Priority.BULK)
    is_open = models.BooleanField(default=False)
    served_at = models.DateTimeField(default=timezone.now, help_text="Last release: batches on one device take turns.")
    total = models.PositiveIntegerField(default=0)
    waiting = models.IntegerField(default=0)
    sent = models.IntegerField(default=0)
    delivered = models.IntegerField(default=0)
    read = models.IntegerField(default=0)
    failed = models.IntegerField(default=0)
    cancelled = models.IntegerField(default=0)
    expired = models.IntegerField(default=0)
    unknown = models.IntegerField(default=0)
    presumed = models.IntegerField(default=0, db_default=0)

    objects = OwnedQuerySet.as_manager()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["batch", "device"], name="stream_batch_device")]
        indexes = [
            # release, statement 2: a device's streams that still have something waiting
            models.Index(fields=["device"], name="stream_open_by_device", condition=Q(is_open=True)),
            # finish tick: has this batch anything left?
            models.Index(fields=["batch"], name="stream_open_by_batch", condition=Q(is_open=True)),
            # finish tick: is the outcome of anything in this batch still open? Rows come and go only with unknowns, so
            # that what is sent leaves this index alone
            models.Index(fields=["batch"], name="stream_unsure_by_batch", condition=Q(unknown__gt=F("presumed"))),
        ]

    def __str__(self) -> str:
        return f"{self.batch} on {self.device}"


class Message(models.Model):
    """One outbound row for one lead. Its state is moved by ``messaging.dispatch`` and ``messaging.services`` only."""

    access = Access(owner="batch__owner", device="device")

    uid = models.UUIDField(default=uuid.uuid4, db_default=models.Func(function="gen_random_uuid"), editable=False)
    batch = models.ForeignKey(Batch, on_delete=models.CASCADE, related_name="messages", db_index=False)
    stream = models.ForeignKey(Stream, on_delete=models.CASCADE, related_name="messages", db_index=False)
    device = models.ForeignKey(Device, on_delete=models.PROTECT, related_name="messages", db_index=False)
    lead = models.ForeignKey(
        Lead, on_delete=models.SET_NULL, null=True, blank=True, related_name="messages", db_index=False
    )
    phone = models.CharField(max_length=20)
    state = models.CharField(max_length=9, choices=MESSAGE_STATES, default=State.PENDING, db_default=State.PENDING)
    due_at = models.DateTimeField(
        default=timezone.now,
        help_text="When it is next to be sent or, if its outcome is unknown, to be settled.",
    )
    reply_no = models.IntegerField(
        null=True,
        blank=True,
        editable=False,
        help_text="Goes out only while its lead has written this often; empty: however often. -1: withdrawn.",
    )
    lane = models.PositiveSmallIntegerField(null=True, blank=True, editable=False)
    release_no = models.PositiveIntegerField(default=0, db_default=0, editable=False)
    attempts = models.PositiveSmallIntegerField(default=0, db_default=0)
    round = models.PositiveSmallIntegerField(default=1, db_default=1)
    queued_at = models.DateTimeField(null=True, blank=True)
    lease_until = models.DateTimeField(null=True, blank=True, editable=False)
    sent_at = models.DateTimeField(null=True, blank=True)
    delivered_at = models.DateTimeField(null=True, blank=True)
    read_at = models.DateTimeField(null=True, blank=True)
    failed_at = models.DateTimeField(
        null=True, blank=True, editable=False, help_text="When it was noticed as failed: within a minute."
    )
    archived_at = models.DateTimeField(null=True, blank=True, editable=False)
    presumed_at = models.DateTimeField(
        null=True, blank=True, help_text="Since when an unknown outcome counts as sent, because nobody knows better."
    )
    external_id = models.CharField(max_length=120, blank=True, default="", db_default="")
    error_code = models.CharField(max_length=60, blank=True, default="", db_default="")
    error_text = models.CharField(max_length=300, blank=True, default="", db_default="")
    created_at = models.DateTimeField(db_default=Now(), editable=False)

    objects = OwnedQuerySet.as_manager()

    class Meta:
        constraints = [
            # once per person and batch
            models.UniqueConstraint(fields=["batch", "phone"], name="message_batch_phone"),
            # one in flight per device and lane: a constraint, not a hope; the recovery walks it too, since it holds no
            # more rows than the fleet has lanes
            models.UniqueConstraint(
                fields=["device", "lane"], name="message_one_in_flight", condition=Q(state__in=sorted(IN_FLIGHT))
            ),
            models.CheckConstraint(condition=Q(state__in=[s.value for s in State]), name="message_state_known"),
            models.CheckConstraint(
                condition=~Q(state__in=sorted(IN_FLIGHT)) | Q(lane__isnull=False), name="message_in_flight_has_lane"
            ),
        ]
        indexes = [
            # a lead's messages, and whom any message reached since when (messaging.engagement), from the index alone
            models.Index(fields=["lead", "sent_at"], name="message_lead_sent"),
            # release, statement 2: a stream's next message
            models.Index(fields=["stream", "due_at", "id"], name="message_next", condition=Q(state=State.PENDING)),
            # failover: what its device failed to send twice
            models.Index(fields=["due_at"], name="message_tired", condition=Q(state=State.PENDING, attempts__gte=2)),
            # what has failed: not noticed yet (NULL), since the last digest, long enough ago for the archive
            models.Index(
                fields=["failed_at"],
                name="message_failed",
                condition=Q(state=State.FAILED, archived_at__isnull=True),
            ),
            # what is held because its lead lacks a value
            models.Index(
                fields=["id"], name="message_held", condition=Q(state=State.PENDING, error_code="missing_value")
            ),
            # the lists of what failed and of what nobody knows
            models.Index(fields=["state", "id"], name="message_troubled", condition=Q(state__in=["failed", "unknown"])),
            # settling tick: unknown outcomes that something is to be done about now
            models.Index(
                fields=["due_at"],
                name="message_unsettled",
                condition=Q(state=State.UNKNOWN, presumed_at__isnull=True),
            ),
            # receipts: which message is this, where the gateway names it by its own id only
            models.Index(fields=["external_id"], name="message_external_id", condition=~Q(external_id="")),
        ]
        ordering = ["-id"]

    def __str__(self) -> str:
        return f"#{self.pk} to {self.phone}"


class Attempt(models.Model):
    """One call to a gateway: what was said, through which device, and what came of it.

    Written by the claim, before any byte leaves; ``outcome`` is empty until the record.
    """

    access = Access(owner="message__batch__owner", device="device")

    message = models.ForeignKey(Message, on_delete=models.CASCADE, related_name="attempt_set", db_index=False)
    device = models.ForeignKey(Device, on_delete=models.PROTECT, related_name="attempts", db_index=False)
    release_no = models.PositiveIntegerField()
    number = models.PositiveSmallIntegerField(help_text="Counts within a round, from 1.")
    round = models.PositiveSmallIntegerField(default=1)
    reference = models.CharField(
        max_length=64, help_text="Our id at the gateway, the same for every attempt of a round."
    )
    text = models.TextField(blank=True, help_text="As rendered for this attempt.")
    started_at = models.DateTimeField()
    finished_at = models.DateTimeField(null=True, blank=True)
    outcome = models.CharField(max_length=12, blank=True, default="", db_default="")
    external_id = models.CharField(max_length=120, blank=True, default="", db_default="")
    error_code = models.CharField(max_length=60, blank=True, default="", db_default="")
    error_text = models.CharField(max_length=300, blank=True, default="", db_default="")

    objects = OwnedQuerySet.as_manager()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["message", "release_no"], name="attempt_message_release")]
        indexes = [
            # claim: how many did this device send in the last hour and day?
            models.Index(fields=["device", "started_at"], name="attempt_device_started"),
            # how many devices were banned lately?
            models.Index(fields=["started_at"], name="attempt_banned", condition=Q(outcome="banned")),
        ]
        ordering = ["message", "release_no"]

    def __str__(self) -> str:
        return f"attempt {self.number} of {self.message}"


class WaitingReceipt(models.Model):
    """News about a message that could not be applied yet: its record is still to come, or nobody learned its id.

    Tried again at ``try_at``, more and more rarely, and dropped when it is old.
    """

    access = Access(owner="device__owner", device="device")

    gateway = models.CharField(max_length=32)
    event_id = models.CharField(max_length=120)
    device = models.ForeignKey(Device, on_delete=models.CASCADE, null=True, blank=True, related_name="+")
    reference = models.CharField(max_length=120, blank=True, default="")
    external_id = models.CharField(max_length=120, blank=True, default="")
    status = models.CharField(max_length=9)
    at = models.DateTimeField()
    code = models.CharField(max_length=60, blank=True, default="")
    text = models.CharField(max_length=300, blank=True, default="")
    received_at = models.DateTimeField()
    try_at = models.DateTimeField()

    objects = OwnedQuerySet.as_manager()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["gateway", "event_id"], name="waiting_receipt_event")]
        indexes = [
            # matching tick: what is to be tried now
            models.Index(fields=["try_at"], name="waiting_receipt_try_at"),
        ]
        ordering = ["-id"]

    def __str__(self) -> str:
        return f"{self.status} of {self.reference or self.external_id}"


class InboundMessage(models.Model):
    """What somebody wrote to a device. Belongs to the lead of the device's owner with that number, if there is one."""

    access = Access(owner="device__owner", device="device")

    gateway = models.CharField(max_length=32)
    event_id = models.CharField(max_length=120)
    device = models.ForeignKey(Device, on_delete=models.CASCADE, null=True, blank=True, related_name="inbound")
    lead = models.ForeignKey(
        Lead, on_delete=models.SET_NULL, null=True, blank=True, related_name="replies", db_index=False
    )
    phone = models.CharField(max_length=20)
    text = models.TextField()
    external_id = models.CharField(max_length=120, blank=True, default="")
    written_at = models.DateTimeField(help_text="By the gateway's clock.")
    received_at = models.DateTimeField()

    objects = OwnedQuerySet.as_manager()

    class Meta:
        constraints = [
            # the same event told twice is one reply
            models.UniqueConstraint(fields=["gateway", "event_id"], name="inbound_event"),
        ]
        indexes = [
            # a lead's replies, and who has written since when (messaging.engagement)
            models.Index(fields=["lead", "received_at"], name="inbound_lead_received"),
        ]
        ordering = ["-id"]

    def __str__(self) -> str:
        return f"from {self.phone}"


class Halt(models.Model):
    """STOP ALL: while a halt has no end, nothing is released and no claim succeeds. Rows stay: who, when and why.

    It survives restarts because it is a row, and it acts at once because every claim looks at it.
    """

    access = Access(owner="started_by")

    scope = models.CharField(max_length=8, default="all", editable=False)
    reason = models.CharField(max_length=300, blank=True)
    started_at = models.DateTimeField()
    started_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.SET_NULL, null=True, blank=True, related_name="+"
    )
    ended_at = models.DateTimeField(null=True, blank=True)
    ended_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.SET_NULL, null=True, blank=True, related_name="+"
    )

    objects = OwnedQuerySet.as_manager()

    class Meta:
        constraints = [
            # one at a time; claim and release look it up by this index
            models.UniqueConstraint(fields=["scope"], name="halt_in_force", condition=Q(ended_at__isnull=True)),
        ]
        ordering = ["-id"]

    def __str__(self) -> str:
        return f"halt of {self.started_at:%Y-%m-%d %H:%M:%S}"


from messaging.day_models import DayCount, DayCursor, StreamMark  # noqa: E402, F401 - found here
from messaging.keep_models import RetentionMark  # noqa: E402, F401 - found here
from messaging.media.models import MediaFile  # noqa: E402, F401 - Django looks for models here
from messaging.outgoing.models import Delivery, Subscriber  # noqa: E402, F401 - found here
from messaging.worker_models import Pulse, WorkerProcess  # noqa: E402, F401 - found here
