"""What the error codes of Meta's Cloud API mean for a message.

Source: Meta's page "Error codes". The code decides, since its HTTP statuses contradict each other. A code that stands
in no list here says nothing about whether the message was sent.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from devices.gateways.base import Outcome, Rejected, SessionLost, Temporary, Throttled, Unknown

DAY = 86_400.0
WINDOW_CLOSED = "This person has not written for 24 hours: use a template."

_Make = Callable[[str, str, float], Outcome]
"""Of a code's name, Meta's words, and the seconds that they asked for (0: they named no time)."""

_BY_CODE: dict[int, _Make] = {}


def _means(codes: Iterable[int], make: _Make) -> None:
    _BY_CODE.update(dict.fromkeys(codes, make))


_means((4, 80007, 130429), lambda name, words, rest: Throttled(name, words, rest or 60.0))
_means((131056,), lambda name, words, rest: Throttled(name, words, rest or 64.0, scope="lead"))  # too fast to one
_means((131049,), lambda name, words, rest: Throttled(name, words, max(rest, DAY), scope="lead"))  # marketing cap
_means((131048,), lambda name, words, rest: Throttled(name, words, max(rest, 3600.0)))  # spam rate
_means((131047,), lambda name, words, _: Rejected(name, f"{WINDOW_CLOSED} ({words})"))
_means((368, 131031), lambda name, words, _: SessionLost(name, words, banned=True))  # policy, locked
_means((130497, 133016), lambda name, words, _: SessionLost(name, words))  # country, too many registrations
_means((0, 190), lambda name, words, _: SessionLost(name, words))  # token
_means((3, 10, *range(200, 300), 131005), lambda name, words, _: SessionLost(name, words))  # permission
_means((33, 131037, 131042, 131045, 134011), lambda name, words, _: SessionLost(name, words))  # number, payment
_means(
    (133000, 133005, 133006, 133008, 133009, 133010, 133015), lambda name, words, _: SessionLost(name, words)
)  # registration
_means((2, 131000, 131016, 131053, 131057, 133004), lambda name, words, _: Temporary(name, words))
_means((130472, 131021, 131026, 131030, 131050), lambda name, words, _: Rejected(name, words))  # this person
_means((100, 131008, 131009, 131051, 131052, 135000), lambda name, words, _: Rejected(name, words))  # this content
_means(
    (132000, 132001, 132005, 132007, 132012, 132015, 132016, 132068, 132069),
    lambda name, words, _: Rejected(name, words),
)  # this template
_means((1,), lambda name, words, _: Unknown(name, words))


def outcome_of(code: object, words: str, *, retry_after_seconds: float) -> Outcome | None:
    """The outcome of an error; None if its code is in no list. ``retry_after_seconds`` 0: they named no time."""
    make = _BY_CODE.get(code) if isinstance(code, int) and not isinstance(code, bool) else None
    return (
        make(f"meta_{code}", words or f"Meta gives no words for error {code}.", retry_after_seconds) if make else None
    )
