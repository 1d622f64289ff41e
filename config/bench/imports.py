"""A CSV of leads becomes rows, against one bare COPY of the very same rows.

Ours: ``leads.services.create_import`` and ``run_import`` with a file as people have them: names, phone numbers in five
spellings, tags, a status, a column of their own. It is stored, decoded, checked, turned into E.164 and merged by
chunks, each committed with its counts and cursor. Baseline: COPY of the rows that our run made, all columns, from a CSV
made beforehand, into the same table, emptied, with the same indexes and constraints.

Between two runs the table is truncated, and statistics and a checkpoint made. Both are timed to their commit. Ours runs
in a process of its own, whose peak memory is read at its end.
"""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from django.contrib.auth.models import User
from django.db import connection

from config.bench import seeding
from config.bench.kind import Bench
from config.bench.results import BenchFailed, Goal, Line
from config.bench.stage import Stage
from config.stack.places import CHECKOUT

_COLUMNS = (
    "owner_id, phone, name, status, niches, triggers, notes, custom, consent_at, consent_source, created_at, updated_at"
)
_CHILD = """
import json, os, sys, time, django
django.setup()
from django.contrib.auth.models import User
from config.bench.memory import peak_bytes
from leads import services
owner, path = User.objects.get(username="bench"), sys.argv[1]
started = time.perf_counter()
with open(path, "rb") as file:
    made = services.create_import(owner=owner, file=file, filename="bench.csv", region="MY", consent_source="bench")
done = services.run_import(import_id=made.pk)
seconds = time.perf_counter() - started
done.file.delete(save=False)
print(json.dumps({"seconds": seconds, "peak": peak_bytes(os.getpid()), "accepted": done.accepted, "error": done.error}))
"""


@dataclass(frozen=True, slots=True)
class Plan:
    """Sizes and goals."""

    rows: int
    rounds: int
    ratio_bound: float = 6
    memory_bound_mb: float = 300


FULL = Plan(rows=1_000_000, rounds=3)
QUICK = Plan(rows=50_000, rounds=1)


@dataclass(frozen=True, slots=True)
class Imported:
    """One of our runs: seconds, and the peak memory of its process."""

    seconds: float
    peak_mb: float


def run(stage: Stage, plan: Plan) -> list[Line]:
    """Every round, then the lines."""
    seeding.clear()
    owner = seeding.make_owner()
    folder = stage.folder / "import-bench"
    folder.mkdir(parents=True, exist_ok=True)
    source, copied = folder / "leads.csv", folder / "rows.csv"
    ours: list[Imported] = []
    baseline: list[float] = []
    try:
        write_source(source, rows=plan.rows)
        for number in range(1, plan.rounds + 1):
            stage.say(f"import: round {number} of {plan.rounds}")
            ours.append(measure_ours(stage, source=source, owner=owner, rows=plan.rows))
            stage.check()
            baseline.append(measure_baseline(copied=copied, rows=plan.rows))
            stage.check()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        empty()
    return [
        Line(
            name="import",
            what=f"a CSV of {plan.rows:,} leads is imported; baseline: COPY of the same rows into the same table",
            unit="s",
            ours=[each.seconds for each in ours],
            baseline=baseline,
            goal=Goal(plan.ratio_bound, "most"),
        ),
        Line(
            name="import_memory",
            what=f"{plan.rows:,} leads: peak memory of the process that imports",
            unit="MB",
            ours=[each.peak_mb for each in ours],
            goal=Goal(plan.memory_bound_mb, "most", "ours"),
        ),
    ]


def write_source(path: Path, *, rows: int) -> None:
    """The file that is imported; every phone once."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["name", "phone", "niche", "target_status", "trigger", "city"])
        writer.writerows(_rows(rows))


def _rows(number: int) -> Iterator[tuple[str, ...]]:
    niches, cities = ("TRAVEL", "FITNESS", "TRAVEL, FITNESS", ""), ("Ipoh", "Kuala Lumpur", "", "Johor Bahru")
    for n in range(number):
        tail = f"{n:07d}"
        spelling = (
            f"+6012{tail}", f"012-{tail[:3]} {tail[3:]}", f"6012{tail}", f"+60 12-{tail[:3]} {tail[3:]}", f"012{tail}",
        )[n % 5]  # fmt: skip
        yield (
            f"Person {n}", spelling, niches[n % 4], ("prospect", "customer", "")[n % 3], f"T{n % 7}", cities[n % 4],
        )  # fmt: skip


def measure_ours(stage: Stage, *, source: Path, owner: User, rows: int) -> Imported:
    """Import the file; its leads stay, for the baseline to copy."""
    empty()
    seeding.settle()
    child = subprocess.run(
        [sys.executable, "-c", _CHILD, str(source)],
        cwd=CHECKOUT, capture_output=True, text=True, check=False,
        env={
            **os.environ, **stage.environment, "DJANGO_SETTINGS_MODULE": "config.settings",
            "FLOTILLA_MEDIA_ROOT": str(source.parent / "media"),
        },
    )  # fmt: skip
    if child.returncode:
        raise BenchFailed(f"the import ended with {child.returncode}: {child.stderr[-500:]}")
    found = json.loads(child.stdout.splitlines()[-1])
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM leads_lead WHERE owner_id = %s", [owner.pk])
        (there,) = cursor.fetchone()
    if found["accepted"] != rows or there != rows:
        raise BenchFailed(f"{there:,} leads came out of {rows:,} rows: {found['error']}")
    return Imported(seconds=found["seconds"], peak_mb=found["peak"] / 2**20)


def measure_baseline(*, copied: Path, rows: int) -> float:
    """Seconds for a COPY of what our run has made."""
    with copied.open("wb") as file, connection.cursor() as cursor:
        cursor.cursor.copy_expert(f"COPY (SELECT {_COLUMNS} FROM leads_lead ORDER BY id) TO STDOUT (FORMAT csv)", file)  # noqa: S608 - constants only
    empty()
    seeding.settle()
    with copied.open("rb") as file, connection.cursor() as cursor:
        started = time.perf_counter()
        cursor.cursor.copy_expert(f"COPY leads_lead ({_COLUMNS}) FROM STDIN (FORMAT csv)", file)
        seconds = time.perf_counter() - started
        if cursor.rowcount != rows:
            raise BenchFailed(f"{cursor.rowcount:,} rows were copied, not {rows:,}")
    return seconds


def empty() -> None:
    """Forget every lead and import."""
    with connection.cursor() as cursor:
        cursor.execute("TRUNCATE leads_lead, leads_leadimport RESTART IDENTITY CASCADE")


BENCH = Bench(name="import", run=run, full=FULL, quick=QUICK)
