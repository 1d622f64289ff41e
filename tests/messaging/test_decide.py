from __future__ import annotations

import pytest

from devices.gateways.base import Accepted, Outcome, Rejected, SessionLost, Temporary, Throttled, Unknown
from messaging.dispatch.decide import decide
from messaging.states import State

MINUTES = [5, 15, 30, 60, 120]


@pytest.mark.parametrize(
    ("outcome", "state", "free"),
    [
        (Accepted("x"), State.SENT, False),
        (Rejected("not_on_whatsapp", "No such number."), State.FAILED, False),
        (Temporary("busy", "Try later."), State.PENDING, False),
        (Throttled("429", "Slow down.", 30), State.PENDING, True),
        (SessionLost("401", "Logged out."), State.PENDING, True),
        (Unknown("timeout", "No answer."), State.UNKNOWN, False),
    ],
)
def test_each_outcome_has_one_consequence(outcome: Outcome, state: State, free: bool) -> None:
    decision = decide(outcome, attempt=1, retry_minutes=MINUTES, id_semantics="none")
    assert (decision.state, decision.free) == (state, free)


def test_an_unknown_outcome_is_only_resent_where_the_gateway_drops_repeats() -> None:
    for semantics in ("none", "echoed", "searchable"):
        held = decide(Unknown("t", ""), attempt=1, retry_minutes=MINUTES, id_semantics=semantics)
        assert held.state is State.UNKNOWN
    resent = decide(Unknown("t", ""), attempt=1, retry_minutes=MINUTES, id_semantics="dedups")
    assert (resent.state, resent.wait_seconds) == (State.PENDING, 300)


def test_temporary_failures_end_after_five_retries() -> None:
    states = [
        decide(Temporary("b", ""), attempt=n, retry_minutes=MINUTES, id_semantics="none").state for n in range(1, 7)
    ]
    assert states == [State.PENDING] * 5 + [State.FAILED]


def test_an_unknown_outcome_never_becomes_failed_by_running_out_of_attempts() -> None:
    assert decide(Unknown("t", ""), attempt=6, retry_minutes=MINUTES, id_semantics="dedups").state is State.UNKNOWN


def test_being_throttled_rests_the_device_and_being_logged_out_asks_for_a_person() -> None:
    throttled = decide(Throttled("429", "", 30), attempt=1, retry_minutes=MINUTES, id_semantics="none")
    assert throttled.hold_device_seconds == 30
    lead = decide(Throttled("131049", "", 30, "lead"), attempt=1, retry_minutes=MINUTES, id_semantics="none")
    assert lead.hold_device_seconds == 0  # one person has had enough; the device goes on with the others
    assert lead.wait_seconds == 30
    assert decide(SessionLost("401", ""), attempt=1, retry_minutes=MINUTES, id_semantics="none").device_needs_attention


def test_a_ban_is_told_apart_from_a_lost_session() -> None:
    decisions = [
        decide(SessionLost("x", "", banned=banned), attempt=1, retry_minutes=MINUTES, id_semantics="none")
        for banned in (True, False)
    ]
    assert [(decision.outcome, decision.banned) for decision in decisions] == [
        ("banned", True),
        ("session_lost", False),
    ]


@pytest.mark.parametrize("outcome", [Rejected("gone", ""), Temporary("busy", "")])
def test_a_failure_after_an_unknown_attempt_proves_nothing(outcome: Outcome) -> None:
    decision = decide(outcome, attempt=6, retry_minutes=MINUTES, id_semantics="dedups", in_doubt=True)
    assert decision.state is State.UNKNOWN
