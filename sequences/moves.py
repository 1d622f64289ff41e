"""What becomes of one enrolment that the tick looks at. Pure: facts in, one move out; no Django, no clock.

The order of the questions is the order of what matters: a step that has gone out is counted first, then whatever
ends the enrolment, then a reply, then the device, then the time.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from zoneinfo import ZoneInfo

from leads.quiet import zone_of
from sequences import timing
from sequences.route import Route, Stop

SOON = timedelta(seconds=1)
REVIEW = timedelta(minutes=5)
AT_MOST = timedelta(minutes=5)
"""How long what has happened may go unnoticed where it took long to happen."""

DEVICE = "device"
PERSON = "person"
"""Codes of a pause: by itself, because the device cannot send, or by somebody."""

SENT = frozenset({"sent", "delivered", "read"})
WAITING = frozenset({"pending", "queued", "sending"})


@dataclass(frozen=True, slots=True)
class Rules:
    """What a sequence says about all of its steps. ``zone`` is empty for each lead's own."""

    route: Route
    goal: str = ""
    exit_on_reply: bool = True
    stop_on_failure: bool = True
    late: timedelta = timedelta(hours=72)
    zone: str = ""
    lead_zone: str = "UTC"
    """For leads whose number does not tell."""

    def reply_rule(self, last: Stop | None) -> str:
        """What a reply does to a lead that had ``last`` last: exit, ignore or go."""
        if last is not None and last.on_reply:
            return last.on_reply
        return "exit" if self.exit_on_reply else "ignore"


@dataclass(frozen=True, slots=True)
class Sent:
    """What has become of a step's message so far; ``state`` is empty when it was deleted."""

    state: str
    since: datetime
    sent_at: datetime | None = None
    presumed_at: datetime | None = None
    queued_at: datetime | None = None
    code: str = ""
    text: str = ""


@dataclass(frozen=True, slots=True)
class Facts:
    """One enrolment with its lead, its device and the message that is on its way."""

    enrolment_id: int
    state: str
    code: str
    next_key: int | None
    last_key: int | None
    base_at: datetime
    due_at: datetime | None
    reply_no: int
    turn: int
    phone: str
    stated_zone: str
    triggers: tuple[str, ...]
    times_replied: int
    opted_out: bool
    in_review: bool
    has_device: bool
    device_able: bool
    message: Sent | None = None


@dataclass(frozen=True, slots=True)
class Move:
    """What an enrolment is to be from now on. ``hand_over``: its next step is to become a message."""

    state: str
    next_key: int | None
    last_key: int | None
    base_at: datetime
    due_at: datetime | None
    look_at: datetime | None
    reply_no: int
    turn: int
    code: str = ""
    reason: str = ""
    keeps_message: bool = False
    withdraw: str = ""
    hand_over: Stop | None = None
    bound: bool = False
    """Whether the message is bound to the number of the lead's replies."""

    @property
    def live(self) -> bool:
        """Whether it has anything ahead."""
        return self.state in {"active", "paused"}


ENDINGS = {
    "opted_out": "The lead opted out.",
    "goal": "The lead has reached the goal.",
    "reply": "The lead wrote back.",
    "removed": "Somebody took the lead out.",
}
WITHDRAWALS = {
    **ENDINGS,
    "late": "It could not go out in time and was skipped.",
    "paused": "The lead was paused in its sequence.",
    "edited": "Its step was taken out of the sequence.",
    "branched": "The lead wrote back and goes another way.",
}


def decide(facts: Facts, rules: Rules, *, now: datetime) -> Move:
    """The one move that is to be made now."""
    here = _as_is(facts)
    message = facts.message
    held = facts.state == "paused" and facts.code == PERSON
    if message is not None and (gone := _gone_at(message)) is not None and not held:
        return _advance(facts, rules, here, base_at=gone, now=now)
    for code, met in (("opted_out", facts.opted_out), ("goal", bool(rules.goal) and rules.goal in facts.triggers)):
        if met:
            return leave(here, code=code, waiting=_waits(message))
    if facts.times_replied != facts.reply_no:
        return _replied(facts, rules, here, now=now)
    if held:
        return replace(here, look_at=None)
    if message is not None:
        return _message(facts, rules, here, message, now=now)
    return _next(facts, rules, here, now=now)


def leave(here: Move, *, code: str, waiting: bool) -> Move:
    """Out of the sequence; what has not left yet never will."""
    return replace(
        here, state="exited", code=code, reason=ENDINGS[code], due_at=None, look_at=None,
        withdraw=code if waiting else "", keeps_message=False,
    )  # fmt: skip


def _as_is(facts: Facts) -> Move:
    return Move(
        state=facts.state,
        code=facts.code,
        next_key=facts.next_key,
        last_key=facts.last_key,
        base_at=facts.base_at,
        due_at=facts.due_at,
        look_at=None,
        reply_no=facts.reply_no,
        turn=facts.turn,
        keeps_message=facts.message is not None,
    )


def _gone_at(message: Sent) -> datetime | None:
    """When the step went out, as far as anybody knows; None if it has not."""
    if message.state in SENT:
        return message.sent_at or message.since
    if message.state == "unknown" and message.presumed_at is not None:
        return message.queued_at or message.since
    return None


def _waits(message: Sent | None) -> bool:
    return message is not None and (message.state in WAITING or message.state == "unknown")


def _advance(facts: Facts, rules: Rules, here: Move, *, base_at: datetime, now: datetime) -> Move:
    """The step ahead is behind now: what follows it, if anything does."""
    done = rules.route.stop(facts.next_key)
    following = rules.route.after(done) if done is not None else None
    waits = done.wait if done is not None else timedelta(0)
    behind = replace(
        here, state="active", code="", last_key=facts.next_key, next_key=following.key if following else None,
        base_at=base_at + waits, due_at=None, look_at=now, keeps_message=False,
    )  # fmt: skip
    if following is None and base_at + waits <= now:
        return complete(behind)
    return behind


def complete(here: Move) -> Move:
    """At the end."""
    return replace(here, state="completed", code="", reason="", next_key=None, due_at=None, look_at=None)


def _replied(facts: Facts, rules: Rules, here: Move, *, now: datetime) -> Move:
    last = rules.route.stop(facts.last_key)
    match rules.reply_rule(last):
        case "exit":
            return leave(here, code="reply", waiting=_waits(facts.message))
        case "go" if last is not None:
            following = rules.route.on_reply(last)
            moved = replace(
                here, next_key=following.key if following else None, base_at=now, due_at=None, look_at=now,
                reply_no=facts.times_replied, keeps_message=False, withdraw="branched" if facts.message else "",
            )  # fmt: skip
            return moved if following is not None else complete(moved)
        case _:
            # What was handed over is not bound to their replies.
            return replace(here, reply_no=facts.times_replied, look_at=now)


def _message(facts: Facts, rules: Rules, here: Move, message: Sent, *, now: datetime) -> Move:
    """Its step's message has not gone out: still, or never."""
    due = facts.due_at or message.since
    again = partial(timing.look_again, message.since, now=now, at_most=AT_MOST)
    match message.state:
        case "failed" if rules.stop_on_failure:
            return replace(
                here, state="failed", code="failed", reason=(message.text or "The step could not be sent.")[:200],
                due_at=None, look_at=None,
            )  # fmt: skip
        case "failed":
            return _advance(facts, rules, here, base_at=now, now=now)
        case "cancelled" | "expired" | "":
            return _never_went(facts, rules, here, message, due=due, now=now)
        case "unknown":
            return replace(here, look_at=again(at_least=2 * SOON))
    if message.state == "pending" and timing.is_late(due, now=now, late=rules.late):
        return replace(here, withdraw="late", look_at=now + SOON)
    if message.state == "pending" and not facts.device_able:
        return _pause_for_device(facts, here, now=now)
    return replace(_resumed(here), look_at=again(at_least=2 * SOON))


def _never_went(facts: Facts, rules: Rules, here: Move, message: Sent, *, due: datetime, now: datetime) -> Move:
    if message.code in {"withdrawn", "paused", "edited", "branched", "replied"}:
        # Taken back, not given up: the step ahead becomes a message anew.
        return replace(here, due_at=None, look_at=now, keeps_message=False, turn=facts.turn + 1)
    if message.code in {"late", "expired"} or message.state != "cancelled":
        return _skip(facts, rules, here, due=due, now=now)
    if message.code == "merged":  # whoever stayed has it from the same batch
        return _advance(facts, rules, here, base_at=now, now=now)
    if rules.stop_on_failure:
        return replace(
            here, state="failed", code="cancelled", reason=(message.text or "Its message was cancelled.")[:200],
            due_at=None, look_at=None,
        )  # fmt: skip
    return _advance(facts, rules, here, base_at=now, now=now)


def _skip(facts: Facts, rules: Rules, here: Move, *, due: datetime, now: datetime) -> Move:
    """Too late for this step. The next one's delay counts from when this one should have gone out."""
    return _advance(facts, rules, here, base_at=due, now=now)


def _next(facts: Facts, rules: Rules, here: Move, *, now: datetime) -> Move:
    """The step ahead: when it is due, and whether it can go out."""
    stop = rules.route.stop(facts.next_key)
    if stop is None and facts.last_key is None:
        stop = rules.route.first()  # it came in while the first step was being taken out
    if stop is None:
        # A wait for a reply after the last step ends here.
        return replace(here, look_at=facts.base_at) if facts.base_at > now else complete(here)
    zone = _zone(facts, rules, stop)
    due = facts.due_at or timing.due_at(facts.base_at, delay=stop.delay, hours=stop.hours, zone=zone)
    ahead = replace(here, next_key=stop.key, due_at=due)
    if due > now:
        return replace(_resumed(ahead), look_at=due)
    if timing.is_late(due, now=now, late=rules.late):
        return _skip(facts, rules, ahead, due=due, now=now)
    if facts.in_review:
        return replace(ahead, look_at=now + REVIEW)
    if not facts.device_able:
        return _pause_for_device(facts, ahead, now=now)
    opens = stop.hours.opening(now, zone=zone)
    if opens > now:
        return replace(_resumed(ahead), look_at=opens)
    bound = rules.reply_rule(rules.route.stop(facts.last_key)) != "ignore"
    return replace(_resumed(ahead), hand_over=stop, bound=bound, look_at=now + 2 * SOON)


def _resumed(here: Move) -> Move:
    return replace(here, state="active", code="", reason="") if here.code == DEVICE else here


def _pause_for_device(facts: Facts, here: Move, *, now: datetime) -> Move:
    reason = "Its device is not connected." if facts.has_device else "It has no device."
    since = facts.due_at or now
    return replace(
        here, state="paused", code=DEVICE, reason=f"{reason} It goes on by itself once it has one that is.",
        look_at=timing.look_again(since, now=now, at_least=timedelta(seconds=10), at_most=AT_MOST),
    )  # fmt: skip


def _zone(facts: Facts, rules: Rules, stop: Stop) -> ZoneInfo:
    if stop.hours.always:
        return ZoneInfo("UTC")
    if rules.zone:
        return ZoneInfo(rules.zone)
    return zone_of(phone=facts.phone, stated=facts.stated_zone, otherwise=rules.lead_zone)
