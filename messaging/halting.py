"""STOP ALL, and going on."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import structlog
from django.contrib.auth.models import User
from django.db import IntegrityError, transaction
from django.db.models import Count, Sum

from messaging.models import BatchState, Halt, Stream

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Backlog:
    """What would start to move when a halt ends."""

    messages: int
    batches: int
    devices: int


def current() -> Halt | None:
    """The halt in force, if there is one."""
    return Halt.objects.filter(ended_at__isnull=True).first()


def halt(*, now: datetime, by: User | None = None, reason: str = "") -> Halt:
    """Stop every claim of the installation. Called twice, the first one stays in force."""
    try:
        with transaction.atomic():
            stopped = Halt.objects.create(started_at=now, started_by=by, reason=reason[:300])
    except IntegrityError:
        return current() or halt(now=now, by=by, reason=reason)
    log.warning("halt.started", by=by.pk if by else None)
    return stopped


def backlog() -> Backlog:
    """Counts for the question that comes before going on; from the counters of the streams."""
    sums = Stream.objects.filter(is_open=True, batch__state=BatchState.RUNNING).aggregate(
        messages=Sum("waiting"), devices=Count("device", distinct=True), batches=Count("batch", distinct=True)
    )
    return Backlog(messages=sums["messages"] or 0, batches=sums["batches"], devices=sums["devices"])


def resume(*, now: datetime, by: User | None = None) -> bool:
    """End the halt; what is due goes out by its usual rhythm. Whether there was one."""
    ended = Halt.objects.filter(ended_at__isnull=True).update(ended_at=now, ended_by=by)
    if ended:
        log.warning("halt.ended", by=by.pk if by else None)
    return bool(ended)
