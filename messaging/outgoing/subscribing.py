"""What people do with subscribers: try them out, call them again, tell something again."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

import structlog
from django.db import transaction

from messaging.outgoing.kinds import Kind
from messaging.outgoing.models import Delivery, Subscriber

log = structlog.get_logger(__name__)

REPLAYED_AT_ONCE = 10_000


def resume(*, subscriber: Subscriber) -> None:
    """Call it again, at once: what waits is told. Also for one that was given up."""
    Subscriber.objects.filter(pk=subscriber.pk).update(
        enabled=True,
        disabled_reason="",
        disabled_at=None,
        failing_since=None,
        failures=0,
        held_until=None,
        last_error="",
    )
    log.info("outgoing.resumed", subscriber_id=subscriber.pk)


def test(*, subscriber: Subscriber, now: datetime) -> Delivery:
    """Tell it that this is a test, after whatever waits."""
    return Delivery.objects.create(subscriber=subscriber, kind=Kind.TEST, subject=0, happened_at=now)


def replay(*, subscriber: Subscriber, deliveries: Iterable[int] | None = None, since: datetime | None = None) -> int:
    """Tell again: the dead letters, or what is named, delivered or not, or all that happened ``since``.

    Returns how many; 10,000 at most, the oldest first. They come before whatever happened later.
    """
    ended = Delivery.objects.filter(subscriber=subscriber).exclude(state=Delivery.State.WAITING).order_by("pk")
    if deliveries is not None:
        ended = ended.filter(pk__in=list(deliveries))
    elif since is None:
        ended = ended.filter(state=Delivery.State.DEAD)
    if since is not None:
        ended = ended.filter(happened_at__gte=since)
    ids = list(ended.values_list("pk", flat=True)[:REPLAYED_AT_ONCE])
    with transaction.atomic():
        number = Delivery.objects.filter(pk__in=ids).update(
            state=Delivery.State.WAITING, attempts=0, error="", answered=None, ended_at=None
        )
        Subscriber.objects.filter(pk=subscriber.pk).update(held_until=None)
    log.info("outgoing.replayed", subscriber_id=subscriber.pk, deliveries=number)
    return number
