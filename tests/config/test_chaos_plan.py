"""The plan of a chaos run: the same for the same seed, bounded, and complete."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from config.chaos.fleet import SLOW_WEATHER
from config.chaos.plan import ARMED, DECK, GATEWAY_RULES, LEASE_SECONDS, WEATHER, WORKERS, make_plan
from messaging import failpoints
from messaging.simulator.faults import Faults


def test_a_seed_is_a_plan():
    assert make_plan(seed=7, seconds=60) == make_plan(seed=7, seconds=60)
    assert make_plan(seed=7, seconds=60) != make_plan(seed=8, seconds=60)


@settings(deadline=None)
@given(seed=st.integers(0, 2**40), seconds=st.floats(5, 300))
def test_every_plan_is_in_order_and_within_its_time(seed, seconds):
    plan = make_plan(seed=seed, seconds=seconds)
    assert plan.faults
    assert plan.groups
    assert [fault.at for fault in plan.faults] == sorted(fault.at for fault in plan.faults)
    assert [launch.at for launch in plan.launches] == sorted(launch.at for launch in plan.launches)
    assert all(fault.at < seconds for fault in plan.faults if fault.kind != "term")  # a rolling restart is ended
    assert all(launch.at < seconds for launch in plan.launches)
    assert [launch.group for launch in plan.launches if launch.group is not None] == list(range(len(plan.groups)))


def test_a_long_plan_does_all_there_is_and_freezes_outlast_leases():
    plan = make_plan(seed=1, seconds=120)
    done = {(fault.kind, fault.target) for fault in plan.faults}
    assert {card for card in DECK if card[0] != "roll"} <= done
    assert {("term", worker) for worker in WORKERS} <= done
    assert min(fault.seconds for fault in plan.faults if fault.kind == "freeze") > LEASE_SECONDS
    assert ("rogue", "releaser") in done
    assert sum(fault.target == "opt_out" for fault in plan.faults) > 20


@pytest.mark.parametrize("seconds", [20, 60, 600])
@pytest.mark.parametrize("seed", range(5))
def test_everything_stops_once_while_a_worker_sleeps_and_wakes_before_the_end_of_it(seed, seconds):
    plan = make_plan(seed=seed, seconds=seconds)
    (halt,) = [fault for fault in plan.faults if fault.target == "halt"]
    sleeps = [fault for fault in plan.faults if fault.kind == "freeze" and fault.at < halt.at]
    assert any(halt.at + 2 < sleep.at + sleep.seconds < halt.at + halt.seconds for sleep in sleeps)
    assert halt.at + halt.seconds < seconds


def test_some_clock_is_wrong_and_some_campaigns_are_slow():
    plan = make_plan(seed=3, seconds=60)
    ((worker, skew),) = plan.skews.items()
    assert worker in WORKERS
    assert abs(skew) >= 60
    assert {launch.slow for launch in plan.campaigns} == {True, False}
    assert len({make_plan(seed=seed, seconds=10).stuck_minutes for seed in range(20)}) == 2


@pytest.mark.parametrize("seed", range(20))
def test_failpoints_and_gateway_rules_are_such_as_their_readers_take(seed):
    armed = {}
    arms = make_plan(seed=seed, seconds=10).arms
    assert set(arms) == set(ARMED)
    for spec in arms.values():
        armed |= failpoints.parse(spec)[0]
    assert set(armed) == failpoints.NAMES
    Faults().add([{**rule, "seed": seed} for rule in (*GATEWAY_RULES.values(), *WEATHER, SLOW_WEATHER)])
