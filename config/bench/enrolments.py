"""The sequences' tick over a million enrolments, of which a few thousand are due.

Scan: finding and locking what is due, with everything that has to be known about each, against a bare SELECT of the
same ids. Tick: a whole round for them, which makes their messages, moves them and counts both, against a bare
INSERT … SELECT of as many messages. What was done is put back between two rounds, outside the clock; one round of each
is run first and not counted.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import datetime

from django.db import connection, transaction
from django.utils import timezone

from config.bench import seeding
from config.bench.kind import Bench
from config.bench.results import BenchFailed, Goal, Line
from config.bench.stage import Stage
from messaging.models import Batch, Message
from sequences import services, walking
from sequences.models import Sequence, StepBatch, Tally

BARE = """
SELECT id FROM sequences_enrolment
WHERE sequence_id = %s AND look_at IS NOT NULL AND look_at <= %s ORDER BY look_at LIMIT %s
"""
BARE_INSERT = """
INSERT INTO messaging_message (batch_id, stream_id, device_id, lead_id, phone, due_at)
SELECT %s, s.id, s.device_id, l.id, l.phone, now()
FROM sequences_enrolment e JOIN leads_lead l ON l.id = e.lead_id
JOIN messaging_stream s ON s.batch_id = %s AND s.device_id = l.device_id
WHERE e.sequence_id = %s AND e.look_at <= %s ORDER BY l.id LIMIT %s
"""


@dataclass(frozen=True, slots=True)
class Plan:
    """Sizes and goals."""

    enrolments: int
    due: int
    rounds: int
    scan_ms: float = 1000
    tick_ratio: float = 10


FULL = Plan(enrolments=1_000_000, due=5_000, rounds=7)
QUICK = Plan(enrolments=100_000, due=5_000, rounds=5)


def run(stage: Stage, plan: Plan) -> list[Line]:
    """Every round, then the lines."""
    stage.say("enrolments: preparing")
    seeding.clear()
    sequence = make_sequence(plan)
    scans: list[float] = []
    bare: list[float] = []
    ticks: list[float] = []
    inserts: list[float] = []
    try:
        for _ in range(plan.rounds + 1):
            stage.check()
            now = timezone.now()
            bare.append(measure_bare(sequence, plan, now))
            scans.append(measure_scan(plan, now))
            ticks.append(measure_tick(plan, now))
            put_back(sequence)
            inserts.append(measure_insert(sequence, plan))
            put_back(sequence)
    finally:
        forget(sequence)
    of = f"{plan.due:,} due of {plan.enrolments:,} enrolments"
    return [
        Line(
            name="enrolments_scan",
            what=f"{of}: found, locked and looked up; baseline: a bare SELECT of their ids",
            unit="ms",
            ours=scans[1:],
            baseline=bare[1:],
            goal=Goal(plan.scan_ms, "most", "ours"),
        ),
        Line(
            name="enrolments_tick",
            what=f"{of}: made messages of, moved and counted; baseline: a bare INSERT … SELECT of the messages",
            unit="ms",
            ours=ticks[1:],
            baseline=inserts[1:],
            goal=Goal(plan.tick_ratio, "most"),
        ),
    ]


def make_sequence(plan: Plan) -> Sequence:
    """A sequence of three steps with everybody in it, a hundred devices, and the first of them due."""
    owner = seeding.make_owner()
    _, devices = seeding.make_fleet(owner=owner, number=100)
    seeding.make_leads(owner=owner, number=plan.enrolments)
    sequence = Sequence.objects.create(owner=owner, name="Bench", delay_min_seconds=0, delay_max_seconds=0)
    for position in range(1, 4):
        sequence.steps.create(position=position, text=seeding.TEXT, delay_minutes=0)
    services.activate(sequence=sequence, by=owner, now=timezone.now())
    first = sequence.steps.get(position=1).pk
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE leads_lead SET device_id = (%s::bigint[])[1 + id %% %s]", [[d.pk for d in devices], len(devices)]
        )
        cursor.execute(
            """INSERT INTO sequences_enrolment (sequence_id, lead_id, source, path, next_key, base_at, due_at, look_at,
                                                enrolled_at)
               SELECT %s, id, 'hand', '{}', %s, now(), at, at, now()
               FROM (SELECT id, now() + make_interval(secs => CASE WHEN row_number() OVER (ORDER BY id) <= %s THEN 0
                                                                   ELSE 86400 + id %% 864000 END) AS at
                     FROM leads_lead) l ORDER BY id""",
            [sequence.pk, first, plan.due],
        )
    seeding.settle()
    vacuum()
    return sequence


def measure_bare(sequence: Sequence, plan: Plan, now: datetime) -> float:
    """Milliseconds to find them."""
    with connection.cursor() as cursor:
        started = time.perf_counter()
        cursor.execute(BARE, [sequence.pk, now, plan.due])
        return _checked(len(cursor.fetchall()), plan, started)


def measure_scan(plan: Plan, now: datetime) -> float:
    """Milliseconds to find, lock and look them up as a round does."""
    with transaction.atomic():
        started = time.perf_counter()
        found = walking.facts_of(walking.due(now=now, limit=plan.due))
        return _checked(len(found), plan, started)


def measure_tick(plan: Plan, now: datetime) -> float:
    """Milliseconds for a whole round."""
    started = time.perf_counter()
    done = walking.walk_round(now=now, at_once=plan.due)
    return _checked(done.handed, plan, started)


def measure_insert(sequence: Sequence, plan: Plan) -> float:
    """Milliseconds to make as many messages, and nothing else."""
    batch = StepBatch.objects.get(sequence=sequence).batch_id
    with connection.cursor() as cursor:
        started = time.perf_counter()
        cursor.execute(BARE_INSERT, [batch, batch, sequence.pk, timezone.now(), plan.due])
        return _checked(cursor.rowcount, plan, started)


def put_back(sequence: Sequence) -> None:
    """The same enrolments due again, without messages."""
    with connection.cursor() as cursor:
        cursor.execute(
            """UPDATE sequences_enrolment SET message_id = NULL, handed_at = NULL, look_at = base_at, due_at = base_at
               WHERE sequence_id = %s AND message_id IS NOT NULL""",
            [sequence.pk],
        )
        cursor.execute("DELETE FROM messaging_message")
        cursor.execute("UPDATE messaging_stream SET total = 0, waiting = 0, is_open = false")
    vacuum()


def vacuum() -> None:
    """Nothing left over for the next round to stumble over."""
    with connection.cursor() as cursor:
        cursor.execute("VACUUM (ANALYZE, INDEX_CLEANUP ON) sequences_enrolment")
        cursor.execute("VACUUM (INDEX_CLEANUP ON) messaging_message, messaging_stream")
        cursor.execute("CHECKPOINT")


def forget(sequence: Sequence) -> None:
    """Leave nothing of it to the benches that follow."""
    Sequence.objects.filter(pk=sequence.pk).update(version=None)
    Message.objects.all().delete()
    with connection.cursor() as cursor:
        cursor.execute("TRUNCATE sequences_enrolment, sequences_stepbatch")
    Tally.objects.all().delete()
    Batch.objects.all().delete()
    sequence.delete()


def _checked(found: int, plan: Plan, started: float) -> float:
    milliseconds = 1000 * (time.perf_counter() - started)
    if found != plan.due:
        raise BenchFailed(f"{found:,} enrolments were found, and {plan.due:,} are due")
    return milliseconds


BENCH = Bench(name="enrolments", run=run, full=FULL, quick=QUICK)
