"""Making two leads one: up here, because leads, messages and sequences all have a part in it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import structlog
from django.contrib.auth.models import User
from django.db import transaction

import messaging.merging
import sequences.merging
from leads import merging
from leads.changes import Channel
from leads.models import Lead
from messaging.models import InboundMessage, Message
from messaging.states import State
from sequences.models import Enrolment

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Outlook:
    """The survivor's columns as they would be, and what would come over to it."""

    columns: dict[str, Any]
    messages: int
    waiting: int
    replies: int
    enrolments: int


@dataclass(frozen=True, slots=True)
class Merged:
    """Messages that were cancelled, because the survivor is in their batch as well; enrolments that came over."""

    cancelled: int
    enrolments: int


def outlook(*, survivor: Lead, other: Lead) -> Outlook:
    """What :func:`merge` would do. Raises MergeRefused."""
    merging.check(survivor=survivor, other=other)
    messages = Message.objects.filter(lead=other)
    return Outlook(
        columns=merging.result(survivor=survivor, other=other),
        messages=messages.count(),
        waiting=messages.filter(state__in=[State.PENDING, State.QUEUED]).count(),
        replies=InboundMessage.objects.filter(lead=other).count(),
        enrolments=Enrolment.objects.filter(lead=other).count(),
    )


def merge(*, survivor: Lead, other: Lead, by: User, channel: Channel, now: datetime) -> Merged:
    """Make ``other`` part of ``survivor``, in one transaction; ``survivor`` is brought up to date. Raises MergeRefused.

    Lock order: the suppression's door, devices, leads by id, messages, streams. Where either opted out, their rows are
    locked by that before the devices; nothing is claimed for them any more, so nobody waits for them with a device.
    """
    merging.check(survivor=survivor, other=other)
    with transaction.atomic():
        merging.begin(survivor=survivor, other=other, by=by, channel=channel, now=now)
        messaging.merging.hold_devices(other=other)
        pair = {lead.pk: lead for lead in _locked(survivor.pk, other.pk)}
        if len(pair) < 2:
            raise merging.MergeRefused("gone", "One of the two has just been deleted: look again.", "other")
        kept, going = pair[survivor.pk], pair[other.pk]
        cancelled = messaging.merging.repoint(survivor=kept, other=going)
        enrolments = sequences.merging.repoint(survivor=kept, other=going)
        merging.finish(survivor=kept, other=going, by=by, channel=channel, now=now)
    log.info("lead.merged", lead_id=survivor.pk, other_id=other.pk, by=by.pk, cancelled=cancelled)
    survivor.refresh_from_db()
    return Merged(cancelled, enrolments)


def _locked(*ids: int) -> list[Lead]:
    return list(Lead.objects.select_for_update().filter(pk__in=ids).order_by("pk"))
