"""Which rules hit which requests: chance that repeats, counts that hold, mistakes that are named."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from messaging.simulator.faults import FAULTS, BadRule, Faults


def plan_labels(faults: Faults, *, device: str = "d", phone: str = "+62811", on: str = "send") -> str:
    return faults.plan(device=device, phone=phone, on=on).labels


def test_no_rules_no_faults() -> None:
    assert plan_labels(Faults()) == ""


def test_rules_pick_by_device_phone_and_kind_of_call() -> None:
    faults = Faults()
    faults.add([{"fault": "throttle", "device": "d"}, {"fault": "reject", "phone_prefix": "+1"}])
    faults.add({"fault": "hang", "on": "check"})
    assert plan_labels(faults) == "throttle"
    assert plan_labels(faults, device="e") == ""
    assert plan_labels(faults, device="e", phone="+1555") == "reject"
    assert plan_labels(faults, device="e", on="check") == "hang:after"


def test_one_decides_and_delays_add_to_it() -> None:
    faults = Faults()
    faults.add(
        [
            {"fault": "ban"},
            {"fault": "latency", "seconds": 1, "phase": "before"},
            {"fault": "latency", "seconds": 2},
            {"fault": "latency", "seconds": 9},
            {"fault": "drip"},
            {"fault": "throttle", "device": "d"},
            {"fault": "reject", "device": "d"},
        ]
    )
    plan = faults.plan(device="d", phone="", on="send")
    assert plan.labels == "drip+latency:after+latency:before+throttle"
    assert (plan.before_seconds, plan.after_seconds) == (1, 2)
    assert plan.decides("throttle")
    assert [rule.hits for rule in faults.rules()] == [0, 1, 1, 0, 1, 1, 0]


@given(count=st.integers(1, 50), calls=st.integers(0, 100))
def test_a_count_is_a_limit(count: int, calls: int) -> None:
    faults = Faults()
    faults.add({"fault": "throttle", "count": count})
    assert sum(bool(plan_labels(faults)) for _ in range(calls)) == min(count, calls)


@given(seed=st.integers(0, 2**32), probability=st.floats(0, 1))
def test_chance_repeats_with_its_seed(seed: int, probability: float) -> None:
    def run() -> list[str]:
        faults = Faults(seed=seed)
        faults.add({"fault": "throttle", "probability": probability})
        return [plan_labels(faults) for _ in range(50)]

    assert run() == run()


def test_a_rule_draws_alone() -> None:
    """Other rules, and requests that do not concern it, do not change what a rule does."""

    def run(*others: dict[str, Any]) -> list[bool]:
        faults = Faults()
        faults.add({"fault": "throttle", "device": "d", "probability": 0.5, "seed": 7})
        faults.add(list(others))
        hits = []
        for _ in range(100):
            plan_labels(faults, device="somebody else")
            hits.append("throttle" in plan_labels(faults))
        return hits

    alone = run()
    assert alone == run({"fault": "reject", "probability": 0.5}, {"fault": "latency", "seconds": 1, "probability": 0.5})
    assert 20 < sum(alone) < 80


@given(probability=st.sampled_from([0.0, 1.0]))
def test_never_and_always(probability: float) -> None:
    faults = Faults()
    faults.add({"fault": "throttle", "probability": probability})
    assert {plan_labels(faults) for _ in range(100)} == {"throttle" if probability else ""}


def test_rules_can_be_dropped() -> None:
    faults = Faults()
    one, two = faults.add([{"fault": "throttle"}, {"fault": "reject"}])
    assert faults.remove(one.id)
    assert not faults.remove(one.id)
    assert plan_labels(faults) == "reject"
    faults.clear()
    assert plan_labels(faults) == ""
    assert faults.add({"fault": "ban"})[0].id > two.id


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        (7, "a rule is a JSON object, not int"),
        ({}, "fault must be one of latency, drip"),
        ({"fault": ["ban"]}, "fault must be one of"),
        ({"fault": "explode"}, "not 'explode'"),
        ({"fault": "ban", "seconds": 3}, "ban does not take seconds (it takes nothing of its own, and device"),
        ({"fault": "throttle", "probabilty": 1}, "throttle does not take probabilty (it takes retry_after_seconds"),
        ({"fault": "throttle", "probability": 7}, "probability must be a number from 0 to 1, not 7"),
        ({"fault": "throttle", "probability": True}, "probability must be a number"),
        ({"fault": "throttle", "probability": float("nan")}, "probability must be a number"),
        ({"fault": "throttle", "count": 0}, "count must be a whole number from 1 to 1e+09 or null, not 0"),
        ({"fault": "throttle", "count": 1.5}, "count must be a whole number"),
        ({"fault": "throttle", "retry_after_seconds": "soon"}, "retry_after_seconds must be a number"),
        ({"fault": "throttle", "on": "always"}, "on must be one of send, check, any, not 'always'"),
        ({"fault": "throttle", "device": 5}, "device must be a text"),
        ({"fault": "error", "status": 404}, "status must be a whole number from 500 to 599, not 404"),
        ({"fault": "reset", "phase": "during"}, "phase must be one of before, after, not 'during'"),
        ({"fault": "latency"}, "latency takes either seconds, or min_seconds and max_seconds"),
        ({"fault": "latency", "seconds": 1, "min_seconds": 1}, "latency takes either"),
        ({"fault": "latency", "min_seconds": 1}, "latency needs min_seconds and max_seconds"),
        ({"fault": "latency", "min_seconds": 2, "max_seconds": 1}, "the first not above the second"),
        ({"fault": "drip", "chunk_bytes": 0}, "chunk_bytes must be a whole number from 1"),
    ],
    ids=str,
)
def test_mistakes_are_named(rule: object, words: str) -> None:
    faults = Faults()
    with pytest.raises(BadRule) as problem:
        faults.add(rule)
    assert words in str(problem.value)
    with pytest.raises(BadRule, match=r"rule 1: "):
        faults.add([{"fault": "ban"}, rule])
    assert faults.rules() == [], "all or none"


def test_every_fault_is_understood_as_it_is_shown() -> None:
    """What the control API shows of a rule can be given back to it."""
    for fault in FAULTS:
        given_ = {"fault": fault, **({"seconds": 1} if fault == "latency" else {})}
        (rule,) = Faults().add(given_)
        shown = {name: value for name, value in rule.as_json().items() if name not in ("id", "hits")}
        (again,) = Faults().add(shown)
        assert again.as_json() == rule.as_json()
