"""Making the calls: one process at a time for each subscriber, in the order of what happened."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from time import monotonic
from typing import Any

import structlog
from celery import current_app
from django.conf import settings
from django.db import connection, transaction
from django.db.models import Exists, F, OuterRef, Q
from django.db.models.functions import Coalesce
from django.utils import timezone
from kombu.exceptions import OperationalError

from devices import outside
from devices.access import OwnedQuerySet
from devices.gateways.http import retry_after_seconds
from messaging.outgoing.bodies import body_of
from messaging.outgoing.models import Delivery, Subscriber
from messaging.outgoing.signing import headers_for

log = structlog.get_logger(__name__)

TASK = "messaging.tell_subscriber"
AT_ONCE = 2
"""Subscribers called at the same time in the whole installation: control workers have other things to do."""
WORK_SECONDS = 5.0
"""For so long one task goes on calling; the next tick goes on after it."""
CALL_SECONDS = 10.0
LEASE = timedelta(seconds=60)
"""More than the longest task takes: WORK_SECONDS, one more call, and looking up its name."""
EVENTS_PER_CALL = 100

BACKOFF_SECONDS = (10, 60, 300, 900, 3600)
TRIES = 8
"""Calls about one event before it is a dead letter: about four hours."""
REFUSED = frozenset({400, 406, 413, 415, 422})
TRIES_REFUSED = 3
"""The same where the answer says that this very event is what is wrong."""
SWEPT_AT_ONCE = 10_000


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a call; ``status`` is None where nobody answered.

    ``rest_seconds`` is how long the answer asks not to be called (``Retry-After``), a day at most.
    """

    status: int | None
    error: str
    rest_seconds: float = 0.0

    @property
    def ok(self) -> bool:
        """Whether the other side has taken it."""
        return self.status is not None and 200 <= self.status < 300


def pass_on(*, now: datetime) -> int:
    """One tick: start a task for each subscriber that is to be called now; returns how many."""
    ids = due(now=now)
    try:
        for pk in ids:
            current_app.send_task(TASK, kwargs={"subscriber_id": pk}, ignore_result=True, retry=False)
    except (OperationalError, ConnectionError, TimeoutError) as problem:
        log.warning("outgoing.broker_unreachable", error=type(problem).__name__)
        return 0
    return len(ids)


def due(*, now: datetime) -> list[int]:
    """Ids of subscribers to call, those called longest ago first; no more than may be called at the same time."""
    leased = Subscriber.objects.filter(lease_until__gt=now).count()
    waiting = Delivery.objects.filter(subscriber=OuterRef("pk"), state=Delivery.State.WAITING)  # delivery_waiting
    able = _able(now).filter(Exists(waiting)).order_by(F("last_called_at").asc(nulls_first=True), "pk")
    return list(able.values_list("pk", flat=True)[: max(0, AT_ONCE - leased)])


def _able(now: datetime) -> OwnedQuerySet:
    free = Q(lease_until__isnull=True) | Q(lease_until__lte=now)
    rested = Q(held_until__isnull=True) | Q(held_until__lte=now)
    return Subscriber.objects.filter(free, rested, enabled=True)


def deliver(*, subscriber_id: int, clock: Callable[[], datetime] = timezone.now, seconds: float = WORK_SECONDS) -> int:
    """Call one subscriber until nothing waits, a call fails, or ``seconds`` are over; returns how many events it took.

    Harmless when doubled or late: whoever does not get the lease does nothing.
    """
    began = clock()
    lease = began + LEASE
    if not _able(began).filter(pk=subscriber_id).update(lease_until=lease):
        return 0
    told, ends = 0, monotonic() + seconds
    try:
        while (number := _call(subscriber_id, lease, clock)) and monotonic() < ends:
            told += number
        told += number
    finally:
        Subscriber.objects.filter(pk=subscriber_id, lease_until=lease).update(lease_until=None)
    return told


def _call(subscriber_id: int, lease: datetime, clock: Callable[[], datetime]) -> int:
    """One call, with all that waits or, after a failure, with the first of it; returns how many events were taken."""
    subscriber = Subscriber.objects.filter(pk=subscriber_id, lease_until=lease, enabled=True).first()
    if subscriber is None:
        return 0
    waiting = Delivery.objects.filter(subscriber=subscriber, state=Delivery.State.WAITING).order_by("pk")
    rows = list(waiting[:EVENTS_PER_CALL])
    if not rows:
        return 0
    if rows[0].attempts:  # it may be what is wrong: the others are not to fail with it
        rows = rows[:1]
    try:
        body = body_of(rows)
    except Exception:  # a row that cannot be told must not be tried every two seconds for ever
        log.exception("outgoing.not_worded", subscriber_id=subscriber_id, delivery_id=rows[0].pk)
        outcome = Outcome(None, "It could not be put into words; the log says more.")
    else:
        outcome = _post(subscriber, body, now=clock())
    return _record(subscriber, rows, outcome, lease=lease, now=clock())


def _post(subscriber: Subscriber, body: bytes, *, now: datetime) -> Outcome:
    secrets = subscriber.valid_secrets(now=now)
    if not secrets:
        return Outcome(None, "Its secret cannot be read: FLOTILLA_FIELD_KEYS has lost a key. Make a new secret.")
    headers = {
        "Content-Type": "application/json",
        "User-Agent": "flotilla",
        "Connection": "close",
        **headers_for(body=body, secrets=secrets, now=now),
    }
    try:
        place = outside.read_address(subscriber.url, allow=settings.FLOTILLA_OUTGOING_ALLOW, high_ports=True)
        if place.scheme != "https" and not place.allowed:
            return Outcome(None, "What is told names people, so it goes by https:// only.")
        answer = outside.send(outside.checked(place), body=body, headers=headers, seconds=CALL_SECONDS)
    except outside.OutsideRefused as problem:
        return Outcome(None, problem.text)
    if 200 <= answer.status < 300:
        return Outcome(answer.status, "")
    rest = retry_after_seconds(answer, default=0.0, now=now)
    return Outcome(answer.status, f"It answered with HTTP {answer.status}.", rest)


def _record(subscriber: Subscriber, rows: list[Delivery], outcome: Outcome, *, lease: datetime, now: datetime) -> int:
    """Write down what became of the call; returns how many events were taken."""
    mine = Subscriber.objects.filter(pk=subscriber.pk, lease_until=lease)
    tried = Delivery.objects.filter(
        pk__in=[row.pk for row in (rows if outcome.ok else rows[:1])], state=Delivery.State.WAITING
    )
    told = {"attempts": F("attempts") + 1, "answered": outcome.status, "error": outcome.error, "tried_at": now}
    with transaction.atomic():
        if outcome.ok:
            mine.update(failing_since=None, failures=0, last_error="", held_until=None, last_called_at=now)
            return tried.update(**told, state=Delivery.State.DELIVERED, ended_at=now)
        refused = outcome.status in REFUSED
        dead = rows[0].attempts + 1 >= (TRIES_REFUSED if refused else TRIES)
        wait = 0.0 if dead and refused else BACKOFF_SECONDS[min(subscriber.failures, len(BACKOFF_SECONDS) - 1)]
        wait = max(
            wait, outcome.rest_seconds
        )  # never less than ours: eight answers “in a second” would use up its tries
        held_until = now + timedelta(seconds=wait) if wait else None
        mine.update(
            failing_since=Coalesce("failing_since", now),
            failures=F("failures") + 1,
            last_error=outcome.error,
            held_until=held_until,
            last_called_at=now,
        )
        tried.update(**told, **({"state": Delivery.State.DEAD, "ended_at": now} if dead else {}))
        _give_up(subscriber, outcome, now=now)
    log.warning(
        "outgoing.failed", subscriber_id=subscriber.pk, delivery_id=rows[0].pk, status=outcome.status, dead=dead
    )
    return 0


def _give_up(subscriber: Subscriber, outcome: Outcome, *, now: datetime) -> None:
    """Disable whoever has failed for too long, or says that it is gone; what waits stays."""
    gone = outcome.status == 410
    hours = settings.FLOTILLA_OUTGOING_GIVE_UP_HOURS
    since = subscriber.failing_since or now
    if not gone and now - since < timedelta(hours=hours):
        return
    reason = "It said that it is gone." if gone else f"It has failed for {hours:g} hours. {outcome.error}"
    Subscriber.objects.filter(pk=subscriber.pk, enabled=True).update(
        enabled=False, disabled_reason=reason[:300], disabled_at=now, told_at=None
    )
    log.error("outgoing.disabled", subscriber_id=subscriber.pk, gone=gone)


# -- Upkeep ------------------------------------------------------------------------------------------------------------

# Indexes delivery_ended and delivery_waiting, primary key.
_SWEEP = """
DELETE FROM messaging_delivery WHERE id IN (
    SELECT id FROM messaging_delivery WHERE ended_at < %(before)s ORDER BY ended_at LIMIT %(limit)s)
"""
_SWEEP_ORPHANS = """
DELETE FROM messaging_delivery WHERE id IN (
    SELECT d.id FROM messaging_delivery d
    WHERE NOT EXISTS (SELECT FROM messaging_subscriber s WHERE s.id = d.subscriber_id) LIMIT %(limit)s)
"""
_TOO_OLD = """
UPDATE messaging_delivery SET state = 'dead', error = 'It waited for too long.', ended_at = %(now)s
WHERE id IN (SELECT id FROM messaging_delivery WHERE state = 'waiting' AND happened_at < %(before)s LIMIT %(limit)s)
"""


def sweep(*, now: datetime) -> int:
    """Forget what ended long ago, and what is nobody's; returns how many rows went. Bounded per call."""
    before = now - timedelta(days=settings.FLOTILLA_OUTGOING_KEEP_DAYS)
    asked: dict[str, Any] = {"before": before, "now": now, "limit": SWEPT_AT_ONCE}
    with connection.cursor() as cursor:
        cursor.execute(_TOO_OLD, asked)
        cursor.execute(_SWEEP, asked)
        gone = cursor.rowcount
        cursor.execute(_SWEEP_ORPHANS, asked)
        return int(gone + cursor.rowcount)
