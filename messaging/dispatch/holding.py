"""Messages held because their lead lacks a value, by their author's choice. Each waits alone, visibly, with the reason.

A held message is pending with the code :data:`MISSING`. It goes on when its lead is changed, when a person asks for
it, and once a day in any case; its batch's expiry ends the waiting.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from django.db import connection, transaction

from messaging.dispatch.prepared import Statement
from messaging.models import Message
from messaging.states import State
from messaging.waking import wake

MISSING = "missing_value"
"""Spelled out in the statements below, and in the index message_held."""

AGAIN_SECONDS = 86_400.0
LIMIT = 10_000
"""Most messages that one call sets free."""

# As a snooze, with the reason. Its lead may have been changed since it was released (queued_at): FREE sees that.
HOLD = Statement(
    "hold_message",
    """
WITH device AS (
    SELECT id, greatest(flotilla_now(), next_send_at, held_until) AS able_at FROM devices_device
    WHERE id = %(device)s FOR NO KEY UPDATE
), back AS (
    UPDATE messaging_message m
    SET state = 'pending', due_at = flotilla_now() + make_interval(secs => %(wait_seconds)s),
        error_code = 'missing_value', error_text = %(reason)s
    FROM device
    WHERE m.id = %(message)s AND m.release_no = %(release_no)s AND m.state = 'queued'
    RETURNING m.device_id
)
UPDATE devices_device d SET wake_at = least(d.wake_at, device.able_at)
FROM back JOIN device ON device.id = back.device_id
WHERE d.id = back.device_id
RETURNING d.id
""",
)

# Index message_held. Locks nothing: whoever moves in between is left alone by _FREE.
_CHANGED = """
SELECT m.id, m.device_id FROM messaging_message m JOIN leads_lead l ON l.id = m.lead_id
WHERE m.state = 'pending' AND m.error_code = 'missing_value' AND l.updated_at >= m.queued_at
ORDER BY m.id LIMIT %s
"""
_FREE = """
UPDATE messaging_message SET due_at = least(due_at, flotilla_now()), error_code = '', error_text = ''
WHERE id = ANY(%s) AND state = 'pending' AND error_code = 'missing_value'
"""


def free_changed() -> int:
    """Set free what waits for a lead that was changed since; returns how many. Safe to run anywhere at once."""
    with connection.cursor() as cursor:
        cursor.execute(_CHANGED, [LIMIT])
        return _free(cursor.fetchall())


def try_again(*, message_ids: Iterable[int]) -> int:
    """Set free the held ones among these, whatever their leads say; returns how many."""
    held = Message.objects.filter(pk__in=list(message_ids), state=State.PENDING, error_code=MISSING)
    return _free(list(held.order_by("pk").values_list("pk", "device_id")[:LIMIT]))


def _free(found: Sequence[tuple[int, int]]) -> int:
    if not found:
        return 0
    with transaction.atomic(), connection.cursor() as cursor:
        wake({device_id for _, device_id in found})  # the devices' locks before the messages'
        cursor.execute(_FREE, [[message_id for message_id, _ in found]])
        return cursor.rowcount
