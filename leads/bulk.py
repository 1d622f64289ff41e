"""Editing many leads at once: one statement per chunk, which writes down what it changed."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import structlog
from django.contrib.auth.models import User
from django.db import connection, transaction
from django.db.models import Max, QuerySet

from leads.changes import Channel
from leads.models import Lead

log = structlog.get_logger(__name__)

MOST = 100_000
"""Leads per request."""
CHUNK = 1000


@dataclass(frozen=True, slots=True)
class Edit:
    """What is to become of each lead. What is empty stays as it is; a status stays as it is where this is empty."""

    status: str = ""
    add_niches: tuple[str, ...] = ()
    remove_niches: tuple[str, ...] = ()
    add_triggers: tuple[str, ...] = ()
    remove_triggers: tuple[str, ...] = ()
    device_id: int | None = None
    without_device: bool = False
    custom: Mapping[str, Any] = field(default_factory=dict)
    remove_custom: tuple[str, ...] = ()

    @property
    def is_empty(self) -> bool:
        """Whether it would change nothing."""
        return self == Edit()


# One snapshot of the row, locked in the order of ids, decides both what is written and what is noted.
_EDIT = """
WITH old AS MATERIALIZED (
    SELECT id, status, niches, triggers, device_id, custom FROM leads_lead
    WHERE id = ANY(%(ids)s) ORDER BY id FOR NO KEY UPDATE
), want AS MATERIALIZED (
    SELECT id,
           coalesce(nullif(%(status)s, ''), status)::varchar AS status,
           ARRAY(SELECT t FROM unnest(niches) WITH ORDINALITY AS u (t, n)
                 WHERE t <> ALL (%(remove_niches)s::varchar[]) ORDER BY n)
           || ARRAY(SELECT t FROM unnest(%(add_niches)s::varchar[]) WITH ORDINALITY AS u (t, n)
                    WHERE t <> ALL (old.niches) ORDER BY n) AS niches,
           ARRAY(SELECT t FROM unnest(triggers) WITH ORDINALITY AS u (t, n)
                 WHERE t <> ALL (%(remove_triggers)s::varchar[]) ORDER BY n)
           || ARRAY(SELECT t FROM unnest(%(add_triggers)s::varchar[]) WITH ORDINALITY AS u (t, n)
                    WHERE t <> ALL (old.triggers) ORDER BY n) AS triggers,
           CASE WHEN %(without_device)s THEN NULL ELSE coalesce(%(device)s::bigint, device_id) END AS device_id,
           (custom - %(remove_custom)s::text[]) || %(custom)s::jsonb AS custom
    FROM old
), changed AS (
    UPDATE leads_lead l SET status = w.status, niches = w.niches, triggers = w.triggers, device_id = w.device_id,
                            custom = w.custom, updated_at = %(now)s
    FROM want w JOIN old o ON o.id = w.id
    WHERE l.id = w.id AND (o.status, o.niches, o.triggers, o.device_id, o.custom)
                          IS DISTINCT FROM (w.status, w.niches, w.triggers, w.device_id, w.custom)
    RETURNING l.id
)
INSERT INTO leads_leadchange (lead_id, kind, channel, values, note, by_id, changed_at)
SELECT o.id, 'edited', %(channel)s,
       (SELECT jsonb_object_agg(name, jsonb_build_array(was, is_now)) FROM (VALUES
            ('status', to_jsonb(o.status), to_jsonb(w.status)), ('niches', to_jsonb(o.niches), to_jsonb(w.niches)),
            ('triggers', to_jsonb(o.triggers), to_jsonb(w.triggers)),
            ('device', to_jsonb(o.device_id), to_jsonb(w.device_id)), ('custom', o.custom, w.custom)
        ) AS f (name, was, is_now) WHERE was IS DISTINCT FROM is_now),
       'Bulk edit', %(by)s, %(now)s
FROM changed JOIN old o ON o.id = changed.id JOIN want w ON w.id = changed.id
"""


def edit(*, leads: QuerySet[Lead], edit: Edit, channel: Channel, by: User, now: datetime) -> int:
    """Edit all of ``leads``; returns how many of them changed. Chunk by chunk: interrupted, do it again.

    Whether ``by`` may change these leads, and that the device has their owner, is the caller's to check.
    """
    changed = 0
    for ids in chunks(leads):
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute(
                _EDIT,
                {
                    "ids": ids,
                    "status": edit.status,
                    "add_niches": list(edit.add_niches),
                    "remove_niches": list(edit.remove_niches),
                    "add_triggers": list(edit.add_triggers),
                    "remove_triggers": list(edit.remove_triggers),
                    "without_device": edit.without_device,
                    "device": edit.device_id,
                    "custom": json.dumps(dict(edit.custom), ensure_ascii=False),
                    "remove_custom": list(edit.remove_custom),
                    "channel": channel.value,
                    "by": by.pk,
                    "now": now,
                },
            )
            changed += cursor.rowcount
    log.info("leads.edited", changed=changed, by=by.pk, channel=channel.value)
    return changed


def chunks(leads: QuerySet[Lead]) -> Iterator[list[int]]:
    """Ids of all of ``leads`` as they are now, ascending. An edit may take a lead out of the filter it was chosen by,
    and somebody may add others: each is met once, and it ends."""
    top = leads.order_by().aggregate(Max("pk"))["pk__max"]
    last = 0
    while top is not None:
        ids = list(leads.order_by("pk").filter(pk__gt=last, pk__lte=top).values_list("pk", flat=True)[:CHUNK])
        if not ids:
            return
        yield ids
        last = ids[-1]
