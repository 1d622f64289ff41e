"""The judge of a chaos run, fed with crafted evidence: clean evidence passes, each broken promise is named."""

from __future__ import annotations

from dataclasses import replace
from itertools import count
from typing import Any

import pytest

from config.chaos.evidence import (
    COUNTERS,
    AttemptRow,
    BatchRow,
    DeviceRow,
    Entry,
    Evidence,
    MessageRow,
    OptOut,
    Stop,
    StreamRow,
    Stuck,
)
from config.chaos.incidents import Incident, Log
from config.chaos.judge import judge, rule_names
from config.chaos.report import lines, table

LEASE = 5.0
T = 1_000_000.0


class Story:
    """Evidence in the making: one device, one batch; each message sent at its time, unless told otherwise."""

    def __init__(self, *, dedups: bool = True, lanes: int = 1, gap: float = 0.0) -> None:
        self.device = DeviceRow(1, "token", lanes, gap, dedups=dedups)
        self.messages: dict[int, MessageRow] = {}
        self.attempts: list[AttemptRow] = []
        self.entries: list[Entry] = []
        self.incidents: list[Incident] = []
        self.changes: dict[str, Any] = {}

    def message(self, pk: int, state: str, **more: Any) -> None:
        self.messages[pk] = MessageRow(pk, batch_id=1, stream_id=1, device_id=1, state=state, **more)

    def attempt(self, pk: int, at: float, outcome: str = "accepted", **more: Any) -> None:
        number = 1 + sum(attempt.message_id == pk for attempt in self.attempts)
        known: dict[str, Any] = {
            "release_no": number,
            "number": number,
            "round": 1,
            "finished": T + at + 0.1,
            "device_id": 1,
        }
        row = AttemptRow(message_id=pk, started=T + at, outcome=outcome, **{**known, **more})
        self.attempts.append(row)

    def request(self, pk: int | None, at: float, *, lasts: float | None = 0.05, attempt: int = 1, **more: Any) -> None:
        fate: dict[str, Any] = {"delivered": True, "answer": "accepted", **more}
        begin = T + at
        end = None if lasts is None else begin + lasts
        self.entries.append(Entry(len(self.entries), begin, end, "token", pk, attempt, **fate))

    def sent(self, pk: int, at: float, **more: Any) -> None:
        """One message on its usual way."""
        self.message(pk, "sent", release_no=1, attempts=1)
        self.attempt(pk, at)
        self.request(pk, at + 0.01, **more)

    def harm(self, kind: str, target: str, begin: float, end: float | None = None) -> None:
        self.incidents.append(Incident(kind, target, T + begin, T + (begin if end is None else end)))

    def evidence(self) -> Evidence:
        rows = list(self.messages.values())
        states = [row.state for row in rows]
        waiting = sum(state in {"pending", "queued", "sending"} for state in states)
        counters = dict.fromkeys(COUNTERS, 0) | {
            "total": len(rows),
            "waiting": waiting,
            **{name: states.count(name) for name in ("sent", "failed", "cancelled", "expired", "unknown")},
        }
        given: dict[str, Any] = {
            "lease_seconds": LEASE,
            "devices": [self.device],
            "batches": [BatchRow(1, "batch", "finished", expected=len(rows))],
            "streams": [StreamRow(1, 1, 1, waiting > 0, counters)],
            "messages": rows,
            "attempts": self.attempts,
            "entries": self.entries,
            "incidents": self.incidents,
        }
        return Evidence(**{**given, **self.changes})

    def found(self) -> set[str]:
        return {finding.rule for finding in judge(self.evidence())}


@pytest.fixture
def story() -> Story:
    return Story()


def test_what_went_well_is_not_accused(story):
    for pk in range(1, 6):
        story.sent(pk, pk)
    story.message(6, "failed", release_no=1, attempts=1)
    story.attempt(6, 7, "rejected")
    story.request(6, 7.01, delivered=False, answer="rejected", faults="reject")
    assert judge(story.evidence()) == []


def test_a_message_that_reached_no_phone_is_lost(story):
    story.sent(1, 1, delivered=False, answer="error")
    assert story.found() == {"lost"}


def test_a_message_that_was_never_made_is_lost(story):
    story.sent(1, 1)
    story.changes["batches"] = [BatchRow(1, "batch", "finished", expected=2)]
    assert story.found() == {"lost"}


def test_two_deliveries_are_a_duplicate_and_a_dropped_repeat_is_none(story):
    story.sent(1, 1)
    story.attempts[0] = replace(story.attempts[0], outcome="temporary")
    story.attempt(1, 2)
    story.request(1, 2.01, attempt=2, delivered=False, repeated=True)
    assert story.found() == set()
    story.entries[1] = replace(story.entries[1], delivered=True)
    assert story.found() == {"duplicated"}


def test_an_unknown_outcome_is_not_sent_again_without_proof_that_repeats_are_dropped():
    story = Story(dedups=False)
    story.message(1, "unknown", release_no=2, attempts=2)
    story.harm("kill", "devices-a", 1.05)
    story.attempt(1, 1, "unknown", error_code="lease_expired")
    story.attempt(1, 3, "unknown", error_code="lease_expired")
    assert story.found() == {"resent", "unjustified"}  # nothing was done to the second one
    story.attempts[1] = replace(story.attempts[1], round=2)  # an operator asked for it
    assert story.found() == {"unjustified"}


@pytest.mark.parametrize("outcome", ["accepted", "rejected"])
def test_what_was_answered_is_not_sent_again_unless_the_answer_came_too_late(story, outcome):
    story.sent(1, 1)
    story.attempts[0] = replace(story.attempts[0], outcome=outcome)
    story.attempt(1, LEASE + 2)
    story.request(1, LEASE + 2.01, attempt=2, delivered=False, repeated=True)
    assert story.found() == {"resent"}
    story.attempts[0] = replace(story.attempts[0], finished=T + 1 + LEASE + 0.5)  # by then it was pending again
    assert story.found() == set()


@pytest.mark.parametrize(
    ("stop", "wrong"),
    [
        (Stop("pause", T + 0.5), True),
        (Stop("pause", T + 0.5, batch=1), True),
        (Stop("pause", T + 0.5, devices=frozenset({1})), True),
        (Stop("pause", T + 0.5, batch=2), False),
        (Stop("pause", T + 0.5, devices=frozenset({2})), False),
        (Stop("pause", T + 0.5, T + 0.9), False),
        (Stop("pause", T + 1.5), False),
        (Stop("halt", T + 0.5, grace_seconds=0.4), True),
        (Stop("halt", T + 0.5, grace_seconds=2.0), False),
    ],
)
def test_a_stop_is_heeded_by_those_whom_it_concerns_while_it_lasts(story, stop, wrong):
    story.sent(1, 1)
    story.changes["stops"] = [stop]
    assert story.found() == ({"unheeded"} if wrong else set())


@pytest.mark.parametrize(
    ("messages", "seen", "wrong"),
    [({1}, set(), True), ({1}, {(1, 1)}, False), ({1}, {(1, 7), (2, 1)}, True), ({2}, set(), False)],
)
def test_after_an_opt_out_there_is_no_claim_that_it_had_not_seen(story, messages, seen, wrong):
    story.sent(1, 1)
    story.changes["opt_outs"] = [OptOut(leads=frozenset({9}), seen=frozenset(seen), messages=frozenset(messages))]
    assert story.found() == ({"opted out"} if wrong else set())


def test_what_the_api_accepted_exists_once():
    story = Story()
    story.sent(1, 1)
    story.changes["batches"] = [BatchRow(1, "To somebody", "finished", single=True)]
    story.changes["accepted"] = [1]
    assert story.found() == set()
    story.changes["accepted"] = [1, 2]
    assert story.found() == {"lost"}
    story.changes["accepted"] = []
    assert story.found() == {"duplicated"}


@pytest.mark.parametrize(("state", "expected", "wrong"), [
    ("finished", 2, True), ("finished", 1, False), ("cancelled", 2, False), ("cancelled", 0, True),
])  # fmt: skip
def test_only_a_cancelled_batch_may_have_less_than_its_audience(story, state, expected, wrong):
    story.sent(1, 1)
    story.changes["batches"] = [BatchRow(1, "batch", state, expected=expected)]
    assert story.found() == ({"lost"} if wrong else set())


def test_an_error_that_nobody_expected_is_told(story):
    story.sent(1, 1)
    story.changes["errors"] = ["devices-a: IntegrityError", "devices-a: IntegrityError"]
    (finding,) = judge(story.evidence())
    assert (finding.rule, finding.text) == ("raised", "devices-a: IntegrityError (2 times)")


def test_a_gap_is_held_by_the_claims_where_a_record_was_lost():
    story = Story(gap=1.0)
    story.sent(1, 1)
    story.entries[0] = replace(story.entries[0], begin=T + 1.4, end=T + 1.5)  # it dawdled on its way
    story.sent(2, 2)
    assert story.found() == set()
    story.attempts[1] = replace(story.attempts[1], started=T + 1.9)
    assert story.found() == {"early"}


@pytest.mark.parametrize("state", ["failed", "cancelled", "expired"])
def test_a_delivered_message_must_not_be_called_unsent(story, state):
    story.sent(1, 1)
    story.message(1, state)
    assert story.found() == {"unaccounted"}


def test_a_request_needs_a_claim_and_a_message(story):
    story.sent(1, 1)
    story.request(1, 0.5, delivered=False)  # before its attempt was claimed
    story.request(99, 3, delivered=False)
    story.request(None, 4, delivered=False)
    assert [finding.rule for finding in judge(story.evidence())] == ["unaccounted"] * 3


def unknown_after(story: Story, **request: Any) -> set[str]:
    story.message(1, "unknown", release_no=1, attempts=1)
    story.attempt(1, 10, "unknown", error_code="lease_expired", finished=T + 16)
    if request:
        story.request(1, 10.01, **request)
    return story.found()


@pytest.mark.parametrize(
    ("kind", "target", "begin", "end"),
    [
        ("kill", "devices-a", 10.5, None),
        ("failpoint", "devices-b", 10.0, None),
        ("freeze", "devices-a", 9.0, 10.2),
        ("freeze", "devices-b", 14.0, 22.0),
        ("postgres", "restart", 10.2, None),
        ("postgres", "full", 5.0, 11.0),
    ],
)
def test_what_kills_a_worker_or_its_record_makes_an_outcome_unknown(story, kind, target, begin, end):
    story.harm(kind, target, begin, end)
    assert unknown_after(story) == set()


@pytest.mark.parametrize(
    ("kind", "target", "begin", "end"),
    [
        ("kill", "devices-a", 9.9, None),
        ("kill", "devices-a", 16.1, None),
        ("kill", "control-a", 10.5, None),
        ("kill", "beat-a", 10.5, None),
        ("freeze", "devices-a", 1.0, 9.5),
        ("term", "devices-a", 10.5, None),
        ("valkey", "restart", 10.5, None),
        ("valkey", "pause", 9.0, 14.0),
        ("fleet", "pause_devices", 9.0, 14.0),
        ("died by itself", "devices-a", 10.5, None),
    ],
)
def test_nothing_else_does(story, kind, target, begin, end):
    story.harm(kind, target, begin, end)
    assert unknown_after(story) == {"unjustified"}


@pytest.mark.parametrize("faults", ["reset:after", "error:before", "latency:after+reset:before", "hang:after"])
def test_a_doubtful_answer_justifies_unknown(story, faults):
    assert unknown_after(story, faults=faults) == set()


@pytest.mark.parametrize("faults", ["", "latency:after", "drip", "throttle"])
def test_an_ordinary_answer_does_not(story, faults):
    assert unknown_after(story, faults=faults) == {"unjustified"}


def test_an_answer_slower_than_the_lease_does(story):
    assert unknown_after(story, faults="latency:before", lasts=LEASE + 1) == set()


def test_marking_everything_unknown_does_not_pass(story):
    for pk in range(1, 4):
        story.sent(pk, pk)
        story.message(pk, "unknown")
        story.attempts[-1] = replace(story.attempts[-1], outcome="unknown")
    assert [finding.rule for finding in judge(story.evidence())] == ["unjustified"] * 3


def test_an_attempt_must_have_an_outcome_once_its_message_is_settled(story):
    story.sent(1, 1)
    story.attempts[0] = replace(story.attempts[0], outcome="", finished=None)
    assert story.found() == {"unjustified"}


def test_first_attempts_go_in_order_and_later_ones_as_they_like(story):
    story.sent(2, 1)
    story.sent(1, 2)
    assert story.found() == {"reordered"}
    story.attempts[1] = replace(story.attempts[1], release_no=2, number=2)
    story.entries[1] = replace(story.entries[1], attempt=2)
    story.attempt(1, 0.5, "temporary", release_no=1, number=1)  # its first came to nothing
    assert story.found() == set()


def test_lanes_know_no_order():
    story = Story(lanes=2)
    story.sent(2, 1)
    story.sent(1, 2)
    assert story.found() == set()


def test_streams_of_one_device_take_turns(story):
    story.sent(2, 1)
    story.sent(1, 2)
    story.messages[1] = replace(story.messages[1], stream_id=2, batch_id=2)
    story.changes["batches"] = [BatchRow(1, "one", "finished"), BatchRow(2, "two", "finished")]
    story.changes["streams"] = []
    assert story.found() == set()


@pytest.mark.parametrize(("lanes", "wrong"), [(1, True), (2, True), (3, False)])
def test_more_in_flight_than_lanes_is_seen(lanes, wrong):
    story = Story(lanes=lanes)
    for pk in range(1, 4):
        story.sent(pk, pk / 100, lasts=2.0)
    assert story.found() == ({"over lanes"} if wrong else set())


def test_one_that_ends_as_the_next_begins_is_no_overlap(story):
    story.sent(1, 1, lasts=1.0)
    story.sent(2, 2)
    assert story.found() == set()


def test_only_a_lease_that_ran_out_is_exempt_from_lanes_and_gaps():
    story = Story(gap=1.0)
    story.sent(1, 1, lasts=LEASE + 2)  # frozen: its lane was given to others in the meantime
    story.sent(2, 7)
    story.sent(3, 8.5)
    assert story.found() == set()
    story.entries[0] = replace(story.entries[0], end=T + 1 + LEASE - 0.1)
    story.attempts[1] = replace(story.attempts[1], started=T + 5)
    story.entries[1] = replace(story.entries[1], begin=T + 5.01)
    assert story.found() == {"over lanes"}


def test_a_request_that_never_ends_occupies_its_lane_until_its_lease_is_over(story):
    story.sent(1, 1, lasts=None)
    story.sent(2, 3)
    assert story.found() == set()  # it outlived its lease: nobody can say more of it


@pytest.mark.parametrize(("gap", "wrong"), [(0.9, False), (1.0, False), (1.1, True)])
def test_sooner_than_the_gap_is_early(gap, wrong):
    story = Story(gap=gap)
    story.sent(1, 1)
    story.sent(2, 2)
    assert story.found() == ({"early"} if wrong else set())


def test_the_gap_of_a_batch_counts_too(story):
    story.sent(1, 1)
    story.sent(2, 2)
    story.changes["batches"] = [BatchRow(1, "batch", "finished", gap_seconds=1.5, expected=2)]
    assert story.found() == {"early"}


@pytest.mark.parametrize("state", ["pending", "queued", "sending"])
def test_what_waits_at_the_end_is_stuck(story, state):
    story.message(1, state)
    assert story.found() == {"stuck"}


def test_what_stood_still_is_stuck_even_if_it_moved_later(story):
    story.sent(1, 1)
    story.changes["stuck"] = [Stuck("message 1 was queued for too long", 1)]
    assert story.found() == {"stuck"}


@pytest.mark.parametrize("state", ["running", "paused"])
def test_a_batch_that_does_not_end_is_stuck(story, state):
    story.sent(1, 1)
    story.changes["batches"] = [BatchRow(1, "batch", state, expected=1)]
    assert story.found() == {"stuck"}


@pytest.mark.parametrize("counter", COUNTERS)
def test_every_counter_is_recounted(story, counter):
    story.sent(1, 1)
    (stream,) = story.evidence().streams
    story.changes["streams"] = [replace(stream, counters={**stream.counters, counter: stream.counters[counter] + 1})]
    assert story.found() == {"miscounted"}


def test_so_is_whether_a_stream_is_open(story):
    story.sent(1, 1)
    (stream,) = story.evidence().streams
    story.changes["streams"] = [replace(stream, is_open=True)]
    assert story.found() == {"miscounted"}


def test_a_service_that_failed_is_told(story):
    story.sent(1, 1)
    story.changes["problems"] = ["KeyError: 7"]
    assert story.found() == {"refused"}


def test_every_rule_is_in_the_table_and_the_bad_message_tells_its_story(story):
    story.sent(1, 1)
    story.request(1, 3, delivered=True)
    story.harm("kill", "devices-a", 2)
    evidence = story.evidence()
    findings = judge(evidence)
    assert {finding.rule for finding in findings} <= set(rule_names())
    told = "\n".join(lines(evidence, findings))
    for words in ("duplicated: message 1", "claimed", "request 0 arrives", "request 1 over", "kill devices-a"):
        assert words in told
    assert table(evidence, findings, notes={"copies": 3}).row_count > len(rule_names())


def test_incidents_are_told_and_kept():
    said: list[str] = []
    clock = count()
    log = Log(say=said.append, clock=lambda: float(next(clock)))
    log.start()
    log.begin("kill", "devices-a")
    freeze = log.begin("freeze", "devices-b", note="6 s", lasts=True)
    assert freeze.overlaps(50.0, 60.0)
    log.end(freeze)
    assert not freeze.overlaps(50.0, 60.0)
    undone = log.begin("postgres", "restart")
    log.forget(undone, "postgres is down")
    assert [incident.kind for incident in log.incidents] == ["kill", "freeze"]
    assert [line.strip().partition("  ")[2] for line in said] == [
        "kill devices-a", "freeze devices-b (6 s)", "freeze devices-b over", "postgres restart",
        "postgres restart: not now, postgres is down",
    ]  # fmt: skip
