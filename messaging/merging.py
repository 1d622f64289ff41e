"""Two leads become one: what their messages and replies make of it."""

from __future__ import annotations

from typing import Any

from django.db import connection

from leads.models import Lead
from messaging.dispatch.statements import IN_DOUBT
from messaging.models import InboundMessage, Message
from messaging.states import State
from messaging.waking import wake

# What the survivor gets from the same batch anyway is not sent a second time. In doubt, it ends as unknown.
_DROP = f"""
WITH ended AS (
    UPDATE messaging_message m
    SET state = CASE WHEN {IN_DOUBT} THEN 'unknown' ELSE 'cancelled' END, error_code = 'merged',
        error_text = 'Merged with a lead that is in the same batch.'
    WHERE m.lead_id = %(other)s AND m.state IN ('pending', 'queued')
      AND EXISTS (SELECT FROM messaging_message o WHERE o.batch_id = m.batch_id AND o.phone = %(phone)s)
    RETURNING m.stream_id, m.state
), counts AS (
    SELECT stream_id, count(*) AS n, count(*) FILTER (WHERE state = 'unknown') AS doubted FROM ended GROUP BY stream_id
), counted AS (
    UPDATE messaging_stream s
    SET waiting = s.waiting - n, cancelled = s.cancelled + n - doubted, unknown = s.unknown + doubted,
        is_open = s.waiting - n > 0
    FROM counts WHERE s.id = counts.stream_id
)
SELECT coalesce(sum(n), 0) FROM counts
"""  # noqa: S608 - a condition of ours

# What no attempt was made for goes to the number that stays; the rest keeps the number it was tried with.
_READDRESS = """
UPDATE messaging_message SET phone = %(phone)s
WHERE lead_id = %(other)s AND state = 'pending' AND attempts = 0
"""

# From here on the two have written together as often as each of them. What was bound to the number of one's replies,
# and was not outrun by one, is bound to that; what was, stays below it.
_BIND = """
UPDATE messaging_message m SET reply_no = %(together)s
FROM leads_lead l
WHERE l.id = m.lead_id AND m.lead_id IN (%(survivor)s, %(other)s) AND m.reply_no = l.times_replied
  AND m.state IN ('pending', 'queued', 'sending', 'unknown', 'failed')
"""


def hold_devices(*, other: Lead) -> None:
    """Lock the devices that something waits at for ``other``, before its row: device → lead → message → stream."""
    waiting = Message.objects.filter(lead=other, state__in=[State.PENDING, State.QUEUED])
    wake(set(waiting.values_list("device_id", flat=True)))


def repoint(*, survivor: Lead, other: Lead) -> int:
    """Give the survivor the other's messages and replies; how many messages were cancelled because of it.

    Call it with both rows locked.
    """
    together = survivor.times_replied + other.times_replied
    who: dict[str, Any] = {"survivor": survivor.pk, "other": other.pk, "phone": survivor.phone, "together": together}
    with connection.cursor() as cursor:
        cursor.execute(_DROP, who)
        cancelled = int(cursor.fetchone()[0])
        cursor.execute(_READDRESS, who)
        cursor.execute(_BIND, who)
    Lead.objects.filter(pk=survivor.pk).update(times_replied=together)
    Message.objects.filter(lead=other).update(lead=survivor)
    InboundMessage.objects.filter(lead=other).update(lead=survivor)
    return cancelled
