"""The load: a fleet, its leads, and a thread that launches and pauses through the same services that people use."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Final

from django.contrib.auth.models import User
from django.db import connection
from django.utils import timezone

from campaigns import services as campaigns
from campaigns.models import Campaign, Routing
from config.chaos.away import Away, ask
from config.chaos.plan import Plan
from devices import services as devices_services
from devices.models import Device, DeviceState, Pool
from leads.models import Lead
from messaging import services as messaging
from messaging.models import Batch, BatchState

DEVICES: Final = 200
LANES: Final = 5
AGAIN_SECONDS: Final = 0.3
TEXT: Final = "Hello {{ first_name or 'there' }}, number {{ phone }} is on our list."
CAMPAIGN: Final = "Chaos campaign"
_EMPTY: Final = (
    "TRUNCATE devices_device, devices_pool, leads_lead, messaging_batch, campaigns_campaign RESTART IDENTITY CASCADE"
)


def make_device(*, pool: Pool, number: int) -> Device:
    """Device ``number``: of ten, two take parallel sends, three have a rhythm, five send one after the other."""
    kind = number % 10
    gap = round(0.15 + 0.05 * (number % 7), 2) if kind in {2, 3, 4} else 0.0
    return Device(
        owner=pool.owner,
        pool=pool,
        name=f"Chaos {number:04d}",
        gateway="simulator",
        credentials={"token": f"chaos-{number}"},
        lanes=LANES if kind in {0, 1} else 1,
        delay_min_seconds=gap,
        delay_max_seconds=2 * gap,
        cap_per_day=None,
        warm_up=False,
    )


@dataclass(slots=True)
class Fleet:
    """Who takes part. ``expected`` says how many messages each campaign, by name, has to make."""

    pool: Pool
    expected: dict[str, int] = field(default_factory=dict)
    devices: int = 0

    @property
    def owner(self) -> User:
        """Whom everything belongs to."""
        return self.pool.owner

    def add(self, number: int) -> None:
        """More devices, ready to send."""
        made = [make_device(pool=self.pool, number=self.devices + n + 1) for n in range(number)]
        Device.objects.bulk_create(made, ignore_conflicts=True)
        self.devices += number


def make_fleet(plan: Plan) -> Fleet:
    """Empty the database (it is ours) and fill it for this plan."""
    with connection.cursor() as cursor:
        cursor.execute(_EMPTY)
    owner = User.objects.get_or_create(username="chaos")[0]
    fleet = Fleet(pool=Pool.objects.create(owner=owner, name="Chaos fleet"))
    fleet.add(DEVICES)
    now, number = timezone.now(), 0
    people = []
    for group, leads in enumerate(plan.groups):
        fleet.expected[f"{CAMPAIGN} {group}"] = leads
        for _ in range(leads):
            people.append(
                Lead(
                    owner=owner,
                    phone=f"+6012{number:07d}",
                    name=f"Lead {number}",
                    triggers=[_tag(group)],
                    consent_at=now,
                    consent_source="chaos",
                )
            )
            number += 1
    Lead.objects.bulk_create(people, batch_size=2000)
    return fleet


def _tag(group: int) -> str:
    return f"group-{group}"


class Load(threading.Thread):
    """Carries out orders one after the other, each as often as the database needs to take it."""

    def __init__(self, fleet: Fleet) -> None:
        super().__init__(name="load", daemon=True)
        self._fleet = fleet
        self._orders: queue.SimpleQueue[Callable[[], object] | None] = queue.SimpleQueue()
        self.problems: list[str] = []
        """What went wrong other than by a database that was away."""

    def campaign(self, group: int) -> None:
        """Launch the campaign of a group."""
        self._orders.put(lambda: self._campaign(group))

    def single(self, number: int) -> None:
        """Send one message to somebody, ahead of bulk."""
        self._orders.put(lambda: self._single(number))

    def pause_devices(self, *, seed: int) -> None:
        """A tenth of the fleet is taken out of service."""
        self._orders.put(lambda: self._pause_devices(Random(seed)))  # noqa: S311

    def add_devices(self) -> None:
        """Ten new devices."""
        self._orders.put(lambda: self._fleet.add(10))

    def pause_batch(self, *, seed: int) -> None:
        """One running batch stops."""
        self._orders.put(lambda: self._pause_batch(Random(seed)))  # noqa: S311

    def resume(self) -> None:
        """Whatever is paused goes on."""
        self._orders.put(_resume)

    def finish(self) -> None:
        """Everything that is paused goes on, and the thread ends."""
        self.resume()
        self._orders.put(None)

    def run(self) -> None:
        """Take orders until :meth:`finish`."""
        try:
            while (order := self._orders.get()) is not None:
                self._carry_out(order)
        finally:
            connection.close()

    def _carry_out(self, order: Callable[[], object]) -> None:
        while True:
            try:
                ask(order)
            except Away:
                time.sleep(AGAIN_SECONDS)
            except Exception as problem:  # noqa: BLE001 - anything else is a defect, and the run says so
                self.problems.append(f"{type(problem).__name__}: {problem}")
                return
            else:
                return

    def _campaign(self, group: int) -> None:
        campaign, _ = Campaign.objects.get_or_create(
            owner=self._fleet.owner,
            name=f"{CAMPAIGN} {group}",
            defaults={
                "text": TEXT,
                "routing": Routing.POOLED,
                "pool": self._fleet.pool,
                "triggers": [_tag(group)],
                "delay_min_seconds": 0,
                "delay_max_seconds": 0,
            },
        )
        campaigns.launch(campaign=campaign, now=timezone.now())
        campaigns.launch(campaign=campaign, now=timezone.now())  # the double click that must change nothing

    def _single(self, number: int) -> None:
        lead = Lead.objects.order_by("pk")[number]
        device = Device.objects.filter(state=DeviceState.ACTIVE).order_by("pk")[number % (DEVICES // 2)]
        messaging.send_single(owner=self._fleet.owner, text=TEXT, now=timezone.now(), lead=lead, device=device)

    def _pause_devices(self, rng: Random) -> None:
        chosen = rng.sample(range(1, DEVICES + 1), DEVICES // 10)
        names = [f"Chaos {number:04d}" for number in chosen]
        devices_services.pause(devices=Device.objects.filter(name__in=names))

    def _pause_batch(self, rng: Random) -> None:
        running = list(Batch.objects.filter(state=BatchState.RUNNING).order_by("pk").values_list("pk", flat=True))
        if running:
            messaging.pause_batch(batch_id=rng.choice(running))


def _resume() -> None:
    devices_services.resume(devices=Device.objects.filter(state=DeviceState.PAUSED))
    paused: Sequence[int] = list(Batch.objects.filter(state=BatchState.PAUSED).values_list("pk", flat=True))
    for batch_id in paused:
        messaging.resume_batch(batch_id=batch_id)
