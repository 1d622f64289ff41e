"""The judge of trials with several hosts: what it lets pass, and what it must not."""

from __future__ import annotations

from dataclasses import replace

from config.demo.verdict import Verdict
from config.trials.judge import Call, Evidence, Silence, Stay, judge, longest_pause

ONE, TWO = "10.77.0.4", "10.77.0.5"
CLEAN = Verdict(delivered=2, lost=(), duplicated=(), unaccounted=(), out_of_order=(), repeats_dropped=0)
CUT = Silence("one", ONE, frozenset({"postgres", "gateway"}), began=100.0, ended=140.0)


def evidence(**more) -> Evidence:
    plain = Evidence(CLEAN, stays=(), silences=(CUT,), calls=(), gaps={"a": 2.0}, lease_seconds=30.0)
    return replace(plain, **more)


def stay(peer: str, began: float, heard: float, ended: float | None, *, replaced: bool = False) -> Stay:
    return Stay("a", peer, began, heard, ended, replaced)


def test_a_holder_that_left_or_had_vanished_may_be_followed():
    left = (stay(ONE, 10, 50, 60), stay(TWO, 61, 90, None))
    vanished = (stay(ONE, 10, 99, 135, replaced=True), stay(TWO, 135, 190, None))
    assert judge(evidence(stays=left)) == judge(evidence(stays=vanished)) == []


def test_two_holders_at_one_moment_are_found():
    speaks_on = (stay(ONE, 10, 136, 137, replaced=True), stay(TWO, 135, 190, None))
    within_reach = (stay(ONE, 10, 50, 60, replaced=True), stay(TWO, 60, 90, None))
    other_wire = replace(CUT, what=frozenset({"postgres"}))
    assert "still sent 1.00 s after" in judge(evidence(stays=speaks_on))[0]
    assert "could be reached" in judge(evidence(stays=within_reach))[0]
    vanished = (stay(ONE, 10, 99, 135, replaced=True), stay(TWO, 135, 190, None))
    assert "could be reached" in judge(evidence(stays=vanished, silences=(other_wire,)))[0]


def test_an_unknown_outcome_needs_a_reason():
    hit, unhit = Call("a", 1, 95.0, None, unknown=True), Call("a", 2, 141.0, None, unknown=True)
    assert judge(evidence(calls=(hit,))) == []
    assert judge(evidence(calls=(unhit,))) == ["message 2 of a is unknown for no reason"]


def test_gaps_are_kept_between_arrivals_or_between_claims():
    dawdled = (Call("a", 1, 10.0, 14.0), Call("a", 2, 14.5, 14.6))
    overtaken = (Call("a", 2, 30.0, 30.1), Call("a", 1, 10.0, 30.6))
    hasty = (Call("a", 1, 10.0, 10.1), Call("a", 2, 11.0, 11.1))
    assert judge(evidence(calls=dawdled)) == judge(evidence(calls=overtaken)) == []
    assert judge(evidence(calls=hasty)) == ["a sent 1.000 s after its last, gap 2 s"]


def test_what_the_ledger_says_is_told():
    wrong = replace(CLEAN, lost=(1,), duplicated=(2,), unaccounted=(3,))
    assert len(judge(evidence(verdict=wrong, strays=["late"]))) == 4


def test_the_longest_pause_counts_from_both_ends():
    calls = (Call("a", 1, 3.0, 3.0), Call("a", 2, 5.0, 5.0), Call("b", 3, 4.0, 4.0))
    assert longest_pause(evidence(calls=calls), begin=0.0, end=10.0) == (6.0, "b")
    assert longest_pause(evidence(calls=calls), begin=3.5, end=6.0) == (2.0, "b")
