"""What a line says, and that it can say no."""

from __future__ import annotations

import io
import json
import os
import sys
from datetime import UTC, datetime, timedelta
from importlib.metadata import packages_distributions

import pytest
from rich.console import Console

from config.bench import corridor, results
from config.bench.chart import draw
from config.bench.memory import peak_bytes, restart_peak
from config.bench.pacing import Allowed, read
from config.bench.results import BenchFailed, Goal, Line
from config.bench.stage import BENCH, Sample, rate


def line(**fields) -> Line:
    return Line(**{"name": "x", "what": "what was run", "unit": "s", **fields})


@pytest.mark.parametrize(
    ("goal", "ours", "baseline", "holds"),
    [
        (Goal(0.9, "least"), [90.0], [100.0], True),
        (Goal(0.9, "least"), [89.0], [100.0], False),
        (Goal(1.5, "most"), [15.0], [10.0], True),
        (Goal(1.5, "most"), [15.1], [10.0], False),
        (Goal(80, "least", "ours"), [79.9], [], False),
        (Goal(0, "most", "ours"), [0.0], [], True),
        (Goal(0, "most", "ours"), [1.0], [], False),
        (Goal(0.9, "least"), [], [100.0], False),
        (Goal(0.9, "least"), [90.0], [], False),
        (None, [1.0], [2.0], None),
    ],
)
def test_a_goal_is_met_or_not(goal, ours, baseline, holds):
    assert line(ours=ours, baseline=baseline, goal=goal).holds is holds


def test_the_medians_are_compared_so_one_odd_round_decides_nothing():
    odd = line(ours=[10.0, 11.0, 500.0], baseline=[10.0, 1.0, 10.0], goal=Goal(1.2, "most"))
    assert odd.ratio == pytest.approx(1.1)
    assert odd.holds is True


def test_rounds_that_differ_are_called_uneven_beside_the_verdict():
    def shown(found: Line) -> str:
        console = Console(width=200, record=True, file=io.StringIO())
        console.print(results.table([found]))
        return console.export_text()

    disturbed = line(ours=[29.0, 24.0, 34.0], baseline=[31.0, 18.0, 35.0], goal=Goal(1.5, "most"))
    assert "rounds differ 1.9 ×" in shown(disturbed)
    assert "differ" not in shown(line(ours=[10.0, 11.0], baseline=[9.0, 9.5], goal=Goal(1.5, "most")))
    assert line(ours=[0.0, 0.0]).unevenness == 1


def test_a_bench_that_broke_off_meets_no_goal():
    assert line(failed=True).holds is False


def test_the_file_says_what_was_run_and_every_round(tmp_path):
    found = [line(ours=[1.0, 3.0, 2.0], baseline=[4.0], goal=Goal(0.9, "least")), line(note="cannot: no reason")]
    path = results.write(folder=tmp_path / "new", name="queues", lines=found, when="2026-01-01T00:00:00Z", quick=True)
    first, second = json.loads(path.read_text())
    assert {"name", "ours", "baseline", "ratio", "goal", "holds", "unit", "machine", "when", "what"} <= set(first)
    assert (first["ours"], first["baseline"], first["ratio"], first["goal"], first["holds"]) == (2, 4, 0.5, 0.9, False)
    assert first["rounds"] == {"ours": [1, 3, 2], "baseline": [4]}
    assert first["goal_is"] == "ratio at least"
    assert (second["ours"], second["holds"], second["note"]) == (None, None, "cannot: no reason")
    assert [each.name for each in path.parent.iterdir()] == ["queues.json"]


def test_the_rate_leaves_out_the_warm_up_and_what_came_after_the_window():
    samples = [Sample(0, 1), Sample(10, 100), Sample(11, 300), Sample(12, 500), Sample(90, 501)]
    assert rate(samples, warm=100, window=400) == pytest.approx(200)


def test_a_worker_that_ended_early_is_not_made_slower_by_standing_still():
    samples = [Sample(0, 1), Sample(1, 101), Sample(2, 201), Sample(3, 201), Sample(60, 201)]
    assert rate(samples, warm=100, window=1000) == pytest.approx(100)


@pytest.mark.parametrize("samples", [[], [Sample(0, 5)], [Sample(0, 200), Sample(1, 200)]])
def test_too_few_tasks_make_no_figure(samples):
    with pytest.raises(BenchFailed):
        rate(samples, warm=100, window=10)


def test_messages_per_second_leave_out_the_warm_up():
    moments = [0.0, 50.0, 100.0, 100.5, 101.0]
    assert corridor.per_second(moments, warm=2) == pytest.approx(2)
    with pytest.raises(BenchFailed):
        corridor.per_second(moments, warm=4)


def test_peak_memory_sees_what_was_taken_and_given_back():
    """Else "memory flat" could never fail."""
    before = restart_peak()
    taken = bytearray(os.urandom(1)) * (80 * 2**20)
    assert len(taken) == 80 * 2**20
    del taken
    assert peak_bytes(os.getpid()) - before > 60 * 2**20
    assert restart_peak() < before + 60 * 2**20


def test_no_bench_takes_the_name_of_a_package_away_from_the_workers():
    """Their search path begins with the folder of the benches: flower.py there once gave them all of Django."""
    ours = {file.stem for file in BENCH.iterdir() if file.suffix == ".py" or (file / "__init__.py").exists()}
    taken = ours & ({*packages_distributions()} | sys.stdlib_module_names)
    assert not taken, f"rename config/bench/{'.py, '.join(taken)}.py"


def test_a_process_that_is_gone_has_no_peak():
    with pytest.raises(BenchFailed):
        peak_bytes(2**22 + 1)


START = datetime(2026, 1, 1, tzinfo=UTC)


def sent(n: float, *, message: int) -> dict[str, object]:
    at = START.timestamp() + n
    return {"device": "t", "message": message, "at": at, "monotonic": n, "end": n + 0.01}


def rhythm(*moments: float, allowed_after: float):
    """What the bench reads from one device's requests, each gap allowed ``allowed_after`` its record."""
    entries = [sent(moment, message=number) for number, moment in enumerate(moments)]
    recorded = {number: START + timedelta(seconds=moment + 0.02) for number, moment in enumerate(moments)}
    seen: dict[tuple[str, datetime | None], datetime] = {
        ("d", at): at + timedelta(seconds=allowed_after) for at in recorded.values()
    }
    return read(
        entries,
        names={"t": "d"},
        recorded=recorded,
        allowed=Allowed(seen=seen),
        begin=START.timestamp() + 5,
        end=START.timestamp() + 100,
        gap_min_seconds=10,
    )


def test_a_device_in_its_rhythm_is_neither_late_nor_early():
    found = rhythm(0, 12.1, 24.2, allowed_after=12)
    assert (found.requests, found.early, found.unseen) == (2, 0, 0)
    assert found.lateness_seconds == pytest.approx([0.08, 0.08], abs=0.001)


def test_lateness_counts_from_the_moment_that_the_gap_allowed():
    assert max(rhythm(0, 17.02, allowed_after=12).lateness_seconds) == pytest.approx(5.0, abs=0.001)


def test_a_gap_shorter_than_the_shortest_is_early_whatever_the_row_said():
    assert rhythm(0, 9.9, allowed_after=8).early == 1


def test_a_send_before_its_moment_is_early_even_if_the_gap_is_long_enough():
    assert rhythm(0, 11.0, allowed_after=12).early == 1


def test_the_chart_has_a_line_for_each_series_that_was_measured(tmp_path):
    lines = [
        line(ours=[4000.0], point=("Flotilla", 1)),
        line(ours=[3900.0], point=("Flotilla", 100_000)),
        line(ours=[1100.0], point=("stock Celery", 1)),
        line(note="cannot", point=("huey", 3000)),
        line(ours=[7.0]),
    ]
    draw(lines, path=tmp_path / "charts" / "queues.svg")
    drawn = (tmp_path / "charts" / "queues.svg").read_text()
    assert "Flotilla" in drawn
    assert "stock Celery" in drawn
    assert "huey" not in drawn
    draw(lines, path=tmp_path / "again.svg")
    assert (tmp_path / "again.svg").read_text() == drawn
