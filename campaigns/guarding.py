"""Pausing a run by itself: too many of its latest calls failed, or two of its devices were banned.

Calls are what count, not messages: with retries a message fails for good only hours later. A refusal for good, a
temporary failure, a lost session, a ban and an unknown outcome are failures; being throttled is not. Everything is
looked at every ten seconds, in a window that begins anew when somebody resumes the run.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog
from django.conf import settings
from django.db import connection
from django.db.models import F, Q

from campaigns import running
from campaigns.models import Run
from campaigns.states import RunState
from messaging.models import Batch, BatchState

log = structlog.get_logger(__name__)

EVERY = timedelta(seconds=10)
RUNS_PER_TICK = 20
CALLS_PER_DEVICE = 100
BY_ITSELF = "Paused by itself:"
"""How the reason of such a pause begins, here and where bans pause one batch."""

# Indexes stream_batch_device, attempt_device_started, primary key of messages. Bounded per device, so that a fast one
# costs no more than a slow one.
_CALLS = """
SELECT a.outcome, a.error_text, count(*), count(DISTINCT a.device_id)
FROM (SELECT DISTINCT device_id FROM messaging_stream WHERE batch_id = ANY(%(batches)s)) s
CROSS JOIN LATERAL (
    SELECT a.outcome, a.error_text, a.message_id, a.device_id FROM messaging_attempt a
    WHERE a.device_id = s.device_id AND a.started_at > %(since)s AND a.outcome NOT IN ('', 'throttled', 'not_sent')
      AND a.error_code <> 'restored'  -- a restore's doubt, no gateway's failure
    ORDER BY a.started_at DESC LIMIT %(most)s) a
JOIN messaging_message m ON m.id = a.message_id AND m.batch_id = ANY(%(batches)s)
GROUP BY a.outcome, a.error_text
"""
_BANNED = """
SELECT count(DISTINCT a.device_id), string_agg(DISTINCT d.name, ', ')
FROM messaging_attempt a
JOIN messaging_message m ON m.id = a.message_id
JOIN devices_device d ON d.id = a.device_id
WHERE a.outcome = 'banned' AND a.started_at > %(since)s AND m.batch_id = ANY(%(batches)s)
"""


@dataclass(frozen=True, slots=True)
class Calls:
    """The latest calls of a run: how many, how many failed, and what was said most often."""

    calls: int = 0
    failed: int = 0
    most_often: str = ""

    @property
    def percent(self) -> float:
        """Share of failed calls, 0 to 100."""
        return 100 * self.failed / self.calls if self.calls else 0.0


def watch(*, now: datetime) -> int:
    """Look at the runs whose turn it is; returns how many were paused."""
    turn = Q(watched_at__isnull=True) | Q(watched_at__lte=now - EVERY) | Q(watched_at__gt=now)
    runs = Run.objects.filter(turn, state=RunState.TRIGGERED, batch__isnull=False).select_related("campaign")
    paused = 0
    for run in runs.order_by(F("watched_at").asc(nulls_first=True), "pk")[:RUNS_PER_TICK]:
        reason = reason_to_pause(run, now=now)
        if reason and running.pause(run, reason=reason):
            paused += 1
            log.error("run.paused_by_itself", run_id=run.pk, reason=reason)
        Run.objects.filter(pk=run.pk).update(watched_at=now)
    return paused


def reason_to_pause(run: Run, *, now: datetime) -> str:
    """Why this run should not go on by itself, in words for people; empty where nothing speaks against it."""
    ids = running.batches_of([run])[run.pk]
    batches = Batch.objects.filter(pk__in=ids)
    if not batches.filter(state=BatchState.RUNNING).exists():
        return ""
    if len(ids) > 1:
        # What pauses one variant by itself pauses the others: bans are counted per batch where they happen.
        told = batches.filter(state=BatchState.PAUSED, reason__startswith=BY_ITSELF).values_list("reason", flat=True)
        if reason := told.first() or _bans(ids, _since(run, now, settings.FLOTILLA_BAN_WINDOW_SECONDS)):
            return reason
    return _errors(run, ids, now)


def _errors(run: Run, batches: list[int], now: datetime) -> str:
    campaign = run.campaign
    if campaign.pause_at_percent is None:
        return ""
    seen = calls_of(batches=batches, since=_since(run, now, 60 * campaign.pause_window_minutes))
    if seen.calls < campaign.pause_min_calls or seen.percent < campaign.pause_at_percent:
        return ""
    often = f" Most often: {seen.most_often}" if seen.most_often else ""
    return (
        f"{BY_ITSELF} {seen.failed:,} of the latest {seen.calls:,} calls failed ({seen.percent:.0f} %;"
        f" the limit is {campaign.pause_at_percent} %).{often}"
    )[:300]


def calls_of(*, batches: list[int], since: datetime) -> Calls:
    """The calls for these batches since then, at most a hundred of each device."""
    with connection.cursor() as cursor:
        cursor.execute(_CALLS, {"batches": batches, "since": since, "most": CALLS_PER_DEVICE})
        rows = cursor.fetchall()
    failed = [(number, text) for outcome, text, number, _ in rows if outcome != "accepted"]
    return Calls(
        calls=sum(number for _, _, number, _ in rows),
        failed=sum(number for number, _ in failed),
        most_often=max(failed)[1] if failed else "",
    )


def _bans(batches: list[int], since: datetime) -> str:
    with connection.cursor() as cursor:
        cursor.execute(_BANNED, {"batches": batches, "since": since})
        number, names = cursor.fetchone()
    return f"{BY_ITSELF} {number} devices were banned while sending it ({names})."[:300] if number >= 2 else ""


def _since(run: Run, now: datetime, seconds: float) -> datetime:
    begins = now - timedelta(seconds=seconds)
    return max(begins, run.resumed_at) if run.resumed_at else begins
