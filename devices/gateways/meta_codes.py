"""What the error codes of Meta's Cloud API mean for a message.

Source: Meta's page "Error codes". The code decides, since its HTTP statuses contradict each other. A code that stands
in no list here says nothing about whether the message was sent.
"""

from __future__ import annotations

from devices.gateways.base import Outcome, Rejected, SessionLost, Temporary, Throttled, Unknown

DAY = 86_400.0

THROTTLED_NUMBER = frozenset({4, 80007, 130429})
THROTTLED_PAIR = 131056
SPAM = 131048
MARKETING_CAP = 131049
WINDOW_CLOSED = 131047
UNCLEAR = 1
BANNED = frozenset({368, 131031})
PAUSED = frozenset({130497, 133016})
MUST_BE_FIXED = frozenset(
    {0, 3, 10, 33, 190, 131005, 131037, 131042, 131045, 133000, 133005, 133006, 133008, 133009, 133010, 133015, 134011}
    | set(range(200, 300))
)
TEMPORARY = frozenset({2, 131000, 131016, 131053, 131057, 133004})
LEAD = frozenset({130472, 131021, 131026, 131030, 131050})
CONTENT = frozenset(
    {100, 131008, 131009, 131051, 131052, 132000, 132001, 132005, 132007, 132012, 132015, 132016, 132068, 132069, 135000}
)


def outcome_of(code: object, words: str, *, retry_after_seconds: float) -> Outcome | None:
    """The outcome of an error; None if its code is in no list. ``retry_after_seconds`` 0: they named no time."""
    if isinstance(code, bool) or not isinstance(code, int):
        return None
    name = f"meta_{code}"
    words = words or f"Meta gives no words for error {code}."
    if code in THROTTLED_NUMBER:
        return Throttled(name, words, retry_after_seconds or 60.0)
    if code == THROTTLED_PAIR:
        return Throttled(name, words, retry_after_seconds or 64.0, scope="lead")
    if code == MARKETING_CAP:
        return Throttled(name, words, max(retry_after_seconds, DAY), scope="lead")
    if code == SPAM:
        return Throttled(name, words, max(retry_after_seconds, 3600.0))
    if code == WINDOW_CLOSED:
        remedy = "This person has not written for 24 hours: use a template."
        return Rejected(name, f"{remedy} ({words})")
    if code in BANNED:
        return SessionLost(name, words, banned=True)
    if code in PAUSED or code in MUST_BE_FIXED:
        return SessionLost(name, words)
    if code in TEMPORARY:
        return Temporary(name, words)
    if code in LEAD or code in CONTENT:
        return Rejected(name, words)
    if code == UNCLEAR:
        return Unknown(name, words)
    return None
