"""Settling unknown outcomes: by the gateway's policy, by presumption after a day, or by a person.

Every move is conditional on ``unknown``, so whoever comes second (a late record, a receipt, another tick) does
nothing. An unknown message is next looked at when it is ``due_at``, which lies in the past when it becomes unknown.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Literal

import structlog
from django.conf import settings
from django.contrib.admin.models import CHANGE, LogEntry
from django.contrib.auth.models import User
from django.contrib.contenttypes.models import ContentType
from django.db import connection, transaction
from django.db.models import Exists, OuterRef, QuerySet

from devices.gateways import registry
from messaging.aftermath import HELD, HELD_ELSEWHERE
from messaging.doubt import Doubt, Policy, Step, Verdict, consider, policy_for
from messaging.models import Attempt, Message
from messaging.services import wake
from messaging.states import State

log = structlog.get_logger(__name__)

LIMIT = 10_000
"""Messages per call of a person; more are settled in several."""
PER_TICK = 500

VerdictWord = Literal["sent", "resend", "failed"]
VERDICTS: dict[VerdictWord, State] = {"sent": State.SENT, "resend": State.PENDING, "failed": State.FAILED}

# Index message_unsettled. ``may_go_out``: a claim would have a chance, and the doubt comes from the message's last
# release (else something between release and claim ended it, and would end it again).
_DUE = """
SELECT m.id, m.release_no, m.device_id, m.attempts, d.gateway, flotilla_now(),
       coalesce(a.finished_at, a.started_at, m.created_at),
       coalesce(a.release_no = m.release_no, false)
           AND b.state IN ('running', 'paused', 'finished') AND b.expires_at > flotilla_now()
           AND l.id IS NOT NULL AND l.opted_out_at IS NULL,
       m.error_code
FROM messaging_message m
JOIN messaging_batch b ON b.id = m.batch_id
JOIN devices_device d ON d.id = m.device_id
LEFT JOIN leads_lead l ON l.id = m.lead_id
LEFT JOIN LATERAL (SELECT release_no, started_at, finished_at FROM messaging_attempt
                   WHERE message_id = m.id ORDER BY release_no DESC LIMIT 1) a ON true
WHERE m.state = 'unknown' AND m.presumed_at IS NULL AND m.due_at <= flotilla_now()
ORDER BY m.due_at LIMIT %(limit)s
"""

# Messages first, in the order of their ids, then streams; devices were locked before, by wake(). A move of the tick
# carries the release it was decided for and applies while the message is still due: of two ticks one does it.
_MOVE = """
WITH given AS (
    SELECT * FROM jsonb_to_recordset(%(moves)s) AS g(
        id bigint, target text, presume boolean, wait_seconds float8, code text, text text, external_id text,
        release_no int, while_due boolean)
), held AS MATERIALIZED (
    SELECT m.id, m.stream_id, m.batch_id, m.release_no, m.presumed_at, g.target, g.presume, g.wait_seconds, g.code,
           g.text, g.external_id
    FROM given g JOIN messaging_message m ON m.id = g.id
    WHERE m.state = 'unknown' AND (g.target <> 'unknown' OR m.presumed_at IS NULL)
      AND (g.release_no IS NULL OR m.release_no = g.release_no)
      AND (NOT g.while_due OR m.due_at <= flotilla_now())
    ORDER BY m.id FOR UPDATE OF m
), moved AS (
    UPDATE messaging_message m
    SET state = h.target, presumed_at = CASE WHEN h.presume THEN flotilla_now() END,
        due_at = CASE WHEN h.target IN ('pending', 'unknown') AND NOT h.presume
                      THEN flotilla_now() + make_interval(secs => h.wait_seconds) ELSE m.due_at END,
        sent_at = CASE WHEN h.target = 'sent' THEN coalesce(m.sent_at, (
                           SELECT max(coalesce(a.finished_at, a.started_at)) FROM messaging_attempt a
                           WHERE a.message_id = m.id), flotilla_now())
                       ELSE m.sent_at END,
        external_id = coalesce(nullif(h.external_id, ''), m.external_id),
        error_code = CASE h.target WHEN 'sent' THEN '' WHEN 'failed' THEN h.code ELSE m.error_code END,
        error_text = CASE h.target WHEN 'sent' THEN ''
                                   WHEN 'failed' THEN left(concat_ws(' ', h.text, nullif(m.error_text, '')), 300)
                                   ELSE m.error_text END
    FROM held h WHERE m.id = h.id
), counts AS (
    SELECT stream_id, sum((target = 'pending')::int) AS waiting, sum((target = 'sent')::int) AS sent,
           sum((target = 'failed')::int) AS failed, sum((target <> 'unknown')::int) AS settled,
           sum(presume::int - (presumed_at IS NOT NULL)::int) AS presumed
    FROM held GROUP BY stream_id
), streams AS MATERIALIZED (
    SELECT s.id FROM messaging_stream s JOIN counts c ON c.stream_id = s.id
    WHERE c.settled > 0 OR c.presumed <> 0
    ORDER BY s.id FOR NO KEY UPDATE OF s
), counted AS (
    UPDATE messaging_stream s
    SET waiting = s.waiting + c.waiting, sent = s.sent + c.sent, failed = s.failed + c.failed,
        unknown = s.unknown - c.settled, presumed = s.presumed + c.presumed, is_open = s.waiting + c.waiting > 0
    FROM counts c JOIN streams ON streams.id = c.stream_id
    WHERE s.id = c.stream_id
), reopened AS (
    UPDATE messaging_batch SET state = 'running', finished_at = NULL
    WHERE state = 'finished' AND id IN (SELECT batch_id FROM held WHERE target = 'pending')
)
SELECT id FROM held
"""


@dataclass(frozen=True, slots=True)
class Move:
    """One message out of (or staying in) ``unknown``. ``release_no`` None: whichever release it is."""

    id: int
    target: State
    presume: bool = False
    wait_seconds: float = 0.0
    code: str = ""
    text: str = ""
    external_id: str = ""
    release_no: int | None = None
    while_due: bool = False


@dataclass(frozen=True, slots=True)
class Asked:
    """A message to look up at its gateway, by the look-up step."""

    message_id: int
    release_no: int
    since: datetime
    may_go_out: bool
    attempts: int


@dataclass(frozen=True, slots=True)
class Settled:
    """How many messages a person settled, how many were left alone, by reason, and whether the filter holds more."""

    settled: int
    left_alone: dict[str, int]
    more: bool = False


def move(moves: Sequence[Move]) -> set[int]:
    """Carry out moves in the caller's transaction; the ids of the messages that were still theirs to move."""
    if not moves:
        return set()
    with connection.cursor() as cursor:
        cursor.execute(_MOVE, {"moves": json.dumps([asdict(each) for each in moves])})
        return {row[0] for row in cursor.fetchall()}


# -- the tick ----------------------------------------------------------------------------------------------------------


def settle_due() -> list[Asked]:
    """One step: apply policies, presume what is old, put the rest off. Returns what is to be looked up, leased."""
    asked: dict[int, Asked] = {}
    moves: list[Move] = []
    steps: Counter[str] = Counter()
    devices = []
    with transaction.atomic():
        with connection.cursor() as cursor:
            cursor.execute(_DUE, {"limit": PER_TICK})
            rows = cursor.fetchall()
        for pk, release_no, device_id, attempts, gateway, now, since, may_go_out, code in rows:
            verdict = _consider(gateway, now=now, since=since, attempts=attempts, may_go_out=may_go_out, code=code)
            moves.append(_as_move(verdict, pk, release_no))
            if verdict.step is Step.LOOK_UP:
                asked[pk] = Asked(pk, release_no, since, may_go_out, attempts)
            elif verdict.step is Step.RESEND:
                devices.append(device_id)
            steps[verdict.step.value] += 1
        if devices:
            wake(devices)
        done = move(moves)
    told = {step: number for step, number in steps.items() if step not in {Step.WAIT, Step.LOOK_UP}}
    if told:
        log.warning("settle.by_policy", **told)
    return [each for pk, each in asked.items() if pk in done]


def _consider(gateway: str, *, now: datetime, since: datetime, attempts: int, may_go_out: bool, code: str) -> Verdict:
    restored = code in {HELD, HELD_ELSEWHERE}
    doubt = Doubt(
        since=since,
        attempts=attempts,
        may_go_out=may_go_out,
        id_semantics="none" if code == HELD_ELSEWHERE else registry.driver_for(gateway).id_semantics,
        policy=Policy.HOLD if restored else policy_for(gateway, policies=settings.FLOTILLA_UNKNOWN_POLICY),
    )
    return consider(
        doubt,
        now=now,
        close_after=timedelta(hours=settings.FLOTILLA_UNKNOWN_CLOSE_HOURS),
        grace=timedelta(seconds=settings.FLOTILLA_LOOK_UP_GRACE_SECONDS),
        retry_minutes=settings.FLOTILLA_RETRY_MINUTES,
    )


def _as_move(verdict: Verdict, pk: int, release_no: int) -> Move:
    targets = {Step.RESEND: State.PENDING, Step.FAIL: State.FAILED}
    return Move(
        id=pk,
        target=targets.get(verdict.step, State.UNKNOWN),
        presume=verdict.step is Step.PRESUME,
        wait_seconds=verdict.wait_seconds,
        code="unknown_outcome",
        text="It may have been sent; by this gateway's policy that counts as failed.",
        release_no=release_no,
        while_due=True,
    )


# -- a person ----------------------------------------------------------------------------------------------------------

_CHOOSE = """
SELECT m.id, m.device_id,
       CASE WHEN m.state <> 'unknown' THEN 'not_unknown'
            WHEN NOT %(resend)s THEN NULL
            WHEN b.state IN ('cancelled', 'failed') THEN 'batch_ended'
            WHEN b.expires_at <= %(now)s THEN 'batch_expired'
            WHEN l.id IS NULL THEN 'lead_deleted'
            WHEN l.opted_out_at IS NOT NULL THEN 'opted_out' END
FROM messaging_message m
JOIN messaging_batch b ON b.id = m.batch_id
LEFT JOIN leads_lead l ON l.id = m.lead_id
WHERE m.id = ANY(%(ids)s)
ORDER BY m.id
"""


def unknowns(
    found: QuerySet[Message],
    *,
    now: datetime,
    batch: int | None = None,
    device: int | None = None,
    gateway: str | None = None,
    older_than_hours: float | None = None,
) -> QuerySet[Message]:
    """Those of ``found`` whose outcome is unknown and that fit every condition given, oldest first."""
    conditions = {"batch_id": batch, "device_id": device, "device__gateway": gateway}
    found = found.filter(
        state=State.UNKNOWN, **{name: value for name, value in conditions.items() if value is not None}
    )
    if older_than_hours is not None:
        recent = Attempt.objects.filter(message=OuterRef("pk"), started_at__gt=now - timedelta(hours=older_than_hours))
        found = found.exclude(Exists(recent))
    return found.order_by("pk")


def settle(*, message_ids: Iterable[int], verdict: VerdictWord, user: User, now: datetime) -> Settled:
    """What a person says became of unknown messages: at most :data:`LIMIT` in one call, each noted under their name.

    ``resend`` sends them again in the same round, under the same id, at the risk that some arrive twice. Left alone:
    what is not unknown any more, and for ``resend`` what could not go out.
    """
    ids = list(dict.fromkeys(message_ids))
    ids, more = ids[:LIMIT], len(ids) > LIMIT
    left_alone: Counter[str] = Counter()
    chosen: dict[int, int] = {}
    with transaction.atomic():
        with connection.cursor() as cursor:
            cursor.execute(_CHOOSE, {"ids": ids, "now": now, "resend": verdict == "resend"})
            for pk, device_id, reason in cursor.fetchall():
                if reason is None:
                    chosen[pk] = device_id
                else:
                    left_alone[reason] += 1
        if verdict == "resend":
            wake(set(chosen.values()))
        words = "It may have been sent; a person decided that it counts as failed."
        done = move([Move(pk, VERDICTS[verdict], code="settled_as_failed", text=words) for pk in chosen])
        if len(done) < len(chosen):
            left_alone["not_unknown"] += len(chosen) - len(done)
        _note(sorted(done), verdict=verdict, user=user)
    log.info("settle.by_hand", verdict=verdict, by=user.pk, settled=len(done), left_alone=dict(left_alone))
    return Settled(len(done), dict(left_alone), more)


def _note(ids: Sequence[int], *, verdict: VerdictWord, user: User) -> None:
    """Who decided, when and what: in each message's history."""
    words = {"sent": "counts as sent", "resend": "is sent again", "failed": "counts as failed"}[verdict]
    kind = ContentType.objects.get_for_model(Message)
    LogEntry.objects.bulk_create(
        [
            LogEntry(
                user_id=user.pk,
                content_type=kind,
                object_id=str(pk),
                object_repr=f"#{pk}",
                action_flag=CHANGE,
                change_message=f"Unknown outcome settled: it {words}.",
            )
            for pk in ids
        ],
        batch_size=1000,
    )
