"""The SQL of the corridor. Every statement that moves a message is conditional on the state it moves it from.

Lock order everywhere: device → lead → message → stream. ``flotilla_now()`` is ``now()`` (plus an offset that only tests
set). The partial indexes named in comments are declared on the models.
"""

from __future__ import annotations

from messaging.dispatch.statements.reconnect import (
    HOLD_NEW_CONTACTS,
    INCIDENT_BEGAN,
    INCIDENT_ENDED,
    NOT_REFRESHED,
    PARDON,
    RECONNECT_FAILED,
    REFRESHED,
    REFRESHES_ASKED,
)
from messaging.dispatch.statements.release import (
    DUE_DEVICES,
    LAZILY,
    RELEASE,
    RELEASE_NEXT,
    RELEASE_TEMPLATE,
    SET_WAKE,
    SET_WAKE_OF,
    SET_WAKE_TEMPLATE,
    THIS_DEVICE,
)
from messaging.dispatch.statements.send import (
    CLAIM_FREE,
    CLAIM_PACED,
    END_UNSENT,
    GIVE_BACK,
    IN_DOUBT,
    LOCK_DEVICE,
    PEEK,
    PEEK_RELEASED,
    PEEK_TEMPLATE,
    RECORD,
    WHY_NOT,
)
from messaging.dispatch.statements.upkeep import (
    END_REST,
    EXPIRE_LEASES,
    HOLD_DEVICE,
    NEEDS_ATTENTION,
    REOPEN_BATCHES,
    REST_GATEWAY,
    UNCLAIMED,
    UNSTICK,
    WAKE_SLEEPERS,
)

__all__ = [
    "CLAIM_FREE",
    "CLAIM_PACED",
    "DUE_DEVICES",
    "END_REST",
    "END_UNSENT",
    "EXPIRE_LEASES",
    "GIVE_BACK",
    "HOLD_DEVICE",
    "HOLD_NEW_CONTACTS",
    "INCIDENT_BEGAN",
    "INCIDENT_ENDED",
    "IN_DOUBT",
    "LAZILY",
    "LOCK_DEVICE",
    "NEEDS_ATTENTION",
    "NOT_REFRESHED",
    "PARDON",
    "PEEK",
    "PEEK_RELEASED",
    "PEEK_TEMPLATE",
    "RECONNECT_FAILED",
    "RECORD",
    "REFRESHED",
    "REFRESHES_ASKED",
    "RELEASE",
    "RELEASE_NEXT",
    "RELEASE_TEMPLATE",
    "REOPEN_BATCHES",
    "REST_GATEWAY",
    "SET_WAKE",
    "SET_WAKE_OF",
    "SET_WAKE_TEMPLATE",
    "THIS_DEVICE",
    "UNCLAIMED",
    "UNSTICK",
    "WAKE_SLEEPERS",
    "WHY_NOT",
]
