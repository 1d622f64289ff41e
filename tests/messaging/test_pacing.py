from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from random import Random
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from messaging.pacing import Rhythm, Window, gap_seconds, retry_delay_seconds, warm_up_cap

seconds = st.floats(min_value=0, max_value=3600, allow_nan=False)
rhythms = st.tuples(seconds, seconds).map(lambda pair: Rhythm(min(pair), max(pair)))


@given(device=rhythms, batch=rhythms, seed=st.integers())
def test_a_gap_satisfies_both_the_device_and_the_batch(device: Rhythm, batch: Rhythm, seed: int) -> None:
    gap = gap_seconds(device=device, batch=batch, rng=Random(seed))
    assert gap >= max(device.min_seconds, batch.min_seconds)
    assert gap <= max(device.max_seconds, batch.max_seconds)


def test_gaps_spread_over_their_whole_range() -> None:
    rng = Random(7)
    gaps = [gap_seconds(device=Rhythm(10, 30), batch=Rhythm(), rng=rng) for _ in range(2000)]
    assert min(gaps) < 10.5
    assert max(gaps) > 29.5
    assert abs(sum(gaps) / len(gaps) - 20) < 0.5


def test_retries_back_off_and_end() -> None:
    minutes = [5, 15, 30, 60, 120]
    assert [retry_delay_seconds(attempt=n, minutes=minutes) for n in range(1, 7)] == [300, 900, 1800, 3600, 7200, None]


zones = st.sampled_from(["UTC", "Asia/Kuala_Lumpur", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe"])
moments = st.datetimes(min_value=datetime(2026, 1, 1), max_value=datetime(2027, 12, 31)).map(  # noqa: DTZ001 - UTC below
    lambda moment: moment.replace(tzinfo=UTC)
)
clocks = st.times().map(lambda at: at.replace(microsecond=0))


@given(start=clocks, end=clocks, zone=zones, now=moments)
def test_after_the_wait_the_window_is_open(start: time, end: time, zone: str, now: datetime) -> None:
    window = Window(start, end, ZoneInfo(zone))
    wait = window.opens_in_seconds(now)
    assert 0 <= wait <= 25 * 3600
    later = now + timedelta(seconds=wait)
    length = (datetime.combine(now, end) - datetime.combine(now, start)).total_seconds() % 86400 or 86400
    if length > 2 * 3600:  # a shorter one may fall whole into a clock change
        assert window.opens_in_seconds(later) <= 3600


@pytest.mark.parametrize(
    ("at", "hours"), [("08:00", 1), ("09:00", 0), ("17:59", 0), ("18:00", 15), ("23:00", 10), ("00:30", 8.5)]
)
def test_office_hours(at: str, hours: float) -> None:
    zone = ZoneInfo("Asia/Kuala_Lumpur")
    now = datetime.combine(date(2026, 3, 2), time.fromisoformat(at), tzinfo=zone)
    assert Window(time(9), time(18), zone).opens_in_seconds(now) == hours * 3600


def test_a_window_may_go_past_midnight() -> None:
    zone = ZoneInfo("UTC")
    window = Window(time(22), time(2), zone)
    for hour, wait in [(21, 1), (22, 0), (1, 0), (2, 20)]:
        assert window.opens_in_seconds(datetime(2026, 3, 2, hour, tzinfo=zone)) == wait * 3600


def test_a_new_number_warms_up() -> None:
    caps = [warm_up_cap(age=timedelta(days=day)) for day in range(30)]
    assert caps[0] == 20
    assert caps == sorted(caps)
    assert caps[13] > 300
    assert warm_up_cap(age=timedelta(days=-1)) == 20
