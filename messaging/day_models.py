"""What each device did on each day: kept for charts, so that none ever counts messages."""

from __future__ import annotations

from django.db import models

from devices.access import Access, OwnedQuerySet
from devices.models import Device


class DayCount(models.Model):
    """One device's day, by the installation's clock. Written by :mod:`messaging.days`; it stays when messages go."""

    access = Access(owner="device__owner", device="device")

    COUNTED = ("sent", "delivered", "read", "failed", "replied")

    device = models.ForeignKey(Device, on_delete=models.CASCADE, related_name="day_counts", db_index=False)
    day = models.DateField()
    sent = models.PositiveIntegerField(default=0)
    delivered = models.PositiveIntegerField(default=0)
    read = models.PositiveIntegerField(default=0)
    failed = models.PositiveIntegerField(default=0)
    replied = models.PositiveIntegerField(default=0)

    objects = OwnedQuerySet.as_manager()

    class Meta:
        constraints = [
            # the chart reads the last days of all devices, so the day comes first
            models.UniqueConstraint(fields=["day", "device"], name="daycount_day_device"),
        ]
        ordering = ["day", "device"]

    def __str__(self) -> str:
        return f"{self.device} on {self.day}"


class StreamMark(models.Model):
    """How much of a stream's counters the days have taken in.

    A table of its own, so that counting days never waits for, or holds up, whoever moves a message of the stream. No
    foreign key: streams of a deleted device go in bulk, and a mark that stays behind says nothing.
    """

    access = Access(owner=None)

    stream_id = models.BigIntegerField(primary_key=True)
    sent = models.IntegerField(default=0)
    delivered = models.IntegerField(default=0)
    read = models.IntegerField(default=0)
    failed = models.IntegerField(default=0)

    objects = OwnedQuerySet.as_manager()

    def __str__(self) -> str:
        return f"mark of stream {self.pk}"


class DayCursor(models.Model):
    """How far the days have been counted: the last reply taken in, and the stream at which the walk goes on."""

    access = Access(owner=None)

    ONLY = 1

    reply_id = models.BigIntegerField(default=0)
    stream_id = models.BigIntegerField(default=0)

    objects = OwnedQuerySet.as_manager()

    def __str__(self) -> str:
        return f"days up to reply {self.reply_id}"
