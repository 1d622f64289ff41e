"""What goes wrong and what is launched, and when: drawn from a seed before anything starts. Pure."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any, Final

LEASE_SECONDS: Final = 5.0
"""Leases are shortened to this, and a freeze lasts longer than it."""
FREEZE_SECONDS: Final = (6.0, 8.0)
FIRST_FAULT_SECONDS: Final = 2.0
"""The load gets going first."""
FAULT_GAP_SECONDS: Final = (0.5, 1.5)
ROLL_GAP_SECONDS: Final = 2.5
"""From one worker's SIGTERM to the next one's in a rolling restart."""
CAMPAIGN_GAP_SECONDS: Final = 4.0
LOAD_AHEAD: Final = 2_500
"""No campaign is launched while so many messages wait: a machine that is behind would only show that it is slow."""
CAMPAIGN_LEADS: Final = (250, 500)
NAP_CHANCE: Final = 0.06
SLOW_EVERY: Final = 10
"""Of so many campaigns one goes to the slow devices, whose gaps outlast a lease and its recovery."""
SLOW_LEADS: Final = (60, 64)
AMBUSH_SECONDS: Final = 60.0
"""For so long after the launch of a slow campaign somebody waits until several of its sends are under way; then both
device workers die, and their records with them."""
AMBUSH_LEAST: Final = 2
SINGLE_GAP_SECONDS: Final = 1.0
OPT_OUT_GAP_SECONDS: Final = 2.0
HALT_SECONDS: Final = (6.0, 7.0)
HALT_AFTER_FREEZE_SECONDS: Final = 3.0
"""STOP ALL comes while the device workers sleep: they wake in the middle of it, before a heap of tasks."""
PAUSE_GAP_SECONDS: Final = 4.0
PAUSE_SECONDS: Final = (0.8, 1.6)
"""Short pauses, often: what is caught by one is only what was just under way."""
SKEW_SECONDS: Final = (60.0, 600.0)
"""How wrong one worker's clock is, fast or slow."""
STUCK_QUEUED_MINUTES: Final = (0.25, 5.0)
"""By even and odd seeds: with the shorter one the recovery takes back what republishing did not cure; with the longer
one republishing has to do alone."""

DEVICE_WORKERS: Final = ("devices-a", "devices-b")
WORKERS: Final = (*DEVICE_WORKERS, "control-a", "control-b")
ARMED: Final = ("devices-a", "devices-b", "control-b")
"""Programs that run with failpoints: the first one only dawdles."""

KINDS: Final = ("kill", "term", "freeze", "valkey", "postgres", "gateway", "fleet", "rogue", "ambush")
"""Kinds of fault."""

DECK: Final[tuple[tuple[str, str], ...]] = (
    ("kill", "devices-a"),
    ("kill", "devices-b"),
    ("kill", "control-a"),
    ("kill", "control-b"),
    ("kill", "beat-a"),
    ("kill", "beat-b"),
    ("kill", "web"),
    ("freeze", "devices-a"),
    ("freeze", "devices-b"),
    ("freeze", "control-a"),
    ("roll", "workers"),
    ("valkey", "restart"),
    ("valkey", "flush"),
    ("valkey", "cut"),
    ("valkey", "pause"),
    ("postgres", "restart"),
    ("postgres", "kill"),
    ("postgres", "crash"),
    ("postgres", "cut"),
    ("postgres", "full"),
    ("gateway", "latency"),
    ("gateway", "drip"),
    ("gateway", "throttle"),
    ("gateway", "unavailable"),
    ("gateway", "error_before"),
    ("gateway", "error_after"),
    ("gateway", "reset_before"),
    ("gateway", "reset_after"),
    ("gateway", "broken_json"),
    ("fleet", "pause_devices"),
    ("fleet", "add_devices"),
    ("fleet", "remove_devices"),
    ("fleet", "cancel_batch"),
)
"""Every way to do harm. The deck is shuffled and dealt, again and again: nothing comes twice before all came once.

STOP ALL and the rogue releaser come once in each run beside it, short pauses and opt-outs at their own pace.
"""

GATEWAY_RULES: Final[Mapping[str, Mapping[str, Any]]] = {
    "latency": {"fault": "latency", "phase": "before", "min_seconds": 0.3, "max_seconds": 2.0, "probability": 0.2},
    "drip": {"fault": "drip", "interval_seconds": 0.04, "chunk_bytes": 1, "probability": 0.15},
    "throttle": {"fault": "throttle", "retry_after_seconds": 1, "probability": 0.1},
    "unavailable": {"fault": "error", "status": 503, "phase": "before", "probability": 0.15},
    "error_before": {"fault": "error", "status": 500, "phase": "before", "probability": 0.1},
    "error_after": {"fault": "error", "status": 502, "phase": "after", "probability": 0.1},
    "reset_before": {"fault": "reset", "phase": "before", "probability": 0.1},
    "reset_after": {"fault": "reset", "phase": "after", "probability": 0.1},
    "broken_json": {"fault": "broken_json", "phase": "after", "probability": 0.1},
}
"""Rules of the simulator, by the name they have in the deck."""

PREFIX: Final = "+6012"
HARD_PREFIX: Final = f"{PREFIX}7"
"""Phones begin with the last digit of their number, so that a tenth of each campaign has it."""
_AFTER: Final[Mapping[str, Any]] = {"fault": "latency", "phase": "after"}
WEATHER: Final[Sequence[Mapping[str, Any]]] = (
    {**_AFTER, "min_seconds": 0.3, "max_seconds": 0.8, "probability": 0.05},
    {**_AFTER, "min_seconds": 0.4, "max_seconds": 0.9, "phone_prefix": HARD_PREFIX},
    {**_AFTER, "min_seconds": 0.002, "max_seconds": 0.05},
    {"fault": "error", "status": 503, "phase": "before", "phone_prefix": HARD_PREFIX, "probability": 0.3},
)
"""Always in force, so that sends take a while and can be hit in the middle, some more than others.

The hard tenth of all phones often takes nothing at first, and then its time: an outcome that is told again meets the
next attempt in the middle.
"""


@dataclass(frozen=True, slots=True)
class Fault:
    """One harm: ``at`` seconds after the start, to ``target``, for ``seconds`` (0: a moment). ``seed`` is its own."""

    at: float
    kind: str
    target: str
    seconds: float = 0.0
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Launch:
    """One piece of work: a campaign to group ``group`` of ``leads`` leads, or (group None) a single message.

    ``slow``: over the slow devices instead of all the others.
    """

    at: float
    group: int | None = None
    leads: int = 1
    slow: bool = False


@dataclass(frozen=True, slots=True)
class Plan:
    """A whole run.

    ``arms`` holds the failpoints of each armed program, as its environment takes them; ``skews`` by how many seconds
    whose clock is wrong; ``stuck_minutes`` after which the recovery takes back what nobody claims.
    """

    seed: int
    seconds: float
    faults: Sequence[Fault]
    launches: Sequence[Launch]
    arms: Mapping[str, str] = field(default_factory=dict)
    skews: Mapping[str, float] = field(default_factory=dict)
    stuck_minutes: float = STUCK_QUEUED_MINUTES[0]

    @property
    def campaigns(self) -> list[Launch]:
        """The launches of campaigns, by group."""
        return [launch for launch in self.launches if launch.group is not None]

    @property
    def groups(self) -> list[int]:
        """Leads of each campaign, by group."""
        return [launch.leads for launch in self.campaigns]


def make_plan(*, seed: int, seconds: float) -> Plan:
    """The plan of a seed: the same for the same arguments, on every machine."""
    rng = Random(seed)  # noqa: S311 - chance that can be replayed is the point
    dice = (Random(rng.random()) for _ in itertools.count())  # noqa: S311 - one each, so that no part disturbs another
    parts = (_faults, _stop_all, _pauses, _opt_outs, _rogue)
    launches = sorted(_launches(next(dice), seconds), key=lambda launch: launch.at)
    faults = [fault for part in parts for fault in part(next(dice), seconds)]
    faults += _ambushes(launches)
    skewed = next(dice)
    return Plan(
        seed=seed,
        seconds=seconds,
        faults=sorted(faults, key=lambda fault: fault.at),
        launches=launches,
        arms=_arms(next(dice)),
        skews={skewed.choice(WORKERS): round(skewed.choice((-1, 1)) * skewed.uniform(*SKEW_SECONDS), 1)},
        stuck_minutes=STUCK_QUEUED_MINUTES[seed % 2],
    )


def focused(plan: Plan, *, kinds: Collection[str]) -> Plan:
    """The plan with these kinds of fault only, and of the failpoints only the naps."""
    naps = dict.fromkeys(DEVICE_WORKERS, f"before_claim=nap@{NAP_CHANCE}")
    return replace(plan, faults=[fault for fault in plan.faults if fault.kind in kinds], arms=naps)


def _faults(rng: Random, seconds: float) -> Iterator[Fault]:
    cards: list[tuple[str, str]] = []
    at = FIRST_FAULT_SECONDS
    while at < seconds - 1:
        if not cards:
            cards = list(DECK)
            rng.shuffle(cards)
        yield from _played(*cards.pop(), at=at, rng=rng)
        at = round(at + rng.uniform(*FAULT_GAP_SECONDS), 3)


def _played(kind: str, target: str, *, at: float, rng: Random) -> Iterator[Fault]:
    """One card as faults: a rolling restart is several."""
    seed = rng.randrange(2**31)
    if kind == "roll":
        for number, worker in enumerate(WORKERS):
            yield Fault(round(at + number * ROLL_GAP_SECONDS, 3), "term", worker, seed=seed)
        return
    match kind, target:
        case "freeze", _:
            lasts = FREEZE_SECONDS
        case "valkey", "pause":
            lasts = (1.0, 3.0)
        case "postgres", "full":
            lasts = (2.0, 4.0)
        case (("gateway" | "fleet"), _):
            lasts = (2.0, 5.0)
        case _:
            lasts = (0.0, 0.0)
    yield Fault(at, kind, target, seconds=round(rng.uniform(*lasts), 3), seed=seed)


def _stop_all(rng: Random, seconds: float) -> Iterator[Fault]:
    """Once, in mid-run, and only where there is the time for it."""
    lasts = round(rng.uniform(*HALT_SECONDS), 3)
    at = round(rng.uniform(0.35, 0.55) * seconds, 3)
    if HALT_AFTER_FREEZE_SECONDS < at < seconds - lasts:
        for worker in DEVICE_WORKERS:
            yield Fault(round(at - HALT_AFTER_FREEZE_SECONDS, 3), "freeze", worker, FREEZE_SECONDS[1])
        yield Fault(at, "fleet", "halt", lasts)


def _ambushes(launches: Iterable[Launch]) -> Iterator[Fault]:
    for launch in launches:
        if launch.slow:
            yield Fault(launch.at, "ambush", "slow sends", AMBUSH_SECONDS)


def _rogue(rng: Random, seconds: float) -> Iterator[Fault]:
    """Once for certain, before STOP ALL: a belt is not tried by accident."""
    yield Fault(round(rng.uniform(0.1, 0.15) * seconds, 3), "rogue", "releaser", round(0.2 * seconds, 3))


def _pauses(rng: Random, seconds: float) -> Iterator[Fault]:
    at = PAUSE_GAP_SECONDS
    while at < seconds - PAUSE_SECONDS[1]:
        yield Fault(at, "fleet", "pause_batch", round(rng.uniform(*PAUSE_SECONDS), 3), seed=rng.randrange(2**31))
        at = round(at + rng.uniform(0.5, 1.5) * PAUSE_GAP_SECONDS, 3)


def _opt_outs(rng: Random, seconds: float) -> Iterator[Fault]:
    at = OPT_OUT_GAP_SECONDS
    while at < seconds - 1:
        yield Fault(at, "fleet", "opt_out", seed=rng.randrange(2**31))
        at = round(at + rng.uniform(0.5, 1.5) * OPT_OUT_GAP_SECONDS, 3)


def _launches(rng: Random, seconds: float) -> Iterator[Launch]:
    at, group = 0.0, 0
    while group == 0 or at < seconds - 2:
        slow = group % SLOW_EVERY == 1
        yield Launch(at, group=group, leads=rng.randint(*(SLOW_LEADS if slow else CAMPAIGN_LEADS)), slow=slow)
        at = round(at + rng.uniform(0.5, 1.5) * CAMPAIGN_GAP_SECONDS, 3)
        group += 1
    at = SINGLE_GAP_SECONDS
    while at < seconds - 1:
        yield Launch(at)
        at = round(at + rng.uniform(0.5, 1.5) * SINGLE_GAP_SECONDS, 3)


def _arms(rng: Random) -> dict[str, str]:
    """Chances are per passage: some are passed with each message, the control worker's with each tick."""
    deadly = ("freeze", "kill")
    devices = {"after_claim": 0.0015, "after_accept": 0.0015, "after_commit": 0.05, "mid_publish": 0.05}
    control = {"after_commit": 0.02, "mid_publish": 0.002, "mid_fan_out": 0.2}
    arms = {
        name: ",".join(f"{point}={rng.choice(deadly)}@{chance}" for point, chance in chances.items())
        for name, chances in zip(ARMED[1:], (devices, control), strict=True)
    }
    nap = f"before_claim=nap@{NAP_CHANCE}"
    return {ARMED[0]: nap, ARMED[1]: f"{nap},{arms[ARMED[1]]}", ARMED[2]: arms[ARMED[2]]}
