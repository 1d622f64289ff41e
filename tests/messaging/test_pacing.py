from __future__ import annotations

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from messaging.pacing import Rhythm, gap_seconds, retry_delay_seconds

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
