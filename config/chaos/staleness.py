"""Workers that are late: with the look before their claim, and with the record after their call.

A thread sometimes sleeps between its look and its claim, and its twin is faster. And as one that slept for long would,
a task sometimes goes on with what it was told of an earlier release. Only the claim's fence stops either; then the task
is dropped, and its twin or the recovery does the work.

As one would whose connection broke after the commit, a worker sometimes writes down the same outcome again, when the
message may be somewhere else by then. Only the record's fence stops that.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from random import Random
from typing import Any, Final

import psycopg2

from messaging.dispatch.decide import Decision
from messaging.dispatch.send import Job, Sender
from messaging.states import State

CHANCE: Final = 0.6
"""Of an outdated look, where there was an earlier one."""
NAP_CHANCE: Final = 0.05
NAP_SECONDS: Final = (0.02, 0.3)
AGAIN_CHANCE: Final = 0.05
"""Of a second record of what was accepted; other outcomes, which lead to another send, are always told again."""
AGAIN_SECONDS: Final = (0.3, 2.0)
TIMES: Final = 3

Peek = Callable[[Sender, int, int], Job | None]
Record = Callable[[Sender, Job, Decision, float], None]


def outdated(peek: Peek, *, rng: Random) -> Peek:
    """``peek``, but for a message that it has seen in an earlier release sometimes that one's answer."""
    seen: dict[int, Job] = {}

    def peek_long_ago(sender: Sender, message_id: int, release_no: int) -> Job | None:
        job = peek(sender, message_id, release_no)
        if job is None:
            return None
        if rng.random() < NAP_CHANCE:
            time.sleep(rng.uniform(*NAP_SECONDS))
        earlier = seen.setdefault(message_id, job)
        return earlier if earlier.release_no != job.release_no and rng.random() < CHANCE else job

    return peek_long_ago


def repeated(record: Record, *, rng: Random) -> Record:
    """``record``, and then sometimes the same again, later, from other threads."""

    def again(sender: Sender, job: Job, decision: Decision, gap: float) -> None:
        with suppress(psycopg2.Error):  # away again: one repeat less
            record(sender, job, decision, gap)

    def record_and_again(sender: Sender, job: Job, decision: Decision, gap: float) -> None:
        record(sender, job, decision, gap)
        if decision.state is not State.SENT or rng.random() < AGAIN_CHANCE:
            for _ in range(TIMES):
                timer = threading.Timer(rng.uniform(*AGAIN_SECONDS), again, (sender, job, decision, gap))
                timer.daemon = True
                timer.start()

    return record_and_again


def install(*, rng: Random) -> None:
    """Let the senders of this process be like that."""
    sender: Any = Sender
    sender._peek = outdated(sender._peek, rng=rng)  # noqa: SLF001 - the seam between the look and the claim
    sender._record = repeated(sender._record, rng=rng)  # noqa: SLF001 - the seam between the call and the record
