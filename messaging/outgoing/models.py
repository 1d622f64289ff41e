"""Who is told, and what each is told."""

from __future__ import annotations

from django.conf import settings
from django.contrib.postgres.fields import ArrayField
from django.core.exceptions import ValidationError
from django.db import models
from django.db.models import Q
from django.utils import timezone

from devices import outside
from devices.access import Access, OwnedQuerySet
from devices.rotating import RotatingSecret
from messaging.outgoing.kinds import SUBSCRIBABLE, Kind


class Subscriber(RotatingSecret):
    """An address that is told what happens to its owner's messages, devices and runs.

    While a rotation of its secret lasts, calls are signed with both. ``failing_since`` is set from a call that failed
    until one succeeds; until ``held_until`` nothing is tried. ``lease_until`` says that a process is at it.
    """

    access = Access(owner="owner")

    owner = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="subscribers")
    name = models.CharField(max_length=100)
    url = models.CharField(
        max_length=2048, verbose_name="address", help_text="Where calls go, as https://example.com/flotilla."
    )
    kinds = ArrayField(
        models.CharField(max_length=40, choices=[(kind.value, kind.label) for kind in SUBSCRIBABLE]),
        verbose_name="events",
        help_text="What it is told.",
    )
    enabled = models.BooleanField(default=True, help_text="Nothing that happens while it is disabled is told later.")
    disabled_reason = models.CharField(max_length=300, blank=True, default="", editable=False)
    disabled_at = models.DateTimeField(null=True, blank=True, editable=False, help_text="When it was given up.")
    told_at = models.DateTimeField(null=True, blank=True, editable=False, help_text="When the admins heard of that.")
    failing_since = models.DateTimeField(null=True, blank=True, editable=False)
    failures = models.PositiveIntegerField(default=0, editable=False, help_text="Calls in a row that failed.")
    last_error = models.CharField(max_length=300, blank=True, default="", editable=False)
    held_until = models.DateTimeField(null=True, blank=True, editable=False)
    lease_until = models.DateTimeField(null=True, blank=True, editable=False)
    last_called_at = models.DateTimeField(null=True, blank=True, editable=False)
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    objects = OwnedQuerySet.as_manager()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["owner", "name"], name="subscriber_owner_name")]
        ordering = ["-id"]

    def __str__(self) -> str:
        return self.name

    def clean(self) -> None:
        """Problems a person can fix, each at its field. Names are looked up when something is told, not now."""
        errors: dict[str, str] = {}
        try:
            place = outside.read_address(self.url, allow=settings.FLOTILLA_OUTGOING_ALLOW, high_ports=True)
        except outside.OutsideRefused as problem:
            errors["url"] = problem.text
        else:
            if place.scheme != "https" and not place.allowed:
                errors["url"] = "What is told names people, so it goes by https:// only."
        known = {kind.value for kind in SUBSCRIBABLE}
        if unknown := [kind for kind in self.kinds or [] if kind not in known]:
            errors["kinds"] = f"“{unknown[0]}” is not an event. There are: {', '.join(sorted(known))}."
        elif not self.kinds:
            errors["kinds"] = "Choose at least one event."
        if errors:
            raise ValidationError(errors)


class Delivery(models.Model):
    """One event for one subscriber. Written by triggers, so there is no person's data in it: a call is worded when it
    is made, from the rows as they are then.

    No foreign key holds it: a trigger's row must not lock the subscriber's. Rows of a deleted subscriber are swept.
    """

    class State(models.TextChoices):
        WAITING = "waiting", "Waiting"
        DELIVERED = "delivered", "Delivered"
        DEAD = "dead", "Dead letter"

    access = Access(owner="subscriber__owner")

    subscriber = models.ForeignKey(
        Subscriber, on_delete=models.DO_NOTHING, db_constraint=False, db_index=False, related_name="deliveries"
    )
    kind = models.CharField(max_length=40, choices=Kind)
    subject = models.BigIntegerField(help_text="Id of the message, reply, run or device.")
    data = models.JSONField(default=dict, help_text="What its row will not tell any more when the call is made.")
    happened_at = models.DateTimeField()
    state = models.CharField(max_length=9, choices=State, default=State.WAITING, db_default=State.WAITING)
    attempts = models.PositiveSmallIntegerField(default=0, db_default=0)
    answered = models.PositiveSmallIntegerField(null=True, blank=True, help_text="HTTP status of the last answer.")
    error = models.CharField(max_length=300, blank=True, default="", db_default="")
    tried_at = models.DateTimeField(null=True, blank=True)
    ended_at = models.DateTimeField(null=True, blank=True, help_text="When it was delivered or given up.")

    objects = OwnedQuerySet.as_manager()

    class Meta:
        constraints = [
            models.CheckConstraint(condition=Q(state__in=["waiting", "delivered", "dead"]), name="delivery_state_known")
        ]
        indexes = [
            # what a subscriber is to be told next, in order, and who has anything waiting
            models.Index(fields=["subscriber", "id"], name="delivery_waiting", condition=Q(state="waiting")),
            # a subscriber's dead letters
            models.Index(fields=["subscriber", "id"], name="delivery_dead", condition=Q(state="dead")),
            # a subscriber's list, newest first
            models.Index(fields=["subscriber", "-id"], name="delivery_subscriber"),
            # what is old enough to forget
            models.Index(fields=["ended_at"], name="delivery_ended", condition=Q(ended_at__isnull=False)),
        ]
        ordering = ["-id"]
        verbose_name_plural = "deliveries"

    def __str__(self) -> str:
        return f"#{self.pk} {self.kind}"
