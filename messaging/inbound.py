"""Replies: what people write to devices, kept once, and the one place where anything follows from them."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime

import structlog
from django.db import connection, transaction

from devices.gateways.news import Reply
from devices.models import Device
from leads import optout
from messaging import services

log = structlog.get_logger(__name__)

# One trip, whatever their number. A number belongs to the lead that the device's owner knows under it. Indexes: primary
# key of devices, lead_owner_phone, inbound_event.
_STORE = """
INSERT INTO messaging_inboundmessage
    (gateway, event_id, device_id, lead_id, phone, text, external_id, written_at, received_at)
SELECT %(gateway)s, g.event_id, d.id, l.id, g.phone, g.text, g.external_id, least(g.at, %(now)s), %(now)s
FROM jsonb_to_recordset(%(replies)s) AS g(
    event_id text, device bigint, phone text, text text, external_id text, at timestamptz)
LEFT JOIN devices_device d ON d.id = g.device AND d.gateway = %(gateway)s
LEFT JOIN leads_lead l ON l.owner_id = d.owner_id AND l.phone = g.phone
ORDER BY g.event_id
ON CONFLICT (gateway, event_id) DO NOTHING
RETURNING id, device_id, (SELECT owner_id FROM devices_device WHERE id = device_id), lead_id, phone, text
"""


@dataclass(frozen=True, slots=True)
class Heard:
    """One reply, stored just now. Device and owner are None where it came to no device of ours."""

    inbound_id: int
    device_id: int | None
    owner_id: int | None
    lead_id: int | None
    phone: str = field(repr=False)
    text: str = field(repr=False)


def store_replies(*, gateway: str, replies: Iterable[Reply], now: datetime) -> list[Heard]:
    """Keep replies and do what follows from each, in one transaction; those that were told before change nothing.

    Returns the new ones. A crash in between leaves nothing, and the gateway tells it again.
    """
    given = [
        {
            "event_id": reply.event_id,
            "device": reply.device_id,
            "phone": reply.phone,
            "text": reply.text,
            "external_id": reply.external_id,
            "at": reply.at.isoformat(),
        }
        for reply in replies
    ]
    if not given:
        return []
    with transaction.atomic():
        with connection.cursor() as cursor:
            cursor.execute(_STORE, {"gateway": gateway, "replies": json.dumps(given), "now": now})
            heard = [Heard(*row) for row in cursor.fetchall()]
        for reply in heard:
            react(reply, now=now)
        _count(heard)
    return heard


def _count(heard: Iterable[Heard]) -> None:
    """Count replies on the leads' rows, last of all, since opting out takes another lock before those.

    The claim share-locks the lead: from the commit of this on, nothing that is bound to an earlier count goes out.
    """
    leads = [reply.lead_id for reply in heard if reply.lead_id is not None]
    if not leads:
        return
    with connection.cursor() as cursor:
        cursor.execute(
            """WITH asked AS MATERIALIZED (
                   SELECT l.id FROM leads_lead l WHERE l.id = ANY(%(leads)s) ORDER BY l.id FOR NO KEY UPDATE
               )
               UPDATE leads_lead l SET times_replied = l.times_replied + wrote.n
               FROM asked JOIN (SELECT id, count(*) AS n FROM unnest(%(leads)s::bigint[]) AS u (id) GROUP BY id) wrote
                 ON wrote.id = asked.id
               WHERE l.id = asked.id""",
            {"leads": leads},
        )


def react(heard: Heard, *, now: datetime) -> None:
    """Everything that follows from a new reply, once, in the transaction that stores it: consequences go here.

    Whatever is called may lock the lead's row and then messages (lock order: device → lead → message → stream).
    """
    log.info("reply.heard", inbound_id=heard.inbound_id, device_id=heard.device_id, lead_id=heard.lead_id)
    if heard.owner_id is None or heard.device_id is None:
        return  # to no device of ours: nobody's lead
    meant = optout.hear(owner_id=heard.owner_id, phone=heard.phone, text=heard.text, now=now)
    if meant.changed and meant.reply:
        device = Device.objects.defer("credentials").get(pk=heard.device_id)
        services.confirm_opt_out(heard=meant, device=device, now=now)
