"""Asking gateways that can be searched what became of a message. Bounded: a few at a time, one process at a time."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from time import monotonic
from typing import cast

import structlog
from django.conf import settings
from django.core.cache import cache
from django.db import connection, transaction
from django.db.models import F
from django.utils import timezone

from devices.clients import ClientRegistry, RefreshFailed, shared_registry
from devices.gateways.base import Absent, CannotSay, Found, LookedUp, SearchableClient
from messaging.models import Attempt, Message
from messaging.pacing import retry_delay_seconds
from messaging.services import wake
from messaging.settling import Asked, Move, move
from messaging.states import State

log = structlog.get_logger(__name__)

SECONDS = 10.0
"""No new question after this; what was not asked comes again by itself."""
_LOCK, _LOCK_SECONDS = "look-ups", 120


def look_up(asked: Iterable[Asked], *, clients: ClientRegistry | None = None) -> int:
    """Ask about each, one after the other, and settle what the gateway is sure of; returns how many were settled.

    The lock in the cache keeps a slow gateway from taking every thread of the control worker; should it be lost, two
    ask at once, which is harmless.
    """
    waiting = list(asked)
    if not waiting or not cache.add(_LOCK, 1, timeout=_LOCK_SECONDS):
        return 0
    try:
        started, settled = monotonic(), 0
        for each in waiting:
            if monotonic() - started > SECONDS:
                break
            settled += _settle(each, _ask(each, clients or shared_registry()))
        return settled
    finally:
        cache.delete(_LOCK)


def _ask(asked: Asked, clients: ClientRegistry) -> LookedUp:
    """What the gateway says. No transaction is open meanwhile."""
    found = (
        Attempt.objects.filter(message_id=asked.message_id)
        .order_by("-release_no")
        .values_list("reference", "device_id", "device__config_version")
        .first()
    )
    if not connection.in_atomic_block:
        connection.close()
    if found is None:
        return CannotSay("no_attempt", "There is no attempt to ask about.")
    reference, device_id, version = found
    try:
        client = cast("SearchableClient", clients.get(device_id=device_id, config_version=version))
    except RefreshFailed as problem:
        return CannotSay(problem.code, problem.text)
    try:
        return client.look_up(reference)
    except Exception as problem:
        log.exception("look_up.driver_raised", message_id=asked.message_id)
        return CannotSay("driver_error", f"The gateway driver failed: {type(problem).__name__}.")


def _settle(asked: Asked, answer: LookedUp) -> int:
    match answer:
        case Found(external_id=external_id):
            move_to = Move(asked.message_id, State.SENT, external_id=external_id or "", release_no=asked.release_no)
        case Absent() if timezone.now() - asked.since >= timedelta(seconds=settings.FLOTILLA_LOOK_UP_GRACE_SECONDS):
            move_to = _again(asked)
        case _:
            return 0
    with transaction.atomic():
        if move_to.target is State.PENDING:
            wake(Message.objects.filter(pk=asked.message_id).values_list("device_id", flat=True))
        if not move([move_to]):
            return 0  # a record or a receipt was quicker
        # Certain now: a failure later in this round is no longer in doubt because of what was asked about.
        if isinstance(answer, Absent):
            unsure = Attempt.objects.filter(message_id=asked.message_id, round=F("message__round"), outcome="unknown")
            unsure.update(outcome="not_sent")
    log.info("look_up.settled", message_id=asked.message_id, state=move_to.target.value)
    return 1


def _again(asked: Asked) -> Move:
    """Certainly not sent: another attempt of the round if there is one left, else failed."""
    delay = retry_delay_seconds(attempt=max(asked.attempts, 1), minutes=settings.FLOTILLA_RETRY_MINUTES)
    if delay is None or not asked.may_go_out:
        words = "Not sent: the gateway does not know it, and it could not be sent again."
        return Move(asked.message_id, State.FAILED, code="not_sent", text=words, release_no=asked.release_no)
    return Move(asked.message_id, State.PENDING, wait_seconds=delay, release_no=asked.release_no)
