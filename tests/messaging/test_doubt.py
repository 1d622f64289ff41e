from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devices.gateways.base import IdSemantics
from messaging.doubt import Doubt, Policy, Step, Verdict, consider, policy_for

NOW = datetime(2026, 5, 1, 12, 0, tzinfo=UTC)
CLOSE, GRACE = timedelta(hours=24), timedelta(minutes=5)


def verdict(*, age: timedelta = timedelta(0), policy: str = "hold", ids: IdSemantics = "none", **facts) -> Verdict:
    doubt = Doubt(
        since=NOW - age, attempts=facts.pop("attempts", 1), may_go_out=facts.pop("may_go_out", True),
        id_semantics=ids, policy=Policy(policy),
    )  # fmt: skip
    return consider(doubt, now=NOW, close_after=CLOSE, grace=GRACE, retry_minutes=[5, 15])


def test_held_until_it_is_presumed_sent() -> None:
    assert verdict() == Verdict(Step.WAIT, 3600)
    assert verdict(age=CLOSE - timedelta(minutes=5)) == Verdict(Step.WAIT, 300)
    assert verdict(age=CLOSE) == Verdict(Step.PRESUME)


def test_resending_keeps_to_the_waits_and_the_number_of_attempts() -> None:
    assert verdict(policy="resend") == Verdict(Step.RESEND, 300)
    assert verdict(policy="resend", attempts=2) == Verdict(Step.RESEND, 900)
    assert verdict(policy="resend", attempts=3).step is Step.WAIT
    assert verdict(policy="resend", may_go_out=False).step is Step.WAIT


def test_failing_is_at_once() -> None:
    assert verdict(policy="fail") == Verdict(Step.FAIL)


@pytest.mark.parametrize("policy", ["resend", "fail"])
def test_a_gateway_that_drops_repeats_has_had_its_attempts(policy) -> None:
    assert verdict(policy=policy, ids="dedups").step is Step.WAIT


def test_a_gateway_that_can_be_searched_is_asked_first() -> None:
    assert verdict(ids="searchable") == Verdict(Step.WAIT, 10)
    assert verdict(ids="searchable", age=timedelta(seconds=10)) == Verdict(Step.LOOK_UP, 30)
    assert verdict(ids="searchable", age=GRACE, policy="fail").step is Step.LOOK_UP
    assert verdict(ids="searchable", age=2 * GRACE, policy="fail").step is Step.FAIL
    assert verdict(ids="searchable", age=CLOSE).step is Step.PRESUME


def test_a_policy_is_a_gateways_own_or_everybodys_or_hold() -> None:
    policies = {"": "fail", "wablas": "resend"}
    assert policy_for("wablas", policies=policies) is Policy.RESEND
    assert policy_for("other", policies=policies) is Policy.FAIL
    assert policy_for("other", policies={}) is Policy.HOLD


@given(
    age=st.timedeltas(min_value=timedelta(0), max_value=timedelta(days=3)),
    policy=st.sampled_from(list(Policy)),
    ids=st.sampled_from(get_args(IdSemantics)),
    attempts=st.integers(0, 9),
    may_go_out=st.booleans(),
)
def test_nothing_waits_for_ever_and_nobody_guesses_unasked(age, policy, ids, attempts, may_go_out) -> None:
    found = verdict(age=age, policy=policy, ids=ids, attempts=attempts, may_go_out=may_go_out)
    if found.step is Step.WAIT:
        assert 0 < found.wait_seconds <= 3600
    if age >= CLOSE:
        assert found.step not in {Step.WAIT, Step.LOOK_UP}
    if found.step is Step.RESEND:
        assert policy is Policy.RESEND
        assert may_go_out
        assert ids != "dedups"
    assert (found.step is Step.LOOK_UP) <= (ids == "searchable")
