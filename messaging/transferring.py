"""Giving leads to another device, one or turn by turn over several, with or without what waits for them.

What moves along are pending messages that wait at the lead's own device and whose batch does not choose devices by
itself (``Batch.failover`` is off: runs over own devices, sequence steps, single messages). What a worker has already,
what may have arrived, and what a pool sends stays where it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import structlog
from django.contrib.auth.models import User
from django.db import connection, transaction
from django.db.models import Count, F, Q, QuerySet

from devices.models import Device
from leads.bulk import chunks
from leads.changes import Channel
from leads.models import Lead
from messaging.dispatch.failover import MOVE, OPEN_STREAMS
from messaging.dispatch.statements import IN_DOUBT
from messaging.models import Message
from messaging.states import State

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Outlook:
    """What a transfer would do: leads that change device, their waiting messages that could move along or would stay,
    and how many of the devices cannot send now."""

    leads: int
    messages: int
    stay: int
    not_connected: int


@dataclass(frozen=True, slots=True)
class Transferred:
    """How many leads have another device now, and how many messages moved along."""

    leads: int
    messages: int


# Whoever has one of the devices keeps it. Turn by turn, in the order of ids, going on where the last chunk ended.
_GIVE = """
WITH old AS MATERIALIZED (
    SELECT id, device_id FROM leads_lead WHERE id = ANY(%(ids)s) ORDER BY id FOR NO KEY UPDATE
), plan AS MATERIALIZED (
    SELECT id, device_id AS source,
           (%(devices)s::bigint[])[1 + (%(given)s + row_number() OVER (ORDER BY id) - 1) %% %(many)s] AS target
    FROM old WHERE device_id IS NULL OR device_id <> ALL (%(devices)s)
), moved AS (
    UPDATE leads_lead l SET device_id = plan.target, updated_at = %(now)s FROM plan WHERE l.id = plan.id RETURNING l.id
), noted AS (
    INSERT INTO leads_leadchange (lead_id, kind, channel, values, note, by_id, changed_at)
    SELECT plan.id, 'transferred', %(channel)s,
           jsonb_build_object('device', jsonb_build_array(plan.source, plan.target)), '', %(by)s, %(now)s
    FROM plan JOIN moved ON moved.id = plan.id
)
SELECT plan.id, plan.source, plan.target FROM plan JOIN moved ON moved.id = plan.id
"""

# After the lock on the devices, so that nothing releases what is picked here. Index of the messages' lead.
_PICK = f"""
SELECT m.id, m.stream_id, p.target
FROM unnest(%(leads)s::bigint[], %(sources)s::bigint[], %(targets)s::bigint[]) AS p (lead_id, source, target)
JOIN messaging_message m ON m.lead_id = p.lead_id AND m.device_id = p.source
JOIN messaging_batch b ON b.id = m.batch_id
WHERE m.state = 'pending' AND NOT b.failover AND b.state IN ('running', 'paused')
  AND p.source = ANY(%(locked)s) AND NOT {IN_DOUBT}
ORDER BY m.due_at, m.id
"""  # noqa: S608 - a condition of ours


def outlook(*, leads: QuerySet[Lead], devices: Sequence[Device]) -> Outlook:
    """What :func:`transfer` would do now."""
    going = leads.order_by().exclude(device__in=[device.pk for device in devices])
    waiting = Message.objects.filter(
        lead__in=going.values("pk"),
        device=F("lead__device"),
        state__in=[State.PENDING, State.QUEUED, State.SENDING],
    )
    moves = Q(state=State.PENDING, batch__failover=False)
    counts = waiting.order_by().aggregate(moves=Count("pk", filter=moves), stay=Count("pk", filter=~moves))
    able = Device.objects.filter(pk__in=[device.pk for device in devices]).able().count()
    return Outlook(going.count(), counts["moves"], counts["stay"], len(devices) - able)


def transfer(
    *,
    leads: QuerySet[Lead],
    devices: Sequence[Device],
    move_messages: bool,
    channel: Channel,
    by: User,
    now: datetime,
) -> Transferred:
    """Give ``leads`` to ``devices``, turn by turn; chunk by chunk, so that it may be repeated after an interruption.

    That the devices have the leads' owner is the caller's to check. Locks devices, then leads, messages and streams.
    """
    targets = sorted(device.pk for device in devices)
    given = moved = 0
    for ids in chunks(leads):
        with transaction.atomic(), connection.cursor() as cursor:
            sources = Lead.objects.filter(pk__in=ids, device__isnull=False).order_by().values_list("device_id")
            both = Device.objects.filter(Q(pk__in=targets) | Q(pk__in=sources.distinct())).order_by("pk")
            locked = list(both.select_for_update(no_key=True).values_list("pk", flat=True))
            cursor.execute(
                _GIVE,
                {
                    "ids": ids, "devices": targets, "many": len(targets), "given": given, "channel": channel.value,
                    "by": by.pk, "now": now,
                },
            )  # fmt: skip
            rows: list[tuple[int, int | None, int]] = cursor.fetchall()
            given += len(rows)
            if move_messages and rows:
                moved += _move_along(cursor, rows, locked)
    log.info("leads.transferred", leads=given, messages=moved, by=by.pk, to_devices=targets[:20])
    return Transferred(given, moved)


def _move_along(cursor: Any, rows: Sequence[tuple[int, int | None, int]], locked: Sequence[int]) -> int:
    cursor.execute(
        _PICK,
        {
            "leads": [lead for lead, _, _ in rows],
            "sources": [source for _, source, _ in rows],
            "targets": [target for _, _, target in rows],
            "locked": list(locked),
        },
    )
    picked = cursor.fetchall()
    if not picked:
        return 0
    plan = {
        "messages": [message for message, _, _ in picked],
        "streams": [stream for _, stream, _ in picked],
        "targets": [target for _, _, target in picked],
    }
    cursor.execute(OPEN_STREAMS.text, plan)
    cursor.execute(MOVE.text, plan)
    return int(cursor.fetchone()[0])
