"""Named places in the corridor where a test or a chaos run may let the process die, freeze or dawdle. Off by default.

Armed by the environment of one process: ``FLOTILLA_FAILPOINTS="seed=7,after_claim=kill@0.002,mid_publish=freeze@0.1"``.
Each entry is ``name=action@probability``; ``seed`` (optional) makes the draws of this process repeatable.

============ ==========================================================================================
name         where
============ ==========================================================================================
before_claim the message was looked up and rendered, and is not claimed yet
after_claim  the claim is committed, no byte has left
after_accept the gateway has answered, nothing is recorded
after_commit the release is committed, nothing is published
mid_publish  one task of several is written, the rest is not
mid_fan_out  a chunk's messages are inserted, its transaction is open
============ ==========================================================================================

``kill`` is SIGKILL to this very process: no clean-up runs, no buffer is flushed. ``freeze`` is SIGSTOP: whoever armed
it wakes the process again. Each of these writes one line to standard error first. ``nap`` lets this one thread sleep
for 0.05 to 1 second, silently, so that others get the time to come in between. A process whose ``FLOTILLA_ENV`` is
``production`` refuses to start with failpoints armed.
"""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

VARIABLE: Final = "FLOTILLA_FAILPOINTS"
NAMES: Final = frozenset({"before_claim", "after_claim", "after_accept", "after_commit", "mid_publish", "mid_fan_out"})
ACTIONS: Final[Mapping[str, int | None]] = {"kill": signal.SIGKILL, "freeze": signal.SIGSTOP, "nap": None}
"""The signal that each action sends, if any."""
NAP_SECONDS: Final = (0.05, 1.0)


class FailpointsRefused(Exception):  # noqa: N818 - reads as a fact
    """Failpoints that make no sense, or that are armed where real messages go out."""


@dataclass(frozen=True, slots=True)
class Failpoint:
    """What happens at one place, and how often (0 to 1)."""

    name: str
    action: str
    probability: float

    def line(self) -> str:
        """What standard error is told just before."""
        return f"failpoint {self.name} {self.action}\n"


def parse(spec: str) -> tuple[dict[str, Failpoint], str | None]:
    """Failpoints by name, and the seed if one is given. Raises FailpointsRefused, naming the entry."""
    found: dict[str, Failpoint] = {}
    seed = None
    for entry in filter(None, (part.strip() for part in spec.split(","))):
        name, _, value = entry.partition("=")
        if name == "seed" and value:
            seed = value
            continue
        action, _, chance = value.partition("@")
        try:
            probability = float(chance)
        except ValueError:
            probability = -1.0
        if name not in NAMES or action not in ACTIONS or not 0 <= probability <= 1:
            raise FailpointsRefused(
                f"{VARIABLE}: {entry!r} is not name=action@probability with a name of {', '.join(sorted(NAMES))}, an "
                f"action of {', '.join(ACTIONS)} and a probability from 0 to 1."
            )
        found[name] = Failpoint(name, action, probability)
    return found, seed


def armed_by(environment: Mapping[str, str]) -> tuple[dict[str, Failpoint], str | None]:
    """What this environment arms: nothing unless it says so. Raises FailpointsRefused in production."""
    spec = environment.get(VARIABLE, "")
    if spec and environment.get("FLOTILLA_ENV") == "production":
        raise FailpointsRefused(f"{VARIABLE} is set and FLOTILLA_ENV is production: unset one of them.")
    return parse(spec)


_armed, _seed = armed_by(os.environ)
_rng = random.Random(_seed)  # noqa: S311 - chance, not a secret
_one_at_a_time = threading.Lock()


def hit(name: str) -> None:
    """Pass the place ``name``. Costs one look-up in a dictionary that is empty unless somebody armed it."""
    failpoint = _armed.get(name)
    if failpoint is not None:
        _strike(failpoint)


def _strike(failpoint: Failpoint) -> None:
    with _one_at_a_time:  # the order of draws is the order in which threads come by
        struck = _rng.random() < failpoint.probability
        nap_seconds = _rng.uniform(*NAP_SECONDS)
    if not struck:
        return
    number = ACTIONS[failpoint.action]
    if number is None:
        time.sleep(nap_seconds)
        return
    os.write(2, failpoint.line().encode())
    # To this thread, which cannot take another step then. Sent to the process, any thread may take the signal, and
    # this one goes on for a while before it stops with the others.
    signal.pthread_kill(threading.get_ident(), number)
