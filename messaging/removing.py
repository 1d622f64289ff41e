"""What hangs on a device and on a lead up here: counted before either is deleted, and removed with a device."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from django.db import connection
from django.db.models import Sum

from devices.models import Device
from leads.models import Lead
from messaging.models import Batch, BatchState, InboundMessage, Message, Priority, Stream
from messaging.states import State


@dataclass(frozen=True, slots=True)
class Holds:
    """Messages (how many of them have not left), and replies."""

    messages: int
    waiting: int
    replies: int


class RemovalRefused(Exception):  # noqa: N818 - reads as a fact
    """A device that cannot go now, with what to do; ``field`` names what to change."""

    def __init__(self, code: str, text: str, field: str = "") -> None:
        super().__init__(text)
        self.code = code
        self.text = text
        self.field = field


def of_device(device: Device) -> Holds:
    """From the streams' counters: a message belongs to the device it stands at."""
    sums = Stream.objects.filter(device=device).aggregate(messages=Sum("total"), waiting=Sum("waiting"))
    replies = InboundMessage.objects.filter(device=device).count()
    return Holds(sums["messages"] or 0, sums["waiting"] or 0, replies)


def of_lead(lead: Lead) -> Holds:
    """They stay when the lead goes; what waits then fails, since nobody is left to write to."""
    messages = Message.objects.filter(lead=lead)
    waiting = messages.filter(state__in=[State.PENDING, State.QUEUED]).count()
    return Holds(messages.count(), waiting, InboundMessage.objects.filter(lead=lead).count())


# Index message_batch_phone, batch by batch; attempts by attempt_message_release and attempt_device_started. An attempt
# of this device at a message that has moved on since goes as well: it names an account that is no more.
_ATTEMPTS = "DELETE FROM messaging_attempt WHERE device_id = %(device)s"
_ATTEMPTS_OF_MESSAGES = """
DELETE FROM messaging_attempt a USING messaging_stream s, messaging_message m
WHERE s.device_id = %(device)s AND m.batch_id = s.batch_id AND m.stream_id = s.id AND a.message_id = m.id
"""
_MESSAGES = """
DELETE FROM messaging_message m USING messaging_stream s
WHERE s.device_id = %(device)s AND m.batch_id = s.batch_id AND m.stream_id = s.id
"""
_STREAMS = "DELETE FROM messaging_stream WHERE device_id = %(device)s RETURNING batch_id"


def remove(*, device: Device) -> None:
    """Delete the device's messages with their attempts and counters; batches of a single message go with it, others
    keep what other devices had of them.

    Call it in a transaction that has locked the device and the leads in question: nothing is released or claimed for it
    any more. Raises :class:`RemovalRefused` while something is at the gateway or a run is being prepared.
    """
    if Message.objects.filter(device=device, state=State.SENDING).exists():
        text = "Something is being sent through it at this moment: pause it, and try again in a minute."
        raise RemovalRefused("in_flight", text)
    if Batch.objects.filter(streams__device=device, filled_at__isnull=True, state=BatchState.RUNNING).exists():
        raise RemovalRefused("in_preparation", "A run over this device is being prepared: try again when it is.")
    values: dict[str, Any] = {"device": device.pk}
    with connection.cursor() as cursor:
        for statement in (_ATTEMPTS, _ATTEMPTS_OF_MESSAGES, _MESSAGES):
            cursor.execute(statement, values)
        cursor.execute(_STREAMS, values)
        batches = [row[0] for row in cursor.fetchall()]
    single = Batch.objects.filter(priority=Priority.INTERACTIVE, streams__isnull=True)
    for start in range(0, len(batches), 1000):
        single.filter(pk__in=batches[start : start + 1000]).delete()
