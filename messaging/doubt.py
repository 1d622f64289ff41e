"""What becomes of a message whose outcome nobody knows. Pure.

Nobody guesses unless the operator chose to: the policy of a gateway is ``hold`` (wait for a receipt or a person),
``resend`` (rather twice than not at all) or ``fail`` (rather not at all than twice, and say so). Gateways that drop
repeated ids are sent to again by dispatch itself; what reaches this point there has used up its attempts, and is held.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from devices.gateways.base import IdSemantics
from messaging.pacing import retry_delay_seconds

LOOK_UP_AFTER = timedelta(seconds=10)
"""A gateway may take a moment to find what it has just taken."""

LOOK_AGAIN = timedelta(seconds=30)
RECONSIDER = timedelta(hours=1)
"""How often a held message is looked at, so that a changed setting takes effect."""


class Policy(StrEnum):
    """The operator's choice for a gateway."""

    HOLD = "hold"
    RESEND = "resend"
    FAIL = "fail"


class Step(StrEnum):
    """What is done now."""

    WAIT = "wait"
    LOOK_UP = "look_up"
    RESEND = "resend"
    FAIL = "fail"
    PRESUME = "presume"


@dataclass(frozen=True, slots=True)
class Doubt:
    """One unknown outcome. ``may_go_out``: its batch, lead and last release would let it go out again."""

    since: datetime
    attempts: int
    may_go_out: bool
    id_semantics: IdSemantics
    policy: Policy


@dataclass(frozen=True, slots=True)
class Verdict:
    """The step, and the seconds until the message is due after it: to be sent, or to be looked at again."""

    step: Step
    wait_seconds: float = 0.0


def consider(
    doubt: Doubt, *, now: datetime, close_after: timedelta, grace: timedelta, retry_minutes: Sequence[float]
) -> Verdict:
    """What to do about ``doubt``.

    A gateway that can be searched is asked first; its policy applies from twice ``grace`` on, when asking has come to
    nothing. Whatever is still held after ``close_after`` is presumed sent.
    """
    age = now - doubt.since
    searchable = doubt.id_semantics == "searchable"
    if doubt.id_semantics != "dedups" and not (searchable and age < 2 * grace):
        if doubt.policy is Policy.FAIL:
            return Verdict(Step.FAIL)
        delay = retry_delay_seconds(attempt=max(doubt.attempts, 1), minutes=retry_minutes)
        if doubt.policy is Policy.RESEND and doubt.may_go_out and delay is not None:
            return Verdict(Step.RESEND, delay)
    if age >= close_after:
        return Verdict(Step.PRESUME)
    if searchable and age >= LOOK_UP_AFTER:
        return Verdict(Step.LOOK_UP, LOOK_AGAIN.total_seconds())
    wait = min(close_after - age, RECONSIDER, LOOK_UP_AFTER - age if searchable else RECONSIDER)
    return Verdict(Step.WAIT, max(wait.total_seconds(), 1.0))


def policy_for(gateway: str, *, policies: dict[str, str]) -> Policy:
    """The policy of a gateway kind; ``policies`` by kind, the one for every other kind under ""."""
    return Policy(policies.get(gateway) or policies.get("") or Policy.HOLD)
