"""The whole corridor under test: beat's work done here, and how it went with a batch."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from django.db import connection
from django.utils import timezone

from config.demo.verdict import Verdict, judge
from messaging.dispatch import recover
from messaging.dispatch.release import release_due
from messaging.models import Batch
from messaging.services import counts_of, wrap_up
from messaging.settling import settle_due
from tests.simulator_process import Simulator, wait_until


@contextmanager
def ticking() -> Iterator[None]:
    """Release, recovery and wrap-up as beat does them, only more often."""
    stop = threading.Event()

    def run() -> None:
        try:
            while not stop.wait(0.1):
                release_due()
                recover.expire_leases()
                recover.republish_unclaimed()
                recover.unstick_queued()
                settle_due()
                wrap_up(now=timezone.now())
        finally:
            connection.close()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(30)


def sent(batch: Batch) -> int:
    return counts_of([batch.pk])[batch.pk].sent


def wait_for_the_end(batch: Batch, *, seconds: float = 60) -> None:
    def ended() -> bool:
        batch.refresh_from_db()
        return batch.state == "finished"

    wait_until(ended, what=f"batch to end, {counts_of([batch.pk])}", seconds=seconds)


def verdict_on(batch: Batch, simulator: Simulator) -> Verdict:
    return judge(batch_id=batch.pk, entries=simulator.ledger())
