"""The next message of every due device, against the query that only finds them.

Ours: ``release_round`` as often as it takes for all due devices: locks them, picks each one's next message out of all
that are pending, marks it queued, sets the devices' next wake-up, commits. Baseline: one SELECT that finds the same
messages by LATERAL and changes nothing. What was released is put back between two rounds, outside the clock; one round
of each is run first and not counted.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from django.db import connection

from config.bench import seeding
from config.bench.fan_out import new_batch
from config.bench.kind import Bench
from config.bench.results import BenchFailed, Goal, Line
from config.bench.stage import Stage
from leads.audience import Audience
from messaging import fanout
from messaging.dispatch.pool import Pool
from messaging.dispatch.release import DEVICES_PER_ROUND, release_round

# Indexes device_due, stream_open_by_device, message_next: the same as the release.
FIND = """
SELECT d.id, n.id
FROM devices_device d
CROSS JOIN LATERAL (
    SELECT m.id
    FROM messaging_stream s
    CROSS JOIN LATERAL (
        SELECT id, due_at FROM messaging_message
        WHERE stream_id = s.id AND state = 'pending' AND due_at <= flotilla_now()
        ORDER BY due_at, id LIMIT 1
    ) m
    WHERE s.device_id = d.id AND s.is_open
    ORDER BY m.due_at, m.id LIMIT 1
) n
WHERE d.state = 'active' AND d.wake_at <= flotilla_now()
"""


@dataclass(frozen=True, slots=True)
class Plan:
    """Sizes and goals."""

    messages: int
    devices: int
    rounds: int
    ratio_bound: float = 5


FULL = Plan(messages=1_000_000, devices=3_000, rounds=7)
QUICK = Plan(messages=100_000, devices=3_000, rounds=5)


def run(stage: Stage, plan: Plan) -> list[Line]:
    """Every round, then the line."""
    stage.say("release: preparing")
    seeding.clear()
    owner = seeding.make_owner()
    _, devices = seeding.make_fleet(owner=owner, number=plan.devices)
    seeding.make_leads(owner=owner, number=plan.messages)
    fanout.fill(
        batch_id=new_batch(owner=owner).pk,
        leads=Audience(owner_id=owner.pk).reachable(),
        devices=[device.pk for device in devices],
    )
    seeding.settle()
    ours: list[float] = []
    baseline: list[float] = []
    pool = Pool(size=1)
    try:
        for _ in range(plan.rounds + 1):
            stage.check()
            baseline.append(measure_baseline(devices=plan.devices))
            ours.append(measure_ours(pool, devices=plan.devices))
            put_back()
    finally:
        pool.close()
    return [
        Line(
            name="release",
            what=f"next message of {plan.devices:,} due devices out of {plan.messages:,} pending, queued and "
            "committed; baseline: the bare LATERAL query",
            unit="ms",
            ours=ours[1:],
            baseline=baseline[1:],
            goal=Goal(plan.ratio_bound, "most"),
        )
    ]


def measure_ours(pool: Pool, *, devices: int) -> float:
    """Milliseconds to release one message of each device."""
    released = 0
    started = time.perf_counter()
    for _ in range(0, devices, DEVICES_PER_ROUND):
        released += len(release_round(pool=pool)[1])
    milliseconds = 1000 * (time.perf_counter() - started)
    if released != devices:
        raise BenchFailed(f"{released:,} messages were released for {devices:,} due devices")
    return milliseconds


def measure_baseline(*, devices: int) -> float:
    """Milliseconds to find them."""
    with connection.cursor() as cursor:
        started = time.perf_counter()
        cursor.execute(FIND)
        found = len(cursor.fetchall())
        milliseconds = 1000 * (time.perf_counter() - started)
    if found != devices:
        raise BenchFailed(f"{found:,} messages were found for {devices:,} due devices")
    return milliseconds


def put_back() -> None:
    """Make what was released pending again and every device due, and clear up behind it."""
    with connection.cursor() as cursor:
        cursor.execute("UPDATE messaging_message SET state = 'pending', lane = NULL WHERE state = 'queued'")
        cursor.execute("UPDATE devices_device SET wake_at = now()")
        cursor.execute("VACUUM (ANALYZE) devices_device")
        # By itself VACUUM leaves the index entries of a few dead rows alone, and the baseline would stumble over them.
        cursor.execute("VACUUM (INDEX_CLEANUP ON) messaging_message")
        cursor.execute("CHECKPOINT")


BENCH = Bench(name="release", run=run, full=FULL, quick=QUICK)
