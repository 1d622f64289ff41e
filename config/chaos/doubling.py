"""Tasks that come again when everything is over: copies from the rows, shuffled and late."""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from random import Random
from typing import Final

from django.db import connection

from config.chaos.away import Away, ask
from messaging.dispatch.publish import Released, publish
from messaging.models import Attempt

LOOK_SECONDS: Final = 0.1
LATEST_SECONDS: Final = 3.0


class Doubling(threading.Thread):
    """Publishes a copy of each release that was claimed: late, and in any order.

    Only of those that were claimed: a copy of one whose own task was lost would hide that.
    """

    def __init__(self, *, seed: int) -> None:
        super().__init__(name="doubling", daemon=True)
        self._rng = Random(seed)  # noqa: S311
        self._ending = threading.Event()
        self._last_attempt = 0
        self._late: list[tuple[float, Released]] = []
        self.copies = 0

    def end(self) -> None:
        """No more copies."""
        self._ending.set()

    def run(self) -> None:
        """Copy until :meth:`end`. A database or a broker that is away only makes it wait."""
        try:
            while not self._ending.wait(LOOK_SECONDS):
                with suppress(Away):
                    ask(self._look)
                self._publish()
        finally:
            connection.close()

    def _look(self) -> None:
        now = time.monotonic()
        claimed = Attempt.objects.filter(pk__gt=self._last_attempt).order_by("pk")
        for pk, message, device, number in claimed.values_list("pk", "message_id", "device_id", "release_no")[:2000]:
            self._last_attempt = pk
            self._late.append((now + self._rng.uniform(0, LATEST_SECONDS), Released(message, device, number)))

    def _publish(self) -> None:
        now = time.monotonic()
        due = [release for at, release in self._late if at <= now]
        if due:
            self._late = [item for item in self._late if item[0] > now]
            self._rng.shuffle(due)
            self.copies += publish(due)
