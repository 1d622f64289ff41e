"""Which devices send a run, whom they leave over, and giving those to somebody after all.

Over own devices, each lead's own one sends to it, and leads without one are left over. Pooled, the pool's connected
devices take turns, each up to the campaign's limit; devices that have been failing are left out, and so are leads that
come after the last free place. What is left over is set aside as unassigned, to be listed and transferred.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import structlog
from django.db import connection, transaction
from django.db.models import F, QuerySet

from campaigns.models import Campaign, Routing, Run, Unassigned
from devices.models import Device
from leads.audience import Audience
from leads.models import Lead
from messaging import fanout
from messaging.models import Batch

log = structlog.get_logger(__name__)

FAILING_SINCE = timedelta(hours=1)
FAILING_CALLS, FAILING_LATEST = 5, 20
"""A device fails when at least half of its last 20 calls within an hour did, and there were five."""
ASSIGNED_AT_ONCE = 5_000

# Index attempt_device_started. A refusal by the gateway is the message's fault, being throttled nobody's.
_FAILING = """
SELECT d.id FROM unnest(%(devices)s::bigint[]) AS d(id)
CROSS JOIN LATERAL (
    SELECT count(*) AS calls, count(*) FILTER (WHERE outcome <> 'accepted') AS failed
    FROM (SELECT a.outcome FROM messaging_attempt a
          WHERE a.device_id = d.id AND a.started_at > %(since)s
            AND a.outcome IN ('accepted', 'temporary', 'unknown', 'session_lost', 'banned')
          ORDER BY a.started_at DESC LIMIT %(latest)s) l) latest
WHERE latest.calls >= %(least)s AND latest.failed * 2 >= latest.calls
"""


def still_there(device_ids: Sequence[int]) -> list[int]:
    """Those of a run's devices that nobody has deleted since it began, in their order."""
    there = set(Device.objects.filter(pk__in=device_ids).values_list("pk", flat=True))
    return [pk for pk in device_ids if pk in there]


class NotTransferable(Exception):  # noqa: N818 - reads as a fact
    """Unassigned leads that cannot be given to a device (any more); ``field`` names what to change."""

    def __init__(self, code: str, text: str, field: str = "") -> None:
        super().__init__(text)
        self.code, self.text, self.field = code, text, field


@dataclass(frozen=True, slots=True)
class Senders:
    """Ids of the devices that would send, and of the pool's connected ones that are left out as failing."""

    devices: tuple[int, ...]
    failing: tuple[int, ...] = ()


def senders(*, campaign: Campaign, audience: Audience, now: datetime) -> Senders:
    """Connected devices that would send this campaign."""
    able = Device.objects.filter(owner_id=campaign.owner_id).able().order_by("pk")
    if campaign.routing == Routing.OWN:
        own = audience.reachable().filter(device__isnull=False).values("device_id").distinct()
        return Senders(tuple(able.filter(pk__in=own).values_list("pk", flat=True)))
    pooled = list(able.filter(pool_id=campaign.pool_id).values_list("pk", "reconnect_failures"))
    bad = {pk for pk, failures in pooled if failures} | failing(devices=[pk for pk, _ in pooled], now=now)
    if len(bad) == len(pooled):
        # With nobody else to turn to, a device that fails is still better than none: it may be well again.
        return Senders(tuple(pk for pk, _ in pooled))
    good = tuple(pk for pk, _ in pooled if pk not in bad)
    return Senders(good, tuple(sorted(bad)))


def failing(*, devices: Sequence[int], now: datetime) -> set[int]:
    """Those of ``devices`` whose latest calls failed more often than not."""
    with connection.cursor() as cursor:
        params: dict[str, Any] = {"devices": list(devices), "since": now - FAILING_SINCE}
        cursor.execute(_FAILING, {**params, "latest": FAILING_LATEST, "least": FAILING_CALLS})
        return {pk for (pk,) in cursor.fetchall()}


def set_aside(*, run: Run, batch: Batch, leads: QuerySet[Lead]) -> int:
    """Write down those of ``leads`` that the fan-out of ``batch`` passed over: once each; how many the run has."""
    if run.campaign.routing == Routing.OWN:
        left = leads.filter(device__isnull=True)
    else:
        left = leads.filter(pk__gt=Batch.objects.values_list("fill_cursor", flat=True).get(pk=batch.pk))
    select, params = left.order_by("pk").values("pk").query.sql_with_params()
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(
            f"""WITH made AS (
                    INSERT INTO campaigns_unassigned (run_id, batch_id, lead_id)
                    SELECT %s, %s, l.id FROM ({select}) AS l (id)
                    ON CONFLICT (run_id, lead_id) DO NOTHING RETURNING id)
                UPDATE campaigns_run SET unassigned = unassigned + (SELECT count(*) FROM made) WHERE id = %s
                RETURNING unassigned""",  # noqa: S608 - built from our own queryset
            (run.pk, batch.pk, *params, run.pk),
        )
        return int(cursor.fetchone()[0])


def assign(*, run: Run, devices: Sequence[Device], leads: Sequence[int] | None = None) -> int:
    """Give unassigned leads of the run (``leads``, or all) to ``devices`` turn by turn; how many got a message.

    Whoever may not be written to any more is struck off the list without one. Chunk by chunk, so that it may be
    repeated after an interruption. Raises NotTransferable.
    """
    if run.assigned_at is None:
        raise NotTransferable("not_filled", "The run's messages are still being made: wait a moment.")
    if not devices:
        raise NotTransferable("empty", "Choose at least one device.", "device")
    foreign = [device for device in devices if device.owner_id != run.campaign.owner_id]
    if foreign:
        raise NotTransferable("not_owned", f"{foreign[0]} belongs to somebody else than the campaign.", "device")
    ids = [device.pk for device in devices]
    made = 0
    waiting = Unassigned.objects.filter(run=run).order_by("batch_id")
    for batch_id in waiting.values_list("batch_id", flat=True).distinct():
        chosen = Unassigned.objects.filter(run=run, batch_id=batch_id)
        if leads is not None:
            chosen = chosen.filter(lead_id__in=list(leads))
        while taken := list(chosen.order_by("lead_id").values_list("lead_id", flat=True)[:ASSIGNED_AT_ONCE]):
            made += _assign_some(run=run, batch_id=batch_id, leads=taken, devices=ids)
    log.info("run.assigned", run_id=run.pk, messages=made)
    return made


def _assign_some(*, run: Run, batch_id: int, leads: list[int], devices: list[int]) -> int:
    reachable = Audience(owner_id=run.campaign.owner_id).reachable().filter(pk__in=leads)
    with transaction.atomic():
        # Whoever deletes the rows has the leads: two at once share them out.
        mine = list(
            Unassigned.objects.select_for_update(skip_locked=True)
            .filter(run=run, lead_id__in=leads)
            .values_list("lead_id", flat=True)
        )
        try:
            made = fanout.add(batch_id=batch_id, leads=reachable.filter(pk__in=mine), devices=devices)
        except fanout.BatchOver:
            text = "The run has ended for good: clone the campaign to write to these leads."
            raise NotTransferable("run_over", text) from None
        gone, _ = Unassigned.objects.filter(run=run, lead_id__in=mine).delete()
        Run.objects.filter(pk=run.pk).update(unassigned=F("unassigned") - gone)
    return made
