"""Weeks in seconds: the real tick, the real corridor and the real simulator, under one clock that jumps.

Python's clock is moved by time-machine and PostgreSQL's by ``flotilla.clock_offset``, on every connection.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from itertools import count
from random import Random
from typing import Any

import time_machine
from django.contrib.auth.models import User
from django.db import connection
from django.db.models import Min
from django.utils import timezone

from devices.clients import ClientRegistry
from devices.gateways.news import Reply
from devices.models import Device
from leads.models import Lead
from messaging import inbound
from messaging.dispatch.pool import Pool, Session
from messaging.dispatch.release import release_round
from messaging.dispatch.send import Sender
from messaging.models import Attempt
from sequences import services
from sequences.entry import Entered, enrol
from sequences.models import Enrolment, EntrySource, Sequence, Step
from tests.simulator_process import Simulator

MONDAY = datetime(2027, 3, 1, 9, 0, tzinfo=UTC)
_numbers = count(1)


class JumpingPool(Pool):
    """A pool whose connections live at Python's time, wherever that is."""

    offset = timedelta(0)

    @contextmanager
    def _borrowed(self) -> Iterator[Session]:
        with super()._borrowed() as session:
            session.control(f"SET flotilla.clock_offset = '{self.offset.total_seconds()} seconds'")
            yield session


class World:
    """What the tests turn."""

    def __init__(self, simulator: Simulator, traveller: Any, pool: JumpingPool) -> None:
        self.simulator = simulator
        self._traveller = traveller
        self._pool = pool
        self._clients = ClientRegistry()
        self._sender = Sender(pool=pool, clients=self._clients, rng=Random(1))
        self._began = datetime.now(UTC)
        with connection.cursor() as cursor:
            cursor.execute("SELECT now()")
            self._database_began = cursor.fetchone()[0]
        self._set_clocks()

    @classmethod
    @contextmanager
    def begun(cls, simulator: Simulator) -> Iterator[World]:
        pool = JumpingPool(size=4)
        with time_machine.travel(MONDAY, tick=False) as traveller:
            world = cls(simulator, traveller, pool)
            try:
                yield world
            finally:
                world._clients.close()
                pool.close()
                with connection.cursor() as cursor:
                    cursor.execute("RESET flotilla.clock_offset")

    @property
    def now(self) -> datetime:
        return timezone.now()

    def work(self) -> None:
        """Tick, release and send until nothing more happens at this moment."""
        for _ in range(60):
            walked = services.tick(now=self.now)
            _, released = release_round(pool=self._pool)
            for item in released:
                self._sender.carry(message_id=item.message_id, release_no=item.release_no)
            if not released and not walked.looked:
                return
        raise AssertionError("it never comes to rest")

    def jump(self, **span: float) -> None:
        """Let so much time pass with nobody at work, as if everything had been switched off."""
        self._traveller.shift(timedelta(**span))
        self._set_clocks()

    def live(self, **span: float) -> None:
        """Let so much time pass, working at each moment at which there is anything to do."""
        ends = self.now + timedelta(**span)
        self.work()
        for _ in range(5000):
            following = self._next_moment()
            if following is None or following > ends:
                break
            self._traveller.move_to(max(following, self.now) + timedelta(milliseconds=1), tick=False)
            self._set_clocks()
            self.work()
        else:
            raise AssertionError("too much happens")
        self._traveller.move_to(max(ends, self.now), tick=False)
        self._set_clocks()
        self.work()

    def _next_moment(self) -> datetime | None:
        look = Enrolment.objects.filter(sequence__state="active").aggregate(at=Min("look_at"))["at"]
        wake = Device.objects.filter(state="active").aggregate(at=Min("wake_at"))["at"]
        return min((at for at in (look, wake) if at is not None), default=None)

    def _set_clocks(self) -> None:
        real = timedelta(0)
        with connection.cursor() as cursor:
            cursor.execute("SELECT now()")
            real = cursor.fetchone()[0] - self._database_began
            offset = self.now - (self._database_began + real)
            cursor.execute(f"SET flotilla.clock_offset = '{offset.total_seconds()} seconds'")
        self._pool.offset = offset

    # -- what happens in it ---------------------------------------------------------------------------------------

    def sequence(self, owner: User, *steps: dict[str, Any], active: bool = True, **fields: Any) -> Sequence:
        """A sequence whose steps say "step 1" … unless told otherwise, an hour after one another."""
        made = Sequence.objects.create(
            owner=owner,
            **{"name": f"sequence {next(_numbers)}", "delay_min_seconds": 0, "delay_max_seconds": 0, **fields},
        )
        for position, step in enumerate(steps, start=1):
            Step.objects.create(
                sequence=made, **{"position": position, "text": f"step {position}", "delay_minutes": 60, **step}
            )
        if active:
            services.activate(sequence=made, by=owner, now=self.now)
        return made

    def enrol(self, sequence: Sequence, *leads: Lead) -> Entered:
        found = Lead.objects.filter(pk__in=[lead.pk for lead in leads])
        return enrol(sequence=sequence, leads=found, source=EntrySource.HAND, now=self.now)

    def reply(self, lead: Lead, text: str = "Tell me more") -> None:
        """The lead writes to its device."""
        lead.refresh_from_db()
        reply = Reply(
            event_id=f"reply-{next(_numbers)}", device_id=lead.device_id or 0, phone=lead.phone, text=text, at=self.now,
            external_id="",
        )  # fmt: skip
        inbound.store_replies(gateway="simulator", replies=[reply], now=self.now)

    def heard_by(self, lead: Lead) -> list[tuple[str, datetime]]:
        """What reached the lead's phone, and when."""
        rows = Attempt.objects.filter(message__lead=lead, outcome="accepted").order_by("started_at", "pk")
        return list(rows.values_list("text", "started_at"))

    def texts(self, lead: Lead) -> list[str]:
        return [text for text, _ in self.heard_by(lead)]
