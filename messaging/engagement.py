"""What segments may ask about sending and replying (:mod:`leads.engagement`), answered from messages and replies.

Nothing is written for it: sending and recording stay as they are. Indexes: ``message_lead_sent`` (lead, sent_at) and
``inbound_lead_received`` (lead, received_at), which PostgreSQL reads alone, without the wide rows. Every foreign key's
index must be kept up to date on each change of a message anyway; these two are those of ``lead``, one column longer.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from django.db.models import Exists, OuterRef, Q

from leads import engagement
from messaging.models import InboundMessage, Message


def reached(value: bool) -> Q:
    """Whether any message to them was ever accepted, whatever became of it later."""
    accepted = _accepted()
    return Q(accepted) if value else ~Q(accepted)


def sent_since(value: datetime) -> Q:
    """A message to them was accepted at that time or later."""
    return Q(_accepted(sent_at__gte=value))


def not_sent_since(value: datetime) -> Q:
    """None was."""
    return ~Q(_accepted(sent_at__gte=value))


def replied_since(value: datetime) -> Q:
    """They wrote at that time or later, by our clock."""
    return Q(Exists(InboundMessage.objects.filter(lead=OuterRef("pk"), received_at__gte=value)))


def register() -> None:
    """Fill in the conditions; called once, when the app is ready."""
    for condition in (reached, sent_since, not_sent_since, replied_since):
        engagement.register(rule=condition.__name__, condition=condition)


def _accepted(**more: Any) -> Exists:
    return Exists(Message.objects.filter(lead=OuterRef("pk"), **(more or {"sent_at__isnull": False})))
