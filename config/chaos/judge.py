"""The promises, held against rows and ledger. Pure, and strict in both directions.

It counts deliveries to the phone and not requests. It exempts from the rules about lanes, gaps and order only those
requests whose lease had run out, since from then on another worker may rightly act. And an outcome is only allowed to
be unknown where something was really done to it: else marking everything unknown would pass.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

from config.chaos.evidence import AttemptRow, Entry, Evidence, StreamRow
from messaging.states import State

REACHED = frozenset({State.SENT, State.DELIVERED, State.READ})
WAITING = frozenset({State.PENDING, State.QUEUED, State.SENDING})
DOUBTFUL = ("reset:", "error:", "broken_json:", "hang:")
"""Faults, as the ledger names them, after which a client cannot know whether the message was taken."""
SLOW = ("latency:", "drip")
CLOCK_SECONDS = 0.002
"""Two clocks are compared: PostgreSQL's and the simulator's, on one machine."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One broken promise."""

    rule: str
    text: str
    message: int | None = None


class Case:
    """The evidence, arranged for the rules."""

    def __init__(self, evidence: Evidence) -> None:
        self.evidence = evidence

    @cached_property
    def entries_of(self) -> Mapping[int, list[Entry]]:
        """Requests by message, in the order of arrival."""
        found: defaultdict[int, list[Entry]] = defaultdict(list)
        for entry in self.evidence.entries:
            if entry.message is not None:
                found[entry.message].append(entry)
        return found

    @cached_property
    def attempts_of(self) -> Mapping[int, list[AttemptRow]]:
        """Attempts by message, in the order of their start."""
        found: defaultdict[int, list[AttemptRow]] = defaultdict(list)
        for attempt in sorted(self.evidence.attempts, key=lambda attempt: attempt.release_no):
            found[attempt.message_id].append(attempt)
        return found

    @cached_property
    def attempt_behind(self) -> Mapping[int, AttemptRow]:
        """The attempt that made a request, by the request's number.

        Of the attempts with the number that the request carries, the last that had started when it arrived: a number
        comes twice only where the first was recorded as free, so never while it was still on its way.
        """
        found = {}
        for message, entries in self.entries_of.items():
            for entry in entries:
                before = [
                    attempt
                    for attempt in self.attempts_of.get(message, ())
                    if attempt.number == entry.attempt and attempt.started <= entry.begin + CLOCK_SECONDS
                ]
                if before:
                    found[entry.n] = before[-1]
        return found

    @cached_property
    def entries_behind(self) -> Mapping[tuple[int, int], list[Entry]]:
        """Requests of an attempt, by (message, release number)."""
        found: defaultdict[tuple[int, int], list[Entry]] = defaultdict(list)
        for entry in self.evidence.entries:
            attempt = self.attempt_behind.get(entry.n)
            if attempt is not None:
                found[attempt.message_id, attempt.release_no].append(entry)
        return found

    @cached_property
    def by_device(self) -> Mapping[str, list[Entry]]:
        """Requests within their lease, by device, in the order of arrival."""
        found: defaultdict[str, list[Entry]] = defaultdict(list)
        for entry in sorted(self.evidence.entries, key=lambda entry: entry.begin):
            if not self.outlived_lease(entry):
                found[entry.device].append(entry)
        return found

    def outlived_lease(self, entry: Entry) -> bool:
        """Whether the lease of its attempt ran out before the request was over."""
        attempt = self.attempt_behind.get(entry.n)
        if attempt is None:
            return False
        return entry.end is None or entry.end > attempt.started + self.evidence.lease_seconds

    def claimed(self, entry: Entry) -> float:
        """When the attempt behind a request was claimed; for a request without one, when it arrived."""
        attempt = self.attempt_behind.get(entry.n)
        return entry.begin if attempt is None else attempt.started

    def is_first(self, entry: Entry) -> bool:
        """Whether the first attempt of its message made this request."""
        attempt = self.attempt_behind.get(entry.n)
        return attempt is not None and attempt is self.attempts_of[attempt.message_id][0]

    @cached_property
    def batch_of(self) -> Mapping[int, int]:
        """Batches by message."""
        return {message.id: message.batch_id for message in self.evidence.messages}

    def reached(self, message: int) -> int:
        """How often the phone got it."""
        return sum(entry.delivered for entry in self.entries_of.get(message, ()))


def judge(evidence: Evidence) -> list[Finding]:
    """Every broken promise, rule by rule in the order of :data:`RULES`."""
    case = Case(evidence)
    return [finding for rule in RULES for finding in rule(case)]


def lost(case: Case) -> Iterator[Finding]:
    """Called sent and on no phone, or never made at all."""
    for message in case.evidence.messages:
        if message.state in REACHED and not case.reached(message.id):
            yield Finding("lost", f"message {message.id} is {message.state} and reached no phone", message.id)
    made = Counter(case.batch_of.values())
    for batch in case.evidence.batches:
        missing = 0 if batch.expected is None else batch.expected - made[batch.id]
        if missing < 0 or (missing and batch.state != "cancelled"):  # which may have come before the last was made
            yield Finding("lost", f"batch {batch.id} ({batch.name}) has {made[batch.id]} of {batch.expected} messages")
    for missed in sorted(set(case.evidence.accepted) - set(case.batch_of)):
        yield Finding("lost", f"message {missed} was accepted by the API and does not exist", missed)


def duplicated(case: Case) -> Iterator[Finding]:
    """On one phone more than once."""
    for message in case.entries_of:
        times = case.reached(message)
        if times > 1:
            yield Finding("duplicated", f"message {message} reached its phone {times} times", message)
    singles = {batch.id for batch in case.evidence.batches if batch.single}
    for message, batch in case.batch_of.items():
        if batch in singles and message not in case.evidence.accepted:
            yield Finding("duplicated", f"message {message} was made by a request that was answered with another")


def unaccounted(case: Case) -> Iterator[Finding]:
    """On a phone, and the rows say that it was not sent; or asked of the gateway without an attempt to show for it."""
    known = set()
    for message in case.evidence.messages:
        known.add(message.id)
        settled = message.state not in REACHED | WAITING | {State.UNKNOWN}
        if settled and case.reached(message.id):
            yield Finding("unaccounted", f"message {message.id} is {message.state} and reached its phone", message.id)
    for entry in case.evidence.entries:
        if entry.message not in known:
            yield Finding("unaccounted", f"request {entry.n} is about message {entry.message}, which does not exist")
        elif entry.n not in case.attempt_behind:
            yield Finding("unaccounted", f"request {entry.n} was made without a claim", entry.message)


def resent(case: Case) -> Iterator[Finding]:
    """Sent again after an answer; or, at a gateway that drops no repeats, after an outcome that nobody knew."""
    forgetful = {device.id for device in case.evidence.devices if not device.dedups}
    for message, attempts in case.attempts_of.items():
        for earlier, later in pairwise(attempts):
            if later.round != earlier.round:
                continue
            # Who tells only after its lease may have been overtaken already.
            told = earlier.finished or earlier.started
            in_time = told < min(later.started, earlier.started + case.evidence.lease_seconds)
            answered = earlier.outcome in {"accepted", "rejected"} and in_time
            doubtful = earlier.outcome in {"unknown", ""} and earlier.device_id in forgetful
            if answered or doubtful:
                text = f"message {message}: attempt {later.number} followed one with the outcome “{earlier.outcome}”"
                yield Finding("resent", text, message)


def unheeded(case: Case) -> Iterator[Finding]:
    """Claimed after a pause, a cancellation or a halt."""
    for stop in case.evidence.stops:
        for attempt in case.evidence.attempts:
            if stop.forbids(attempt, batch=case.batch_of.get(attempt.message_id)):
                late = attempt.started - stop.begin
                text = f"message {attempt.message_id} was claimed {late:.3f} s after {stop.what}"
                yield Finding("unheeded", text, attempt.message_id)


def opted_out(case: Case) -> Iterator[Finding]:
    """Claimed after its lead had refused."""
    for refusal in case.evidence.opt_outs:
        for message in sorted(refusal.messages):
            for attempt in case.attempts_of.get(message, ()):
                if (message, attempt.release_no) not in refusal.seen:
                    text = f"message {message}: release {attempt.release_no} was claimed after its lead had opted out"
                    yield Finding("opted out", text, message)


def unjustified(case: Case) -> Iterator[Finding]:
    """Called unknown though nothing had been done to it; or left without any outcome."""
    waiting = {message.id for message in case.evidence.messages if message.state in WAITING}
    for attempt in case.evidence.attempts:
        if not attempt.outcome and attempt.message_id not in waiting:
            text = f"message {attempt.message_id}: attempt {attempt.number} has no outcome"
            yield Finding("unjustified", text, attempt.message_id)
        if attempt.outcome == "unknown" and cause(case, attempt) is None:
            text = f"attempt {attempt.number} is unknown for no reason ({attempt.error_code})"
            yield Finding("unjustified", f"message {attempt.message_id}: {text}", attempt.message_id)


def cause(case: Case, attempt: AttemptRow) -> str | None:
    """What was done to an attempt that may leave its outcome unknown: "gateway", or a kind of incident."""
    lease = case.evidence.lease_seconds
    for entry in case.entries_behind.get((attempt.message_id, attempt.release_no), ()):
        faults = entry.faults.split("+")
        slow = entry.seconds > lease and any(fault.startswith(SLOW) for fault in faults)
        if slow or any(fault.startswith(DOUBTFUL) for fault in faults):
            return "gateway"
    # A record is tried for a lease's time from the end of the call, and the recovery may come a while after that.
    until = max(attempt.finished or 0.0, attempt.started + lease)
    for incident in case.evidence.incidents:
        if incident.hides_outcomes and incident.overlaps(attempt.started, until):
            return incident.kind
    return None


def reordered(case: Case) -> Iterator[Finding]:
    """First attempts that left a device of one lane in another order than their stream's, but for what came later."""
    one_lane = {device.token for device in case.evidence.devices if device.lanes == 1}
    stream = {message.id: message.stream_id for message in case.evidence.messages}
    for token in sorted(one_lane & set(case.by_device)):
        last: dict[int, int] = {}
        for entry in case.by_device[token]:
            message = entry.message
            if message is None or message not in stream or message in case.evidence.moved or not case.is_first(entry):
                continue
            before = last.get(stream[message], 0)
            if message < before:
                yield Finding("reordered", f"{token} sent message {message} after {before}", message)
            last[stream[message]] = max(before, message)


def over_lanes(case: Case) -> Iterator[Finding]:
    """More in flight at one device than it has lanes."""
    lanes = {device.token: device.lanes for device in case.evidence.devices}
    for token, entries in case.by_device.items():
        ends: list[float] = []
        for entry in entries:
            ends = [end for end in ends if end > entry.begin]
            ends.append(float("inf") if entry.end is None else entry.end)
            if len(ends) > lanes.get(token, 0):
                text = f"{token} had {len(ends)} in flight with {lanes.get(token, 0)} lanes (request {entry.n})"
                yield Finding("over lanes", text, entry.message)


def early(case: Case) -> Iterator[Finding]:
    """Sooner after the device's last request than the shortest gap allows."""
    gap = {device.token: device.gap_seconds for device in case.evidence.devices}
    batch_gap = {batch.id: batch.gap_seconds for batch in case.evidence.batches}
    for token, entries in case.by_device.items():
        for before, entry in pairwise(entries):
            wanted = max(gap.get(token, 0.0), batch_gap.get(case.batch_of.get(before.message or 0, 0), 0.0))
            # A request may dawdle between its claim and the gateway; if then its record is lost as well, only the
            # moments of the claims can be held against the reservation.
            since = max(entry.begin - before.begin, case.claimed(entry) - case.claimed(before))
            if since < wanted - CLOCK_SECONDS:
                text = f"{token} sent {entry.begin - before.begin:.3f} s after the last, gap {wanted:g} s"
                yield Finding("early", f"{text} (requests {before.n}, {entry.n})", entry.message)


def stuck(case: Case) -> Iterator[Finding]:
    """What did not move for longer than it may, and what still waits at the end."""
    named = set()
    for item in case.evidence.stuck:
        named.add(item.message)
        yield Finding("stuck", item.what, item.message)
    for message in case.evidence.messages:
        if message.state in WAITING and message.id not in named:
            yield Finding("stuck", f"message {message.id} is {message.state} at the end", message.id)
    for batch in case.evidence.batches:
        if batch.state in {"running", "paused"}:
            yield Finding("stuck", f"batch {batch.id} ({batch.name}) is {batch.state} at the end")


def miscounted(case: Case) -> Iterator[Finding]:
    """A counter that differs from a recount of the rows."""
    rows: defaultdict[int, Counter[str]] = defaultdict(Counter)
    for message in case.evidence.messages:
        count = rows[message.stream_id]
        count["total"] += 1
        count["waiting" if message.state in WAITING else "sent" if message.state in REACHED else message.state] += 1
        count["delivered"] += message.delivered
        count["read"] += message.read
    for stream in case.evidence.streams:
        wrong = _wrong(stream, rows[stream.id])
        if wrong:
            yield Finding("miscounted", f"stream {stream.id} (batch {stream.batch_id}): {wrong}")


def _wrong(stream: StreamRow, recount: Mapping[str, int]) -> str:
    parts = [
        f"{name} {counter}, {recount.get(name, 0)} rows"
        for name, counter in stream.counters.items()
        if counter != recount.get(name, 0)
    ]
    if stream.is_open != (recount.get("waiting", 0) > 0):
        parts.append(f"is_open {stream.is_open}, {recount.get('waiting', 0)} rows wait")
    return "; ".join(parts)


def refused(case: Case) -> Iterator[Finding]:
    """A service that failed other than by its database being away."""
    for problem in case.evidence.problems:
        yield Finding("refused", problem)


def raised(case: Case) -> Iterator[Finding]:
    """An error that nobody expected: a belt that had to hold, or a plain defect."""
    for error, times in Counter(case.evidence.errors).most_common():
        yield Finding("raised", f"{error} ({times} times)")


Rule = Callable[[Case], Iterator[Finding]]

RULES: tuple[Rule, ...] = (
    lost,
    duplicated,
    unaccounted,
    resent,
    unheeded,
    opted_out,
    unjustified,
    reordered,
    over_lanes,
    early,
    stuck,
    miscounted,
    refused,
    raised,
)


def rule_names() -> list[str]:
    """The words that findings carry, in the order of the table."""
    return [rule.__name__.replace("_", " ") for rule in RULES]
