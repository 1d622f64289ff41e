"""Not now to this lead: quiet hours by their clock, and how often we may write to them across all campaigns.

Waiting for either costs no attempt and moves the message alone; its device goes on with the others. Messages of
interactive batches are neither capped nor counted. The rules are in :mod:`leads.quiet`.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, time, timedelta
from typing import Any

from django.conf import settings
from django.db import connection

from leads.quiet import Cap, QuietHours, zone_of
from messaging.dispatch.pool import Session
from messaging.dispatch.prepared import Statement
from messaging.pacing import Window

REVIEW_SECONDS = 300.0
"""How often a message asks again whether its lead is still held for review."""


@dataclass(frozen=True, slots=True)
class Addressee:
    """What the rules need to know of a message's lead. ``zone`` is what the lead says itself, or empty."""

    phone: str
    zone: str
    bulk: bool


@dataclass(frozen=True, slots=True)
class HadEnough:
    """A cap that is reached: ``number`` messages within its span, and room again in ``for_seconds``."""

    cap: Cap
    number: int
    for_seconds: float


# -- Quiet hours -------------------------------------------------------------------------------------------------------


def window_of(lead: Addressee) -> Window | None:
    """The hours in which this lead may be written to; None without quiet hours for such a message."""
    quiet: QuietHours | None = settings.FLOTILLA_QUIET_HOURS if lead.bulk else settings.FLOTILLA_QUIET_HOURS_SINGLE
    if quiet is None:
        return None
    zone = zone_of(phone=lead.phone, stated=lead.zone, otherwise=settings.FLOTILLA_LEAD_TIME_ZONE)
    return Window(start=quiet.end, end=quiet.start, zone=zone)


def local_time(lead: Addressee, *, now: datetime) -> time:
    """What the clock shows where this lead is."""
    zone = zone_of(phone=lead.phone, stated=lead.zone, otherwise=settings.FLOTILLA_LEAD_TIME_ZONE)
    return now.astimezone(zone).time()


def quiet_for_seconds(lead: Addressee, *, now: datetime) -> float:
    """Seconds until the lead's quiet hours are over; 0 outside of them."""
    window = window_of(lead)
    return window.opens_in_seconds(now) if window else 0.0


# -- Caps --------------------------------------------------------------------------------------------------------------

# Two devices must not both see the last place: each counts after it has the lead's lock, in a statement of its own,
# whose snapshot is later. The claim's share lock alone would let both through.
LOCK_LEAD = Statement(
    "lock_lead",
    """
SELECT FROM leads_lead l JOIN messaging_message m ON m.lead_id = l.id
WHERE m.id = %(message)s FOR NO KEY UPDATE OF l
""",
)

# Messages count that reached the lead or may have; this one does not stand in its own way. Indexes of message.lead and
# attempt_message_release. The cap that lasts longest comes first.
LEAD_CAPS = Statement(
    "lead_caps",
    """
WITH sent AS MATERIALIZED (
    SELECT max(a.started_at) AS at
    FROM messaging_message o
    JOIN messaging_batch b ON b.id = o.batch_id AND b.priority > 0
    JOIN messaging_attempt a ON a.message_id = o.id AND a.outcome IN ('', 'accepted', 'unknown')
    WHERE o.lead_id = (SELECT lead_id FROM messaging_message WHERE id = %(message)s) AND o.id <> %(message)s
    GROUP BY o.id
)
SELECT (c.place - 1)::int, within.number, extract(epoch FROM last.at - flotilla_now()) + c.seconds AS wait
FROM unnest(%(cap_numbers)s::int[], %(cap_seconds)s::float8[]) WITH ORDINALITY AS c (most, seconds, place)
CROSS JOIN LATERAL (SELECT count(*)::int AS number FROM sent
                    WHERE at > flotilla_now() - make_interval(secs => c.seconds)) within
CROSS JOIN LATERAL (SELECT at FROM sent ORDER BY at DESC OFFSET c.most - 1 LIMIT 1) last
WHERE within.number >= c.most
ORDER BY wait DESC
""",
)


def capped(lead: Addressee) -> bool:
    """Whether there is a cap for such a message at all."""
    return lead.bulk and bool(settings.FLOTILLA_LEAD_CAPS)


def had_enough(session: Session, *, message_id: int) -> HadEnough | None:
    """The cap that keeps this message from being claimed, if any. Holds the lead until the transaction ends."""
    params = _params(message_id)
    session.execute(LOCK_LEAD, params)
    rows = session.execute(LEAD_CAPS, params)
    return _answer(rows[0]) if rows else None


def had_enough_now(*, message_id: int) -> HadEnough | None:
    """The same without a lock, for a person who asks why."""
    with connection.cursor() as cursor:
        cursor.execute(LEAD_CAPS.text, _params(message_id))
        row = cursor.fetchone()
    return _answer(row) if row else None


def _params(message_id: int) -> dict[str, Any]:
    caps: tuple[Cap, ...] = settings.FLOTILLA_LEAD_CAPS
    return {
        "message": message_id,
        "cap_numbers": [cap.number for cap in caps],
        "cap_seconds": [cap.span / timedelta(seconds=1) for cap in caps],
    }


def _answer(row: tuple[int, int, float]) -> HadEnough:
    place, number, wait = row
    return HadEnough(settings.FLOTILLA_LEAD_CAPS[place], number, max(float(wait), 1.0))


# -- Snooze ------------------------------------------------------------------------------------------------------------

# Unlike a message that is given back because its device has to wait, this one does not take the device along.
SNOOZE = Statement(
    "snooze",
    """
WITH device AS (
    SELECT id, greatest(flotilla_now(), next_send_at, held_until) AS able_at FROM devices_device
    WHERE id = %(device)s FOR NO KEY UPDATE
), back AS (
    UPDATE messaging_message m
    SET state = 'pending', due_at = greatest(m.due_at, flotilla_now() + make_interval(secs => %(wait_seconds)s))
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
