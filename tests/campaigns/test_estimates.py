"""Estimates beside the truth: the real statements and the real simulator on a clock that jumps, and the real pacing."""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta
from random import Random
from zoneinfo import ZoneInfo

import pytest
from django.db.models import Max
from hypothesis import given, settings
from hypothesis import strategies as st

from campaigns import loads
from campaigns.estimates import Load, estimate, mean_gap
from messaging.models import Attempt, Batch
from messaging.pacing import Rhythm, Window, gap_seconds, warm_up_cap
from tests.campaigns.support import launched
from tests.factories import make_campaign, make_leads, make_pool, make_user
from tests.messaging.test_rhythm import TimeTravelPool, run_until_sent

NOW = datetime(2026, 6, 1, 10, 30, tzinfo=UTC)
KL = ZoneInfo("Asia/Kuala_Lumpur")
CALL = 0.3


def played(load: Load, *, batch: Rhythm, rng: Random) -> datetime:
    """When this device is done, message by message, by the rules of the claim: gap, window, rolling caps, warm-up."""
    at, sent = NOW, list[datetime]()
    while len(sent) < load.messages:
        daily = load.cap_per_day
        if load.warm_from is not None:
            warm = warm_up_cap(age=at - load.warm_from)
            daily = warm if daily is None else min(daily, warm)
        closed = max((window.opens_in_seconds(at) for window in load.windows), default=0.0)
        caps = ((daily, timedelta(days=1)), (load.cap_per_hour, timedelta(hours=1)))
        # As a refused claim holds its device: until the message that fills the cap, as it is now, is old enough.
        room = max((sent[-cap] + span for cap, span in caps if cap and len(sent) >= cap), default=at)
        if closed or room > at:
            at = max(at + timedelta(seconds=closed), room)
            continue
        sent.append(at)
        at += timedelta(seconds=CALL + gap_seconds(device=load.rhythm, batch=batch, rng=rng))
    return sent[-1]


@given(
    low=st.floats(1, 60),
    width=st.floats(0, 60),
    batch_low=st.floats(0, 60),
    batch_width=st.floats(0, 30),
    messages=st.integers(80, 160),
    devices=st.integers(1, 4),
    per_hour=st.one_of(st.none(), st.integers(20, 200)),
    per_day=st.one_of(st.none(), st.integers(40, 300)),
    warm=st.booleans(),
    window=st.booleans(),
    seed=st.integers(0, 10_000),
)
@settings(max_examples=8, deadline=None)
def test_feature_21_estimates_are_within_a_tenth_of_what_pacing_caps_and_windows_come_to(
    low, width, batch_low, batch_width, messages, devices, per_hour, per_day, warm, window, seed
):
    load = Load(
        messages=messages,
        rhythm=Rhythm(low, low + width),
        cap_per_hour=per_hour,
        cap_per_day=per_day,
        warm_from=NOW - timedelta(days=3, hours=5) if warm else None,
        windows=(Window(time(9), time(21), KL),) if window else (),
    )
    batch, rng = Rhythm(batch_low, batch_low + batch_width), Random(seed)
    truth = max(played(load, batch=batch, rng=rng) for _ in range(devices)) - NOW
    told = estimate(loads=[load] * devices, batch=batch, now=NOW, call_seconds=CALL)
    assert told.finish_at is not None
    assert abs((told.finish_at - NOW) - truth) <= truth * 0.1 + timedelta(minutes=3)


def test_the_mean_gap_is_that_of_the_dice():
    device, batch, rng = Rhythm(10, 30), Rhythm(5, 40), Random(5)
    drawn = [gap_seconds(device=device, batch=batch, rng=rng) for _ in range(20_000)]
    mean, deviation = mean_gap(device=device, batch=batch)
    assert abs(mean - sum(drawn) / len(drawn)) < 0.3
    assert deviation == pytest.approx((sum((x - mean) ** 2 for x in drawn) / len(drawn)) ** 0.5, abs=0.3)
    assert mean_gap(device=Rhythm(7, 7), batch=Rhythm()) == (7, 0.0)


def test_nothing_to_send_is_done_and_a_window_that_never_lets_enough_through_is_never():
    assert estimate(loads=[], batch=Rhythm(), now=NOW).finish_at == NOW
    assert estimate(loads=[Load(messages=10_000, cap_per_day=1)], batch=Rhythm(), now=NOW).finish_at is None


@pytest.mark.parametrize("gap", [4e6, 1e12, 1e300])
@pytest.mark.parametrize("cap", [None, 5])
def test_gaps_beyond_any_calendar_are_never(gap: float, cap: int | None):
    load = Load(messages=1_000_000, rhythm=Rhythm(gap, gap), cap_per_hour=cap)
    assert estimate(loads=[load], batch=Rhythm(0, 0), now=NOW).finish_at is None
    wide = Load(messages=3, rhythm=Rhythm(0, gap * 1e3), cap_per_hour=cap)
    assert estimate(loads=[wide], batch=Rhythm(0, 0), now=NOW).finish_at is None


@pytest.mark.django_db(transaction=True)
def test_feature_21_a_simulated_run_ends_within_a_tenth_of_its_estimate_before_and_during(simulator):
    owner, far = make_user(), TimeTravelPool()
    pool, _ = make_pool(owner=owner, devices=4, delay_min_seconds=5, delay_max_seconds=25, cap_per_hour=12)
    make_leads(72, owner=owner)
    campaign = make_campaign(owner=owner, pool=pool, delay_min_seconds=10, delay_max_seconds=20)
    try:
        begun = far.now()
        before = loads.before(campaign, now=begun).finish_at
        run = launched(campaign, now=begun)
        during = loads.during(run, now=begun)
        run_until_sent(far, seed=3, jumps=900)
    finally:
        far.close()
    truth = Attempt.objects.aggregate(last=Max("started_at"))["last"] - begun
    assert truth > timedelta(hours=1)
    for told in (before, during and during.finish_at):
        assert told is not None
        assert abs((told - begun) - truth) <= truth * 0.1
    Batch.objects.update(state="paused")
    assert loads.during(run, now=begun) is None
