"""Every bench at a tiny size: it works, and it says no when the goal is out of reach."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from urllib.parse import urlsplit, urlunsplit

import pytest
from django.db import connection

from config.bench import (
    end_to_end,
    enrolments,
    fan_out,
    imports,
    pacing,
    queues,
    release,
    reports,
    screens,
    seeding,
    segments,
    single_device,
)
from config.bench.corridor import Passage
from config.bench.registry import BENCHES, BY_NAME
from config.bench.results import BenchFailed, Goal, Line
from config.bench.stage import Stage
from config.demo.verdict import Verdict
from config.stack.children import Children
from config.stack.keys import local_secrets

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.slow]


@pytest.fixture
def stage(tmp_path) -> Iterator[Stage]:
    """The session's servers, with the test database, and a few threads."""
    url = urlunsplit(urlsplit(os.environ["DATABASE_URL"])._replace(path=f"/{connection.settings_dict['NAME']}"))
    children = Children()
    stage = Stage(
        folder=tmp_path,
        environment={**local_secrets(), **os.environ, "DATABASE_URL": url},
        children=children,
        say=lambda _: None,
        threads=4,
    )
    yield stage
    children.close()
    stage.empty_broker()


def by_name(lines: list[Line]) -> dict[str, Line]:
    return {line.name: line for line in lines}


def test_queues(stage):
    plan = queues.Plan(
        sizes={1: 0.0001, 40: 1e9}, rounds=1, warm=50, window=2_000, seconds=30, rss_bound=100, stock_queues=5,
        peers={"dramatiq": (2,), "huey": (1, 2)},
    )  # fmt: skip
    lines = by_name(queues.run(stage, plan))
    assert lines["queues_1"].holds is True
    assert lines["queues_40"].holds is False
    assert lines["queues_worker_rss"].holds is True
    assert replace(lines["queues_worker_rss"], goal=Goal(0.01, "most")).holds is False
    for name in ("queues_1", "queues_40", "queues_stock_1", "queues_stock_5", "queues_dramatiq_2", "queues_huey_1"):
        assert lines[name].our_median, (name, lines[name].note)
    assert lines["queues_huey_2"].our_median is None
    assert "one queue" in lines["queues_huey_2"].note


def test_a_peer_without_its_python_says_so(stage):
    (line,) = queues.peer_lines(stage, sizes={"procrastinate": (3,)}, warm=5, window=10, seconds=5)
    assert line.our_median is None
    assert "PEERS_PYTHON" in line.note


def test_end_to_end(stage):
    plan = end_to_end.Plan(devices=5, messages=40, warm=5, rounds=1, ratio_bound=1e9, per_minute_bound=1)
    lines = by_name(end_to_end.run(stage, plan))
    assert lines["end_to_end"].holds is False
    assert lines["end_to_end_per_minute"].holds is True
    assert lines["end_to_end_wrong"].holds is True


def test_single_device(stage):
    plan = single_device.Plan(messages=40, warm=5, rounds=1, lanes=3, ratio_bound=0.0001, per_second_bound=1e9)
    lines = by_name(single_device.run(stage, plan))
    assert lines["single_device"].holds is True
    assert lines["single_device_per_second"].holds is False
    assert lines["single_device_wrong"].holds is True


def test_whatever_went_wrong_with_a_message_counts():
    verdict = Verdict(
        delivered=9, lost=(1, 2), duplicated=(3,), unaccounted=(4,), out_of_order=(), repeats_dropped=0
    )  # fmt: skip
    assert Passage(per_second=1.0, verdict=verdict, unfinished=5, cpu_ms={}).wrong == 9


def test_pacing(stage):
    plan = pacing.Plan(
        devices=5, gap_min_seconds=1, gap_max_seconds=1.5, seconds=4, look_seconds=0.05, lead_in_seconds=4,
        ratio_bound=5, lateness_bound_seconds=60,
    )  # fmt: skip
    lines = by_name(pacing.run(stage, plan))
    assert lines["pacing_throughput"].holds is False
    assert lines["pacing_lateness_p99"].holds is True
    assert lines["pacing_early"].holds is True


FAN_OUT = fan_out.Plan(leads=500, devices=7, rounds=2, ratio_bound=1e6, growth_bound_mb=1000)


def test_fan_out(stage):
    lines = by_name(fan_out.run(stage, FAN_OUT))
    assert [line.holds for line in lines.values()] == [True, True]
    assert len(lines["fan_out"].ours) == len(lines["fan_out"].baseline) == 2


def test_fan_out_can_miss(stage):
    assert by_name(fan_out.run(stage, replace(FAN_OUT, rounds=1, ratio_bound=0.001)))["fan_out"].holds is False


IMPORT = imports.Plan(rows=300, rounds=1, ratio_bound=1e6, memory_bound_mb=5000)


def test_import(stage):
    lines = by_name(imports.run(stage, IMPORT))
    assert [line.holds for line in lines.values()] == [True, True]


def test_import_can_miss(stage):
    lines = by_name(imports.run(stage, replace(IMPORT, ratio_bound=0.001, memory_bound_mb=1)))
    assert [line.holds for line in lines.values()] == [False, False]


def test_an_import_that_loses_a_row_is_no_figure(stage, tmp_path):
    imports.write_source(source := tmp_path / "leads.csv", rows=5)
    source.write_text(source.read_text() + "Person 0 again,+60120000000,,,,\n")
    with pytest.raises(BenchFailed, match="5 leads came out of 6 rows"):
        imports.measure_ours(stage, source=source, owner=seeding.make_owner(), rows=6)


ENROLMENTS = enrolments.Plan(enrolments=300, due=40, rounds=1, scan_ms=1e9, tick_ratio=1e-9)


def test_enrolments(stage):
    lines = by_name(enrolments.run(stage, ENROLMENTS))
    assert lines["enrolments_scan"].holds is True
    assert lines["enrolments_tick"].holds is False
    with pytest.raises(BenchFailed, match="enrolments were found"):
        enrolments.run(stage, replace(ENROLMENTS, due=400))


SEGMENTS = segments.Plan(leads=250, rounds=1, count_bound_ms=1e9, page_bound_ms=0.001)


def test_segments(stage):
    lines = by_name(segments.run(stage, SEGMENTS))
    assert lines["segments_count_p95"].holds is True
    assert [lines[f"segments_{kind}_p95"].holds for kind in ("list", "page", "admin")] == [False] * 3


def test_the_95th_percentile():
    assert segments.p95([float(n) for n in range(100, 0, -1)]) == 95
    assert segments.p95([3.0]) == 3


RELEASE = release.Plan(messages=300, devices=20, rounds=2, ratio_bound=1e6)


def test_release(stage):
    (line,) = release.run(stage, RELEASE)
    assert line.holds is True
    assert len(line.ours) == len(line.baseline) == 2


def test_release_can_miss(stage):
    (line,) = release.run(stage, replace(RELEASE, ratio_bound=0.001))
    assert line.holds is False


def test_a_release_that_leaves_devices_out_is_no_figure(stage):
    """The clock must not reward doing less."""
    release.run(stage, RELEASE)
    with connection.cursor() as cursor:
        cursor.execute("UPDATE devices_device SET state = 'paused' WHERE id % 2 = 0")
    pool = release.Pool(size=1)
    with pytest.raises(BenchFailed, match="for 20 due devices"):
        release.measure_ours(pool, devices=20)
    with pytest.raises(BenchFailed, match="for 20 due devices"):
        release.measure_baseline(devices=20)
    pool.close()


def test_a_worker_that_dies_is_told_with_its_last_words(stage):
    with (
        stage.worker(name="broken", argv=["/bin/sh", "-c", "echo no broker here; exit 3"], env={}) as child,
        pytest.raises(BenchFailed, match=r"broken ended \(3\): no broker here"),
    ):
        stage.wait(lambda: stage.done() > 0, what="a task", seconds=30, alive=[child])


def test_workers_get_none_of_the_products_secrets(stage):
    given = stage.worker_environment()
    assert not {"FLOTILLA_FIELD_KEYS", "FLOTILLA_SECRET_KEY", "DATABASE_URL", "DJANGO_SETTINGS_MODULE"} & set(given)
    assert stage.environment["DATABASE_URL"] not in repr(stage)


def test_reports(stage):
    plan = reports.Plan(messages=400, devices=7, rounds=1, most_milliseconds=0.001, most_ratio=1e9)
    lines = by_name(reports.run(stage, plan))
    assert lines["reports"].holds is False
    assert lines["reports_ten_times_the_rows"].holds is True
    assert lines["reports_leads_sent"].our_median
    assert lines["reports_leads_failed"].our_median


def test_screens(stage):
    lines = by_name(screens.run(stage, screens.Plan(messages=400, devices=7, rounds=1, most_milliseconds=0.001)))
    assert lines["screens"].holds is False
    assert lines["screens"].note.startswith("/admin/")
    assert lines["screens_queries"].holds is True
    assert lines["screens_queries"].our_median > 5


def test_the_registry_knows_each_bench_once():
    assert len(BY_NAME) == len(BENCHES) == 13
