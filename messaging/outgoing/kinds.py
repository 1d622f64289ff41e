"""What can be told."""

from __future__ import annotations

from django.db import models


class Kind(models.TextChoices):
    """Kinds of events; the part after ``message.`` is the state a message has come to."""

    MESSAGE_SENT = "message.sent", "A gateway accepted a message"
    MESSAGE_DELIVERED = "message.delivered", "A message arrived at its phone"
    MESSAGE_READ = "message.read", "A message was read"
    MESSAGE_FAILED = "message.failed", "A message failed for good"
    MESSAGE_UNKNOWN = "message.unknown", "Nobody knows whether a message arrived"
    MESSAGE_CANCELLED = "message.cancelled", "A message was cancelled"
    MESSAGE_EXPIRED = "message.expired", "A message expired"
    REPLY = "reply.received", "Somebody wrote to a device"
    RUN_FINISHED = "run.finished", "A campaign's run ended, well or badly"
    DEVICE_ATTENTION = "device.needs_attention", "A device needs a person"
    TEST = "test", "A test, by a person"


SUBSCRIBABLE = [kind for kind in Kind if kind is not Kind.TEST]
