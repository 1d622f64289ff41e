"""The load: a fleet, its leads, and a thread that launches and pauses through the same services that people use."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from random import Random
from typing import Any, Final

from django.contrib.auth.models import Group, User
from django.db import IntegrityError, connection, transaction
from django.db.models import Count, ProtectedError, Sum
from django.utils import timezone

from campaigns import services as campaigns
from campaigns.guarding import BY_ITSELF
from campaigns.models import Campaign, Routing, Run
from config.api.tokens import make_token
from config.chaos.away import Away, ask
from config.chaos.evidence import OptOut, Stop
from config.chaos.gateway import FORGETFUL
from config.chaos.plan import LEASE_SECONDS, PREFIX, Plan
from config.chaos.refusals import opt_out_under_claims
from devices import services as devices_services
from devices.access import Role
from devices.models import Device, DeviceState, Pool
from leads.models import Lead
from messaging import halting
from messaging import services as messaging
from messaging.models import Attempt, Batch, BatchState, Message, Stream
from messaging.states import State

DEVICES: Final = 200
SLOW_DEVICES: Final = 20
LANES: Final = 5
SLOW_GAP_SECONDS: Final = (2 * LEASE_SECONDS + 1.0, 2 * LEASE_SECONDS + 1.5)
"""Longer than a lease and its recovery: a lost record frees the lane, and the reservation alone holds the gap."""
SLOW_WEATHER: Final[Mapping[str, Any]] = {"fault": "latency", "phase": "after", "min_seconds": 1.5, "max_seconds": 3.0}
"""How long the slow devices' gateway takes, so that a good part of them can be hit in the middle."""
HALT_GRACE_SECONDS: Final = 2.0
"""What STOP ALL promises."""
AGAIN_SECONDS: Final = 0.3
TEXT: Final = "Hello {{ first_name or 'there' }}, number {{ phone }} is on our list."
CAMPAIGN: Final = "Chaos campaign"
_EMPTY: Final = (
    "TRUNCATE devices_device, devices_pool, leads_lead, messaging_batch, messaging_halt, campaigns_campaign, "
    "config_idempotencykey RESTART IDENTITY CASCADE"
)


def make_device(*, pool: Pool, number: int) -> Device:
    """Device ``number``: of ten, two take parallel sends, three have a rhythm, five send one after the other.

    Each second ten of them is at the gateway that drops no repeats.
    """
    kind = number % 10
    gap = round(0.15 + 0.05 * (number % 7), 2) if kind in {2, 3, 4} else 0.0
    lanes = LANES if kind in {0, 1} else 1
    return _device(
        pool=pool,
        name=f"Chaos {number:04d}",
        token=f"chaos-{number}",
        forgets=number // 10 % 2 == 1,
        lanes=lanes,
        gap=(gap, 2 * gap),
    )


def make_slow_device(*, pool: Pool, number: int) -> Device:
    """Slow device ``number``: one lane, and a gap that outlasts a lease."""
    return _device(
        pool=pool,
        name=f"Slow {number:04d}",
        token=slow_token(number),
        forgets=number % 2 == 1,
        lanes=1,
        gap=SLOW_GAP_SECONDS,
    )


def slow_token(number: int) -> str:
    """How the ledger knows a slow device."""
    return f"slow-{number}"


def _device(*, pool: Pool, name: str, token: str, forgets: bool, lanes: int, gap: tuple[float, float]) -> Device:
    return Device(
        owner=pool.owner,
        pool=pool,
        name=name,
        gateway=FORGETFUL if forgets else "simulator",
        credentials={"token": token},
        lanes=lanes,
        delay_min_seconds=gap[0],
        delay_max_seconds=gap[1],
        cap_per_day=None,
        warm_up=False,
    )


@dataclass(slots=True)
class Fleet:
    """Who takes part.

    ``expected`` says how many messages each campaign, by name, has to make; ``slow_groups`` names
    those that go over the slow devices. ``token`` opens the API.
    """

    pool: Pool
    slow_pool: Pool
    slow_groups: frozenset[int]
    token: str = field(repr=False)
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

    def leave_out(self, group: int) -> None:
        """This campaign is not launched after all."""
        self.expected.pop(f"{CAMPAIGN} {group}", None)

    def backlog(self) -> int:
        """How many messages wait."""
        return Stream.objects.filter(is_open=True).aggregate(waiting=Sum("waiting"))["waiting"] or 0

    def slow_sends(self) -> int:
        """How many sends of slow devices are just at their gateway, and will be for a while."""
        least = SLOW_WEATHER["min_seconds"]
        now = timezone.now()
        begun = Attempt.objects.filter(started_at__range=(now - timedelta(seconds=least - 0.2), now), outcome="")
        return begun.filter(device__pool=self.slow_pool, started_at__lt=now - timedelta(seconds=0.2)).count()

    def choose(self, number: int) -> tuple[int, int]:
        """A lead and a connected device for single message ``number``."""
        lead = Lead.objects.order_by("pk").values_list("pk", flat=True)[number]
        able = Device.objects.filter(pool=self.pool, state=DeviceState.ACTIVE).order_by("pk")
        return lead, able.values_list("pk", flat=True)[number % (DEVICES // 2)]


def make_fleet(plan: Plan) -> Fleet:
    """Empty the database (it is ours) and fill it for this plan."""
    with connection.cursor() as cursor:
        cursor.execute(_EMPTY)
    owner = User.objects.get_or_create(username="chaos")[0]
    owner.groups.set([Group.objects.get_or_create(name=Role.STAFF)[0]])
    fleet = Fleet(
        pool=Pool.objects.create(owner=owner, name="Chaos fleet"),
        slow_pool=Pool.objects.create(owner=owner, name="Chaos slow fleet"),
        slow_groups=frozenset(launch.group for launch in plan.campaigns if launch.slow and launch.group is not None),
        token=make_token(user=owner)[0],
    )
    fleet.add(DEVICES)
    Device.objects.bulk_create(
        [make_slow_device(pool=fleet.slow_pool, number=number) for number in range(SLOW_DEVICES)]
    )
    now, number = timezone.now(), 0
    people = []
    for group, leads in enumerate(plan.groups):
        fleet.expected[f"{CAMPAIGN} {group}"] = leads
        for _ in range(leads):
            people.append(
                Lead(
                    owner=owner,
                    phone=f"{PREFIX}{number % 10}{number:06d}",
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
        self.stops: list[Stop] = []
        self.opt_outs: list[OptOut] = []

    def campaign(self, group: int) -> None:
        """Launch the campaign of a group."""
        self._orders.put(lambda: self._campaign(group))

    def pause_devices(self, *, seed: int) -> None:
        """A tenth of the fleet is taken out of service."""
        self._orders.put(lambda: self._pause_devices(Random(seed)))  # noqa: S311

    def add_devices(self) -> None:
        """Ten new devices."""
        self._orders.put(lambda: self._fleet.add(10))

    def pause_batch(self, *, seed: int) -> None:
        """One running batch stops."""
        self._orders.put(lambda: self._pause_batch(Random(seed)))  # noqa: S311

    def remove_devices(self) -> None:
        """New devices that have not been used yet disappear."""
        self._orders.put(self._remove_devices)

    def cancel_batch(self, *, seed: int) -> None:
        """One running campaign is cancelled."""
        self._orders.put(lambda: self._cancel_batch(Random(seed)))  # noqa: S311

    def opt_out(self) -> None:
        """A few leads refuse while they are being written to."""
        self._orders.put(self._opt_out)

    def halt(self) -> None:
        """STOP ALL."""
        self._orders.put(self._halt)

    def end_halt(self) -> None:
        """Go on after STOP ALL."""
        self._orders.put(self._end_halt)

    def resume_devices(self) -> None:
        """Devices that are paused go on."""
        self._orders.put(self._resume_devices)

    def resume_batches(self) -> None:
        """Batches that are paused go on."""
        self._orders.put(self._resume_batches)

    def finish(self) -> None:
        """Everything that is paused or halted goes on, and the thread ends."""
        self.resume_devices()
        self.resume_batches()
        self.end_halt()
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
                "pool": self._fleet.slow_pool if group in self._fleet.slow_groups else self._fleet.pool,
                "triggers": [_tag(group)],
                "delay_min_seconds": 0,
                "delay_max_seconds": 0,
            },
        )
        campaigns.launch(campaign=campaign, now=timezone.now())
        campaigns.launch(campaign=campaign, now=timezone.now())  # the double click that must change nothing

    def _pause_devices(self, rng: Random) -> None:
        chosen = rng.sample(range(1, DEVICES + 1), DEVICES // 10)
        names = [f"Chaos {number:04d}" for number in chosen]
        paused = Device.objects.filter(name__in=names)
        devices_services.pause(devices=paused)
        known = frozenset(paused.filter(state=DeviceState.PAUSED).values_list("pk", flat=True))
        self.stops.append(Stop("its device was paused", time.time(), devices=known))

    def _pause_batch(self, rng: Random) -> None:
        # One of the two that are most under way: a pause of one that waits would try nothing.
        flying = Message.objects.filter(state=State.QUEUED, batch__state=BatchState.RUNNING).order_by()
        busiest = flying.values("batch").annotate(number=Count("pk")).order_by("-number", "batch")[:2]
        running = [row["batch"] for row in busiest]
        if running:
            batch = rng.choice(running)
            messaging.pause_batch(batch_id=batch)
            self.stops.append(Stop(f"batch {batch} was paused", time.time(), batch=batch))

    def _resume_devices(self) -> None:
        self._end_stops(lambda stop: bool(stop.devices))
        devices_services.resume(devices=Device.objects.filter(state=DeviceState.PAUSED))

    def _resume_batches(self) -> None:
        resume_what_paused_itself()
        paused = list(Batch.objects.filter(state=BatchState.PAUSED).values_list("pk", flat=True))
        self._end_stops(lambda stop: stop.batch in paused)  # not those of cancelled ones, which have no end
        for batch_id in paused:
            messaging.resume_batch(batch_id=batch_id)

    def _end_stops(self, over: Callable[[Stop], bool]) -> None:
        """From just now on these are no longer in force."""
        now = time.time()
        for stop in self.stops:
            if stop.end is None and over(stop):
                stop.end = now

    def _remove_devices(self) -> None:
        unused = Device.objects.filter(pool=self._fleet.pool, pk__gt=DEVICES + SLOW_DEVICES, streams=None)
        for device in unused.order_by("-pk")[:3]:
            with suppress(ProtectedError, IntegrityError), transaction.atomic():  # somebody may just begin to use it
                device.delete()

    def _cancel_batch(self, rng: Random) -> None:
        live = Run.objects.filter(batch__state=BatchState.RUNNING, batch__filled_at__isnull=False)
        runs = list(live.order_by("pk").select_related("batch"))
        if runs:
            run = rng.choice(runs)
            campaigns.cancel(run, now=timezone.now())
            self.stops.append(Stop(f"run {run.pk} was cancelled", time.time(), batch=run.batch_id))

    def _opt_out(self) -> None:
        refused = opt_out_under_claims()
        if refused is not None:
            self.opt_outs.append(refused)

    def _halt(self) -> None:
        halting.halt(now=timezone.now(), reason="chaos")
        stop = Stop("everything was halted", time.time(), grace_seconds=HALT_GRACE_SECONDS)
        self.stops.append(stop)

    def _end_halt(self) -> None:
        self._end_stops(lambda stop: stop.batch is None and not stop.devices)
        halting.resume(now=timezone.now())


def resume_what_paused_itself() -> None:
    """Let runs go on that paused by themselves, as an operator does once the gateway is well again."""
    for run in Run.objects.filter(batch__state=BatchState.PAUSED, batch__reason__startswith=BY_ITSELF):
        campaigns.resume(run, now=timezone.now())
