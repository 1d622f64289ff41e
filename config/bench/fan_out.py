"""Leads become message rows, against one bare INSERT of the same rows.

Ours: ``messaging.fanout.fill`` from the audience "everybody who agreed", turn by turn over a pool of devices, in chunks
of its own, each committed with its counters and cursor. Baseline: one ``INSERT … SELECT`` of the very same rows, which
lie ready in a table beside, into the same table with the same indexes and constraints; its streams are there already.

Between two runs messages are truncated, and statistics and a checkpoint made. Both are timed to their commit. The peak
memory of the process is read around each of our runs.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass

from django.contrib.auth.models import User
from django.db import connection
from django.utils import timezone

from config.bench import seeding
from config.bench.kind import Bench
from config.bench.memory import peak_bytes, restart_peak
from config.bench.results import BenchFailed, Goal, Line
from config.bench.stage import Stage
from devices.models import Device
from leads.audience import Audience
from messaging import fanout, services
from messaging.models import Batch


@dataclass(frozen=True, slots=True)
class Plan:
    """Sizes and goals."""

    leads: int
    devices: int
    rounds: int
    ratio_bound: float = 1.5
    growth_bound_mb: float = 50


FULL = Plan(leads=1_000_000, devices=3_000, rounds=3)
QUICK = Plan(leads=100_000, devices=3_000, rounds=1)


@dataclass(frozen=True, slots=True)
class Filled:
    """One of our runs: seconds, and how far the process's peak memory rose above where it began."""

    seconds: float
    growth_mb: float


def run(stage: Stage, plan: Plan) -> list[Line]:
    """Every round, then the lines."""
    seeding.clear()
    owner = seeding.make_owner()
    _, devices = seeding.make_fleet(owner=owner, number=plan.devices)
    seeding.make_leads(owner=owner, number=plan.leads)
    ours: list[Filled] = []
    baseline: list[float] = []
    try:
        for number in range(1, plan.rounds + 1):
            stage.say(f"fan_out: round {number} of {plan.rounds}")
            ours.append(measure_ours(owner=owner, devices=devices, leads=plan.leads))
            stage.check()
            baseline.append(measure_baseline(leads=plan.leads))
            stage.check()
    finally:
        with connection.cursor() as cursor:
            cursor.execute("DROP TABLE IF EXISTS bench_rows")
    size = f"{plan.leads:,} leads over {plan.devices:,} devices"
    return [
        Line(
            name="fan_out",
            what=f"{size} become message rows; baseline: one bare INSERT … SELECT of the same rows",
            unit="s",
            ours=[each.seconds for each in ours],
            baseline=baseline,
            goal=Goal(plan.ratio_bound, "most"),
        ),
        Line(
            name="fan_out_memory",
            what=f"{size}: how far the peak memory of the process rose meanwhile",
            unit="MB",
            ours=[each.growth_mb for each in ours],
            goal=Goal(plan.growth_bound_mb, "most", "ours"),
        ),
    ]


def measure_ours(*, owner: User, devices: list[Device], leads: int) -> Filled:
    """Fill a new batch; its rows stay, for the baseline to copy."""
    seeding.clear_messages()
    seeding.settle()
    batch = new_batch(owner=owner)
    before = restart_peak()
    started = time.perf_counter()
    made = fanout.fill(
        batch_id=batch.pk,
        leads=Audience(owner_id=owner.pk).reachable(),
        devices=[device.pk for device in devices],
    )
    seconds = time.perf_counter() - started
    growth = peak_bytes(os.getpid()) - before
    if made != leads:
        raise BenchFailed(f"{made:,} messages were made from {leads:,} leads")
    return Filled(seconds=seconds, growth_mb=growth / 2**20)


def measure_baseline(*, leads: int) -> float:
    """Seconds for a bare INSERT of the rows that our run has just made."""
    with connection.cursor() as cursor:
        cursor.execute("DROP TABLE IF EXISTS bench_rows")
        cursor.execute(
            """CREATE UNLOGGED TABLE bench_rows AS
               SELECT batch_id, stream_id, device_id, lead_id, phone, due_at FROM messaging_message ORDER BY id"""
        )
        cursor.execute("TRUNCATE messaging_message RESTART IDENTITY CASCADE")
        cursor.execute("VACUUM (ANALYZE) bench_rows")
    seeding.settle()
    with connection.cursor() as cursor:
        started = time.perf_counter()
        cursor.execute(
            """INSERT INTO messaging_message (batch_id, stream_id, device_id, lead_id, phone, due_at)
               SELECT batch_id, stream_id, device_id, lead_id, phone, due_at FROM bench_rows"""
        )
        seconds = time.perf_counter() - started
        if cursor.rowcount != leads:
            raise BenchFailed(f"{cursor.rowcount:,} rows were inserted for {leads:,} leads")
    return seconds


def new_batch(*, owner: User) -> Batch:
    """An empty batch."""
    return services.open_batch(
        owner=owner, name="Bench", content={"type": "text", "text": seeding.TEXT}, now=timezone.now()
    )


BENCH = Bench(name="fan_out", run=run, full=FULL, quick=QUICK)
