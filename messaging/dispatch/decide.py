"""What an outcome means for its message and its device. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from devices.gateways.base import (
    Accepted,
    IdSemantics,
    Outcome,
    Rejected,
    SessionLost,
    Temporary,
    Throttled,
    Unknown,
)
from messaging.pacing import retry_delay_seconds
from messaging.states import State

MAX_TEXT = 300
"""Longest explanation stored with a row, in characters."""


@dataclass(frozen=True, slots=True)
class Decision:
    """Where the message goes, what is written down, and what the device has to do."""

    state: State
    outcome: str
    wait_seconds: float = 0.0
    free: bool = False
    """Whether the call costs no attempt."""
    external_id: str = ""
    error_code: str = ""
    error_text: str = ""
    hold_device_seconds: float = 0.0
    hold_new_contacts_seconds: float = 0.0
    device_needs_attention: bool = False
    banned: bool = False


def decide(
    outcome: Outcome,
    *,
    attempt: int,
    retry_minutes: Sequence[float],
    id_semantics: IdSemantics,
    in_doubt: bool = False,
) -> Decision:
    """The decision for ``outcome`` of attempt number ``attempt`` (from 1, within its round).

    ``in_doubt``: an earlier attempt of the round ended unknown. It may have arrived, so a definite failure now proves
    nothing about the message and it ends as unknown instead of failed.
    """
    end = State.UNKNOWN if in_doubt else State.FAILED
    match outcome:
        case Accepted(external_id=external_id):
            return Decision(State.SENT, "accepted", external_id=external_id or "")
        case Rejected(code=code, text=text):
            return Decision(end, "rejected", error_code=code, error_text=text[:MAX_TEXT])
        case Temporary(code=code, text=text):
            return _try_again("temporary", code, text, attempt=attempt, minutes=retry_minutes, end=end)
        case Throttled(code=code, text=text, retry_after_seconds=seconds, scope=scope):
            return Decision(
                State.PENDING,
                "throttled",
                wait_seconds=seconds,
                free=True,
                error_code=code,
                error_text=text[:MAX_TEXT],
                hold_device_seconds=seconds if scope == "device" else 0.0,
                hold_new_contacts_seconds=seconds if scope == "new_contacts" else 0.0,
            )
        case SessionLost(code=code, text=text, banned=banned):
            return Decision(
                State.PENDING,
                "banned" if banned else "session_lost",
                free=True,
                error_code=code,
                error_text=text[:MAX_TEXT],
                device_needs_attention=True,
                banned=banned,
            )
        case Unknown(code=code, text=text):
            if id_semantics == "dedups":
                return _try_again("unknown", code, text, attempt=attempt, minutes=retry_minutes, end=State.UNKNOWN)
            return Decision(State.UNKNOWN, "unknown", error_code=code, error_text=text[:MAX_TEXT])


def _try_again(outcome: str, code: str, text: str, *, attempt: int, minutes: Sequence[float], end: State) -> Decision:
    """Pending again after a while, or ``end`` when the attempts are used up."""
    delay = retry_delay_seconds(attempt=attempt, minutes=minutes)
    if delay is None:
        text = f"{text} (attempts used up: {attempt})"
        return Decision(end, outcome, error_code=code, error_text=text[:MAX_TEXT])
    return Decision(State.PENDING, outcome, wait_seconds=delay, error_code=code, error_text=text[:MAX_TEXT])
