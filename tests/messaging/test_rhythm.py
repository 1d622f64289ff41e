"""Pacing, caps and windows over simulated days: the real statements, the real simulator, a clock that jumps."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, time, timedelta
from itertools import pairwise
from random import Random

import pytest
from django.utils import timezone
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from devices.clients import ClientRegistry
from devices.models import Device
from messaging.dispatch.pool import Pool, Session
from messaging.dispatch.prepared import Statement
from messaging.dispatch.release import release_round
from messaging.dispatch.send import Sender
from messaging.models import Attempt, Message
from messaging.states import State
from tests.factories import make_batch, make_device, make_user

pytestmark = pytest.mark.django_db(transaction=True)


class TimeTravelPool(Pool):
    """A pool whose connections live ``ahead`` of the clock on the wall."""

    def __init__(self) -> None:
        super().__init__(size=4)
        self.ahead = timedelta(0)

    @contextmanager
    def _borrowed(self) -> Iterator[Session]:
        with super()._borrowed() as session:
            session.control(f"SET flotilla.clock_offset = '{self.ahead.total_seconds()} seconds'")
            yield session

    def now(self) -> datetime:
        return self.execute(Statement("test_now", "SELECT flotilla_now()"), {})[0][0]


def run_until_sent(pool: TimeTravelPool, *, seed: int, jumps: int = 600) -> None:
    """Release and send, jumping from one wake-up to the next, until nothing is pending."""
    clients = ClientRegistry()
    sender = Sender(pool=pool, clients=clients, rng=Random(seed))
    for _ in range(jumps):
        _, released = release_round(pool=pool)
        for item in released:
            sender.carry(message_id=item.message_id, release_no=item.release_no)
        if not Message.objects.filter(state=State.PENDING).exists():
            break
        following = Device.objects.exclude(wake_at=None).order_by("wake_at").first()
        if following is not None and following.wake_at is not None:
            pool.ahead += max(following.wake_at - pool.now(), timedelta(0)) + timedelta(milliseconds=1)
    clients.close()
    assert not Message.objects.exclude(state=State.SENT).exists()


def starts(device: Device) -> list[datetime]:
    return list(Attempt.objects.filter(device=device).order_by("started_at").values_list("started_at", flat=True))


@given(
    gap=st.integers(0, 900),
    spread=st.integers(0, 600),
    per_hour=st.one_of(st.none(), st.integers(1, 6)),
    per_day=st.one_of(st.none(), st.integers(3, 20)),
    lanes=st.integers(1, 4),
    seed=st.integers(0, 1000),
)
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_gaps_and_caps_hold_in_every_rolling_window(simulator, gap, spread, per_hour, per_day, lanes, seed):
    owner = make_user()
    device = make_device(
        owner=owner,
        delay_min_seconds=gap,
        delay_max_seconds=gap + spread,
        cap_per_hour=per_hour,
        cap_per_day=per_day,
        lanes=lanes,
    )
    make_batch(owner=owner, devices=[device], leads=25, expires_after=timedelta(days=60))
    pool = TimeTravelPool()
    run_until_sent(pool, seed=seed)
    pool.close()
    at = starts(device)
    assert len(at) == 25
    for earlier, later in pairwise(at):
        assert later - earlier >= timedelta(seconds=gap)
    for cap, length in ((per_hour, timedelta(hours=1)), (per_day, timedelta(days=1))):
        if cap is not None:
            assert all(at[n + cap] - at[n] >= length for n in range(len(at) - cap))


def test_the_larger_of_the_devices_and_the_campaigns_delay_counts(simulator):
    owner = make_user()
    device = make_device(owner=owner, delay_min_seconds=10, delay_max_seconds=20)
    make_batch(owner=owner, devices=[device], leads=6, delay_min_seconds=60, delay_max_seconds=90)
    pool = TimeTravelPool()
    run_until_sent(pool, seed=1)
    pool.close()
    at = starts(device)
    assert all(timedelta(seconds=60) <= b - a <= timedelta(seconds=95) for a, b in pairwise(at))


def test_nothing_leaves_outside_the_window(simulator):
    owner = make_user()
    device = make_device(
        owner=owner, delay_min_seconds=1800, delay_max_seconds=1800,
        window_start=time(9), window_end=time(12), time_zone="Asia/Kuala_Lumpur",
    )  # fmt: skip
    make_batch(owner=owner, devices=[device], leads=20)
    pool = TimeTravelPool()
    run_until_sent(pool, seed=1)
    pool.close()
    hours = {(at.astimezone(UTC) + timedelta(hours=8)).hour for at in starts(device)}
    assert hours == {9, 10, 11}


def test_a_new_number_sends_a_little_more_every_day(simulator):
    owner = make_user()
    device = make_device(owner=owner, warm_up=True, cap_per_day=30)
    make_batch(owner=owner, devices=[device], leads=100)
    pool = TimeTravelPool()
    run_until_sent(pool, seed=1)
    pool.close()
    at = starts(device)
    born = device.created_at
    first_day = [moment for moment in at if moment < born + timedelta(days=1)]
    assert len(first_day) == 20
    assert all(at[n + 30] - at[n] >= timedelta(days=1) for n in range(len(at) - 30))


def test_held_devices_say_why(simulator):
    owner = make_user()
    device = make_device(owner=owner, cap_per_hour=1)
    make_batch(owner=owner, devices=[device], leads=2)
    clients = ClientRegistry()
    pool = Pool(size=2)
    _, (released,) = release_round(pool=pool)
    Sender(pool=pool, clients=clients, rng=Random()).carry(
        message_id=released.message_id, release_no=released.release_no
    )
    pool.close()
    clients.close()
    device.refresh_from_db()
    assert device.hold_reason == "The device's sending cap is reached."
    assert device.held_until > timezone.now() + timedelta(minutes=59)
