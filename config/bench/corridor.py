"""A campaign through the whole product: launched, filled, released, claimed, posted to the simulator, recorded.

Beat, the control worker, one device worker and the simulator run as the stack runs them, in processes of their own; the
bench only launches the campaign and looks on. And the same requests for a baseline that does nothing but post them.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from statistics import median
from typing import Any

from django.db.models import Sum
from django.utils import timezone

from campaigns import services as campaigns
from campaigns.models import Campaign, Routing, Run
from config.bench import seeding
from config.bench.cpu import seconds_by_program
from config.bench.results import BenchFailed, Line
from config.bench.stage import Stage
from config.demo.ledger import Judge
from config.demo.verdict import Verdict, judge
from devices.models import Pool
from messaging.models import Message, Stream

PROGRAMS = ("worker-control", "worker-devices", "beat")
STALLED_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Passage:
    """What one campaign came to."""

    per_second: float
    verdict: Verdict
    unfinished: int
    """Messages that were not recorded as sent."""
    cpu_ms: Mapping[str, float]
    """Milliseconds of processor time per message, by program."""

    @property
    def wrong(self) -> int:
        """Messages lost, doubled, unaccounted for or not sent."""
        verdict = self.verdict
        return len(verdict.lost) + len(verdict.duplicated) + len(verdict.unaccounted) + self.unfinished


def make_campaign(*, pool: Pool, name: str) -> Campaign:
    """To every lead, turn by turn over the pool, without a pause of its own."""
    return Campaign.objects.create(
        owner=pool.owner,
        name=name,
        text=seeding.TEXT,
        routing=Routing.POOLED,
        pool=pool,
        delay_min_seconds=0,
        delay_max_seconds=0,
    )


def launch(*, pool: Pool, name: str) -> Run:
    """Launch a campaign; the product's own tick triggers and fills it."""
    return campaigns.launch(campaign=make_campaign(pool=pool, name=name), now=timezone.now()).run


def send_all(stage: Stage, *, pool: Pool, messages: int, warm: int) -> Passage:
    """One campaign over the fleet until nothing waits any more; leads and devices are there already.

    The rate is that of messages recorded as sent, from number ``warm`` to the last, by the database's clock.
    """
    seeding.clear_messages()
    seeding.settle()
    stage.empty_broker()
    with stage.product(*PROGRAMS) as playing:
        names = {**playing.names, **stage.servers()}
        before = seconds_by_program(names=names)
        run = launch(pool=pool, name="Bench")
        wait_for_end(stage, run=run, messages=messages)
        after = seconds_by_program(names=names)
        run.refresh_from_db()
        if run.batch_id is None:
            raise BenchFailed(f"the run has no batch: {run.reason}")
        verdict = judge(batch_id=run.batch_id, entries=playing.witness.entries())
    sent = list(
        Message.objects.filter(batch_id=run.batch_id, sent_at__isnull=False)
        .order_by("sent_at")
        .values_list("sent_at", flat=True)
    )
    return Passage(
        per_second=per_second(_seconds(sent), warm=warm),
        verdict=verdict,
        unfinished=messages - len(sent),
        cpu_ms={name: 1000 * (seconds - before.get(name, 0.0)) / messages for name, seconds in after.items()},
    )


def cpu_lines(passages: Sequence[Passage], *, prefix: str) -> list[Line]:
    """Where the time goes: a line per program that takes any, the hungriest first."""
    names = {name for passage in passages for name in passage.cpu_ms}
    rounds = {name: [passage.cpu_ms.get(name, 0.0) for passage in passages] for name in names}
    return [
        Line(
            name=f"{prefix}_cpu_{name}",
            what=f"processor time of {name} per message, from launch to end",
            unit="ms/message",
            ours=rounds[name],
        )
        for name in sorted(names, key=lambda name: -median(rounds[name]))
        if median(rounds[name]) >= 0.005
    ]


def wait_for_end(stage: Stage, *, run: Run, messages: int) -> None:
    """Until every message is settled. Raises BenchFailed when nothing moves any more."""
    moved_at, last = time.monotonic(), -1

    def settled() -> bool:
        nonlocal moved_at, last
        sums = Stream.objects.filter(batch__run=run).aggregate(total=Sum("total"), waiting=Sum("waiting"))
        done = (sums["total"] or 0) - (sums["waiting"] or 0)
        if done != last:
            moved_at, last = time.monotonic(), done
        if time.monotonic() - moved_at > STALLED_SECONDS:
            raise BenchFailed(f"nothing has moved for {STALLED_SECONDS:.0f} s at {last:,} of {messages:,} messages")
        return (sums["total"] or 0) >= messages and not sums["waiting"]

    paced(settled, stage=stage)


def paced(condition: Callable[[], bool], *, stage: Stage, pause_seconds: float = 0.25) -> None:
    """Wait for a condition that costs a query, asking a few times a second only."""
    while not condition():
        stage.check()
        time.sleep(pause_seconds)


def per_second(moments: Sequence[float], *, warm: int) -> float:
    """Events per second from number ``warm`` to the last; ``moments`` are seconds in order. Raises BenchFailed."""
    if len(moments) - warm < 2 or moments[-1] <= moments[warm]:
        raise BenchFailed(f"only {len(moments)} messages arrived, too few to say anything")
    return (len(moments) - 1 - warm) / (moments[-1] - moments[warm])


def arrivals(witness: Judge) -> list[float]:
    """When each message was delivered, by the simulator's clock, in order."""
    return sorted(entry["at"] for entry in witness.entries() if entry["delivered"])


def requests_like_ours(*, base_url: str, devices: int, messages: int) -> Iterable[tuple[str, Mapping[str, Any]]]:
    """(url, body) pairs as the product posts them for such a campaign, device by device in turn."""
    for number in range(messages):
        device = number % devices
        text = seeding.TEXT.replace("{{ first_name or 'there' }}", "Lead")
        yield (
            f"{base_url}/sim/v1/devices/{seeding.token(device)}/messages",
            {
                "id": f"{number + 1}-1-{secrets.token_hex(6)}",
                "to": f"+6012{number:07d}",
                "type": "text",
                "text": text,
                "message": number + 1,
                "attempt": 1,
                "sender": str(device + 1),
            },
        )


def _seconds(moments: Iterable[datetime | None]) -> list[float]:
    return [moment.timestamp() for moment in moments if moment is not None]
