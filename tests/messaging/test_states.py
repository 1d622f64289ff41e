from __future__ import annotations

import pytest

from messaging.states import FINAL, IN_FLIGHT, REPORT_WORDS, TRANSITIONS, UNSENT, WAITING, State, sources


def test_every_state_can_be_reached_from_pending() -> None:
    reached = {State.PENDING}
    for _ in TRANSITIONS:
        reached |= {t.target for t in TRANSITIONS if t.source in reached}
    assert reached == set(State)


def test_only_final_states_have_no_way_on() -> None:
    assert {state for state in State if not any(t.source is state for t in TRANSITIONS)} == FINAL


def test_nothing_sent_is_ever_pending_again_without_passing_failed() -> None:
    assert not [t for t in TRANSITIONS if t.source in {State.SENT, State.DELIVERED, State.READ} and t.target in WAITING]


def test_only_what_has_not_left_can_be_cancelled_or_expire() -> None:
    assert set(sources("cancel")) == set(sources("expire")) == UNSENT
    assert State.SENDING not in UNSENT


def test_an_unknown_outcome_may_go_everywhere_but_into_flight_or_away_unsaid() -> None:
    targets = {t.target for t in TRANSITIONS if t.source is State.UNKNOWN}
    assert targets == {State.PENDING, State.SENT, State.DELIVERED, State.READ, State.FAILED}


def test_receipts_never_move_a_message_backwards() -> None:
    order = [State.PENDING, State.UNKNOWN, State.FAILED, State.SENT, State.DELIVERED, State.READ]
    news = [t for t in TRANSITIONS if t.event in {"left", "delivered", "read"}]
    assert news
    assert all(order.index(t.source) < order.index(t.target) for t in news)


def test_what_is_in_doubt_ends_as_unknown_wherever_it_could_have_been_ended() -> None:
    assert set(sources("end_in_doubt", State.UNKNOWN)) == UNSENT
    assert sources("end_in_doubt") == sources("end_in_doubt", State.UNKNOWN)


def test_a_message_in_flight_is_waiting() -> None:
    assert IN_FLIGHT < WAITING


def test_reports_use_five_words_for_every_state() -> None:
    assert set(REPORT_WORDS) == set(State)
    assert set(REPORT_WORDS.values()) == {"Pending", "Queued", "Sent", "Failed", "Unknown"}


def test_an_unknown_event_is_an_error() -> None:
    with pytest.raises(KeyError):
        sources("teleport")
