"""What can go wrong: rules that pick requests by device, phone, chance and count.

A rule is a JSON object. All of them take ``fault``, ``device`` (a token, or ``*``), ``phone_prefix``, ``on`` (``send``,
``check`` or ``any``), ``probability``, ``count`` (how many requests it may hit; null for no limit) and ``seed``; the
rest depends on the fault:

============ ======================================== =======================================================
fault        parameters                               effect
============ ======================================== =======================================================
latency      seconds, or min_seconds and max_seconds; waits before or after accepting
             phase
drip         interval_seconds, chunk_bytes            the answer's body comes in small pieces
throttle     retry_after_seconds (null: no header)    429
error        status (500-599), phase                  that status; before accepting, nothing was taken
reset        phase                                    the connection is reset instead of answered
reject       code, text                               422
ban          (none)                                   401 from now on, until unbanned
unlink       (none)                                   logged out from now on, until paired again
broken_json  phase                                    200 with half a body
hang         phase                                    no answer until the client gives up
============ ======================================== =======================================================

``phase`` is ``before`` or ``after``: whether the phone has the message by then. Of the rules that hit one request, each
of latency-before, latency-after and drip applies once, and the first of the others decides. Rules of a device come
before rules of ``*``, older ones first.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Phase = Literal["before", "after"]
EVERYONE = "*"
MAX_SECONDS = 3600.0


class BadRule(ValueError):  # noqa: N818 - reads as a fact
    """A rule that makes no sense, with words that say what to change."""


def _number(low: float, high: float, *, whole: bool = False, optional: bool = False) -> Callable[[str, Any], Any]:
    def check(name: str, value: Any) -> Any:
        if value is None and optional:
            return None
        allowed = int if whole else (int, float)
        if isinstance(value, bool) or not isinstance(value, allowed) or not low <= value <= high:
            kind = "a whole number" if whole else "a number"
            raise BadRule(
                f"{name} must be {kind} from {low:g} to {high:g}{' or null' if optional else ''}, not {value!r}"
            )
        return value

    return check


def _text(name: str, value: Any) -> str:
    if not isinstance(value, str) or len(value) > 500:
        raise BadRule(f"{name} must be a text of at most 500 characters, not {value!r}")
    return value


def _one_of(*words: str) -> Callable[[str, Any], str]:
    def check(name: str, value: Any) -> str:
        if value not in words:
            raise BadRule(f"{name} must be one of {', '.join(words)}, not {value!r}")
        return str(value)

    return check


_seconds = _number(0, MAX_SECONDS)
_phase = _one_of("before", "after")

_COMMON: dict[str, tuple[Any, Callable[[str, Any], Any]]] = {
    "device": (EVERYONE, _text),
    "phone_prefix": ("", _text),
    "on": ("send", _one_of("send", "check", "any")),
    "probability": (1.0, _number(0, 1)),
    "count": (None, _number(1, 1_000_000_000, whole=True, optional=True)),
    "seed": (None, _number(0, 2**63, whole=True, optional=True)),
}

# parameter -> (default, check) for each fault
FAULTS: dict[str, dict[str, tuple[Any, Callable[[str, Any], Any]]]] = {
    "latency": {
        "seconds": (None, _number(0, MAX_SECONDS, optional=True)),
        "min_seconds": (None, _number(0, MAX_SECONDS, optional=True)),
        "max_seconds": (None, _number(0, MAX_SECONDS, optional=True)),
        "phase": ("after", _phase),
    },
    "drip": {"interval_seconds": (0.1, _seconds), "chunk_bytes": (1, _number(1, 65_536, whole=True))},
    "throttle": {"retry_after_seconds": (1, _number(0, 86_400, optional=True))},
    "error": {"status": (500, _number(500, 599, whole=True)), "phase": ("before", _phase)},
    "reset": {"phase": ("before", _phase)},
    "reject": {"code": ("invalid_phone", _text), "text": ("This phone cannot be reached.", _text)},
    "ban": {},
    "unlink": {},
    "broken_json": {"phase": ("after", _phase)},
    "hang": {"phase": ("after", _phase)},
}


@dataclass(slots=True)
class Rule:
    """One rule and how often it has hit."""

    id: int
    fault: str
    device: str
    phone_prefix: str
    on: str
    probability: float
    count: int | None
    seed: int | None
    params: dict[str, Any]
    rng: random.Random = field(repr=False)
    hits: int = 0

    @property
    def label(self) -> str:
        """The fault's name in the ledger: with its phase, where it has one."""
        phase = self.params.get("phase")
        return f"{self.fault}:{phase}" if phase else self.fault

    def strikes(self, *, phone: str, on: str) -> bool:
        """Whether this rule hits this request. Draws from the rule's own generator only when everything else fits."""
        if self.count is not None and self.hits >= self.count:
            return False
        if (self.on not in ("any", on)) or not phone.startswith(self.phone_prefix):
            return False
        return self.probability >= 1 or self.rng.random() < self.probability

    def seconds(self) -> float:
        """How long this latency is, this time."""
        if self.params["seconds"] is not None:
            return float(self.params["seconds"])
        return self.rng.uniform(self.params["min_seconds"], self.params["max_seconds"])

    def as_json(self) -> dict[str, Any]:
        """What the control API shows."""
        common = {name: getattr(self, name) for name in ("id", "fault", *_COMMON)}
        return {**common, **self.params, "hits": self.hits}


@dataclass(frozen=True, slots=True)
class Plan:
    """What happens to one request."""

    before_seconds: float = 0.0
    after_seconds: float = 0.0
    drip: Rule | None = None
    verdict: Rule | None = None
    labels: str = ""

    def decides(self, fault: str, phase: Phase | None = None) -> Rule | None:
        """The deciding rule, if it is this fault (in this phase)."""
        rule = self.verdict
        if rule is None or rule.fault != fault or (phase is not None and rule.params["phase"] != phase):
            return None
        return rule


NO_FAULT = Plan()


class Faults:
    """The rules in force."""

    def __init__(self, *, seed: int = 0) -> None:
        self._seed = seed
        self._next_id = 1
        self._rules: dict[int, Rule] = {}
        self._by_device: dict[str, list[Rule]] = {}
        self.banned: set[str] = set()

    def add(self, raw: Any) -> list[Rule]:
        """Add one rule or a list of them, all or none. Raises :class:`BadRule`."""
        many = raw if isinstance(raw, list) else [raw]
        parsed = []
        for position, item in enumerate(many):
            try:
                parsed.append(_parse(item))
            except BadRule as problem:
                where = f"rule {position}: " if isinstance(raw, list) else ""
                raise BadRule(f"{where}{problem}") from None
        return [self._add(*values) for values in parsed]

    def _add(self, fault: str, common: dict[str, Any], params: dict[str, Any]) -> Rule:
        seed = common["seed"] if common["seed"] is not None else f"{self._seed}:{self._next_id}"
        rule = Rule(id=self._next_id, fault=fault, params=params, rng=random.Random(seed), **common)  # noqa: S311
        self._next_id += 1
        self._rules[rule.id] = rule
        self._by_device.setdefault(rule.device, []).append(rule)
        return rule

    def remove(self, rule_id: int) -> bool:
        """Drop one rule; False if there is none of that id."""
        rule = self._rules.pop(rule_id, None)
        if rule is None:
            return False
        self._by_device[rule.device].remove(rule)
        return True

    def clear(self) -> None:
        """Drop all rules. Bans stay: they are the state of devices."""
        self._rules.clear()
        self._by_device.clear()

    def rules(self) -> list[Rule]:
        """All rules, oldest first, used up or not."""
        return list(self._rules.values())

    def plan(self, *, device: str, phone: str, on: str) -> Plan:
        """Decide what happens to one request, and count the rules that took part."""
        if not self._rules:
            return NO_FAULT
        taken: dict[str, Rule] = {}
        for rule in (*self._by_device.get(device, ()), *self._by_device.get(EVERYONE, ())):
            slot = rule.label if rule.fault == "latency" else ("drip" if rule.fault == "drip" else "verdict")
            if slot not in taken and rule.strikes(phone=phone, on=on):
                rule.hits += 1
                taken[slot] = rule
        if not taken:
            return NO_FAULT
        before, after = taken.get("latency:before"), taken.get("latency:after")
        return Plan(
            before_seconds=before.seconds() if before else 0.0,
            after_seconds=after.seconds() if after else 0.0,
            drip=taken.get("drip"),
            verdict=taken.get("verdict"),
            labels="+".join(sorted(rule.label for rule in taken.values())),
        )


def _parse(raw: Any) -> tuple[str, dict[str, Any], dict[str, Any]]:
    if not isinstance(raw, Mapping):
        raise BadRule(f"a rule is a JSON object, not {type(raw).__name__}")
    fault = raw.get("fault")
    if not isinstance(fault, str) or fault not in FAULTS:
        raise BadRule(f"fault must be one of {', '.join(FAULTS)}, not {fault!r}")
    own = FAULTS[fault]
    if unknown := sorted(set(raw) - set(_COMMON) - set(own) - {"fault"}):
        takes = ", ".join(own) or "nothing of its own"
        raise BadRule(f"{fault} does not take {', '.join(unknown)} (it takes {takes}, and {', '.join(_COMMON)})")
    common = {name: check(name, raw.get(name, default)) for name, (default, check) in _COMMON.items()}
    params = {name: check(name, raw.get(name, default)) for name, (default, check) in own.items()}
    if fault == "latency":
        low, high = params["min_seconds"], params["max_seconds"]
        if (params["seconds"] is None) == (low is None and high is None):
            raise BadRule("latency takes either seconds, or min_seconds and max_seconds")
        if params["seconds"] is None and (low is None or high is None or low > high):
            raise BadRule("latency needs min_seconds and max_seconds, the first not above the second")
    return fault, common, params
