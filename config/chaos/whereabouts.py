"""Where an overdue message stands, asked while it is overdue: afterwards nobody knows any more."""

from __future__ import annotations

from typing import Final

import redis
from django.conf import settings

from config.chaos import gather as calm
from config.chaos.away import Away, ask
from config.chaos.evidence import Stuck
from config.chaos.gather import overdue
from config.chaos.incidents import Log
from messaging.models import Message
from messaging.transport.names import READY_SUFFIX, WHERE_KEY

PATIENCE_SECONDS: Final = 180.0
"""How long a message may hold its lane while harm is being done: a broker that forgets everything twice a minute and
workers that are shot as often make it wait in line again and again. Once there is calm, it may much less."""


class OverdueWatch:
    """Looks for messages that hold a lane for too long during the harm, and tells where each was found."""

    def __init__(self, *, log: Log) -> None:
        self._log = log
        self._stuck: dict[int | None, Stuck] = {}
        self._told: set[int | None] = set()

    @property
    def stuck(self) -> list[Stuck]:
        """All that were found so far."""
        return list(self._stuck.values())

    def look(self) -> None:
        """Look once. A database that is away is asked again the next time."""
        try:
            slow = ask(lambda: overdue(patience=calm.PATIENCE_SECONDS))
            late = ask(lambda: overdue(patience=PATIENCE_SECONDS)) if slow else []
        except Away:
            return
        for item in slow:
            if item.message not in self._told:
                self._told.add(item.message)
                self._log.tell(f"overdue: {_words(item)}")
        self._stuck.update({item.message: item for item in late})


def _words(item: Stuck) -> str:
    number = item.message
    try:
        return item.what if number is None else ask(lambda: whereabouts(number))
    except (Away, Message.DoesNotExist):
        return item.what


def whereabouts(message_id: int) -> str:
    """One line: the row, its device and batch, and what the broker holds of the device's queue."""
    message = Message.objects.select_related("device", "batch").get(pk=message_id)
    device, batch = message.device, message.batch
    row = f"message {message.pk} {message.state}, queued at {message.queued_at:%X}, due at {message.due_at:%X}"
    owner = f"device {device.pk} {device.state} with {device.lanes} lanes, batch {batch.pk} {batch.state}"
    return f"{row}; {owner}; {_at_broker(f'device.{device.pk}')}"


def _at_broker(queue: str) -> str:
    try:
        with redis.Redis.from_url(settings.CELERY_BROKER_URL, socket_timeout=2) as client:
            bell = client.hget(WHERE_KEY, queue)
            ready = bell.decode() + READY_SUFFIX if bell else ""
            rank = client.zrank(ready, queue) if ready else None
            length = f"{client.zcard(ready)} ready there" if ready else "nowhere ready"
            return f"{client.llen(queue)} tasks in its queue, rung at {ready or 'nothing'}, rank {rank} of {length}"
    except (redis.RedisError, OSError):
        return "the broker is away"
