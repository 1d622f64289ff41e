"""All benches, one line each, in the order in which they run."""

from __future__ import annotations

from config.bench import (
    end_to_end,
    enrolments,
    fan_out,
    flower_events,
    imports,
    mixed_fleet,
    pacing,
    queues,
    release,
    reports,
    screens,
    segments,
    single_device,
)
from config.bench.kind import Bench

BENCHES: tuple[Bench, ...] = (
    queues.BENCH,
    end_to_end.BENCH,
    single_device.BENCH,
    pacing.BENCH,
    fan_out.BENCH,
    imports.BENCH,
    release.BENCH,
    reports.BENCH,
    screens.BENCH,
    segments.BENCH,
    mixed_fleet.BENCH,
    enrolments.BENCH,
    flower_events.BENCH,
)

BY_NAME: dict[str, Bench] = {bench.name: bench for bench in BENCHES}
