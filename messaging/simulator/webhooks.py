"""What phones do next: receipts for what they got, and replies, posted to a webhook, signed, retried a few times.

Everything is bounded: what is due later waits in one heap, which drops (and counts) what does not fit; a post that
fails is tried again after 0.5, 1, 2 and 4 seconds, then given up (and counted). All of it ends with the process.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import itertools
import random
import time
import uuid
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import aiohttp

from messaging.simulator.dialects.base import Delivery, DeviceState, Dialect
from messaging.simulator.phones import Settings

MAX_WAITING = 1_000_000
POSTERS = 16
RETRY_SECONDS = (0.5, 1.0, 2.0, 4.0)
POST_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class _Event:
    """One thing to post: made when it is due, so that its timestamp is true."""

    dialect: Dialect
    device: str
    make: Callable[[str, float], dict[str, Any] | None]
    event_id: str


class Webhooks:
    """The outbox. Used by one thread only: the event loop's."""

    def __init__(self, *, seed: int = 0) -> None:
        self.settings: Settings | None = None
        self.counts: Counter[str] = Counter()
        self._rng = random.Random(seed)  # noqa: S311 - behaviour of pretend phones, repeatable
        self._heap: list[tuple[float, int, _Event, int]] = []
        self._order = itertools.count()
        self._busy = 0
        self._wake = asyncio.Event()
        self._due: asyncio.Queue[tuple[_Event, int]] = asyncio.Queue(maxsize=POSTERS)
        self._tasks: list[asyncio.Task[None]] = []
        self._session: aiohttp.ClientSession | None = None

    def start(self) -> None:
        """Begin posting."""
        self._session = aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=POST_SECONDS), trust_env=False, cookie_jar=aiohttp.DummyCookieJar()
        )
        self._tasks = [asyncio.create_task(self._release_when_due())]
        self._tasks += [asyncio.create_task(self._post_what_is_due()) for _ in range(POSTERS)]

    async def stop(self) -> None:
        """Stop posting; what waits is dropped."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._session is not None:
            await self._session.close()

    def configure(self, settings: Settings | None) -> None:
        """Use these settings from now on; None stops webhooks and drops what waits."""
        self.settings = settings
        if settings is None:
            self._heap.clear()

    def reset(self) -> None:
        """Forget the settings, the counts, and what waits."""
        self.configure(None)
        self.counts.clear()

    def status(self) -> dict[str, Any]:
        """Counts, and how much is still to do. The secret is not shown."""
        return {
            "url": self.settings.url if self.settings else None,
            "waiting": len(self._heap) + self._due.qsize(),
            "posting": self._busy,
            **{name: self.counts[name] for name in ("posted", "given_up", "dropped", "retried")},
        }

    # -- what phones do --------------------------------------------------------------------------------------------

    def delivered(self, delivery: Delivery) -> None:
        """A phone got a message: decide what it will say about that."""
        settings = self.settings
        if settings is None:
            return
        after = self._rng.uniform(*settings.delay_seconds)
        if self._rng.random() < settings.failed:
            self._receipt(delivery, "failed", after)
            return
        if self._rng.random() < settings.delivered:
            self._receipt(delivery, "delivered", after)
        if self._rng.random() < settings.read:
            self._receipt(delivery, "read", 2 * after)
        if settings.texts and self._rng.random() < settings.reply:
            text = self._rng.choice(settings.texts)
            self.reply(
                dialect=delivery.dialect,
                device=delivery.device,
                sender=delivery.sender,
                phone=delivery.phone,
                text=text,
                after_seconds=self._rng.uniform(*settings.reply_delay_seconds),
            )

    def _receipt(self, delivery: Delivery, status: str, after_seconds: float) -> None:
        def make(event_id: str, at: float) -> dict[str, Any] | None:
            return delivery.dialect.receipt(delivery, status=status, event_id=event_id, at=at)

        self._enqueue(delivery.dialect, delivery.device, make, after_seconds)

    def reply(
        self, *, dialect: Dialect, device: str, sender: str, phone: str, text: str, after_seconds: float = 0.0
    ) -> None:
        """A phone writes to a device."""

        def make(event_id: str, at: float) -> dict[str, Any] | None:
            return dialect.inbound(device=device, sender=sender, phone=phone, text=text, event_id=event_id, at=at)

        self._enqueue(dialect, device, make, after_seconds)

    def device_changed(self, *, dialect: Dialect, device: str, state: DeviceState) -> None:
        """A device was linked to a phone, unlinked, or banned."""

        def make(event_id: str, at: float) -> dict[str, Any] | None:
            return dialect.device_news(device=device, state=state, event_id=event_id, at=at)

        if self.settings is not None:
            self._enqueue(dialect, device, make, 0.0)

    def _enqueue(
        self,
        dialect: Dialect,
        device: str,
        make: Callable[[str, float], dict[str, Any] | None],
        after_seconds: float,
    ) -> None:
        event = _Event(dialect, device, make, f"evt-{uuid.uuid4().hex}")
        copies = 2 if self.settings and self._rng.random() < self.settings.repeat else 1
        for _ in range(copies):
            self._push(event, after_seconds, tries=0)

    def _push(self, event: _Event, after_seconds: float, *, tries: int) -> None:
        if len(self._heap) >= MAX_WAITING:
            self.counts["dropped"] += 1
            return
        heapq.heappush(self._heap, (time.monotonic() + after_seconds, next(self._order), event, tries))
        self._wake.set()

    # -- posting ---------------------------------------------------------------------------------------------------

    async def _release_when_due(self) -> None:
        while True:
            self._wake.clear()
            wait = self._heap[0][0] - time.monotonic() if self._heap else None
            if wait is not None and wait <= 0:
                _, _, event, tries = heapq.heappop(self._heap)
                await self._due.put((event, tries))
                continue
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), wait)

    async def _post_what_is_due(self) -> None:
        while True:
            event, tries = await self._due.get()
            self._busy += 1
            try:
                if self.settings is not None:
                    await self._post(event, tries, self.settings)
            finally:
                self._busy -= 1

    async def _post(self, event: _Event, tries: int, settings: Settings) -> None:
        assert self._session is not None  # noqa: S101 - posters run between start and stop
        told = event.make(event.event_id, round(time.time(), 3))
        if told is None:
            return
        posting = event.dialect.posting(told, secret=settings.secret)
        url = settings.url_for(gateway=event.dialect.name, device=event.device) + posting.suffix
        try:
            async with self._session.post(
                url, data=posting.body, headers=posting.headers, allow_redirects=False
            ) as answer:
                taken = 200 <= answer.status < 300
        except (aiohttp.ClientError, TimeoutError, OSError):
            taken = False
        if taken:
            self.counts["posted"] += 1
        elif tries < len(RETRY_SECONDS):
            self.counts["retried"] += 1
            self._push(event, RETRY_SECONDS[tries], tries=tries + 1)
        else:
            self.counts["given_up"] += 1
