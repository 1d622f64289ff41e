"""Leases, markers and weather: what keeps two hosts apart and blames nobody wrongly. Steps, without processes."""

from __future__ import annotations

from threading import Barrier, Thread
from uuid import uuid4

import pytest
from django.db import connection

from devices import leases, risky, services
from devices.keeper import Keeper
from devices.models import Device, DeviceState
from devices.session_models import SessionHost, SessionShard
from devices.weather import Weather
from tests.factories import make_device, make_user


class World:
    """A keeper with a clock of the test's own, and what it was told."""

    def __init__(self, *, seconds: float = 30, total: int = 6) -> None:
        self.now = 1000.0
        self.gained: list[frozenset[int]] = []
        self.lost: list[tuple[frozenset[int], bool]] = []
        self.leaving = False
        self.keeper = Keeper(
            name="host",
            total=total,
            seconds=seconds,
            gained=self.gained.append,
            losing=lambda shards, hurry: self.lost.append((shards, hurry)),
            status=lambda: leases.Status(leaving=self.leaving),
            clock=lambda: self.now,
        )


@pytest.mark.parametrize(("total", "hosts"), [(16, 1), (16, 3), (4, 4), (4, 7), (1, 2)])
def test_shares_are_fair_and_whole(total, hosts):
    shares = [leases.fair_share(total=total, hosts=hosts, place=place) for place in range(hosts)]
    assert sum(shares) == total
    assert max(shares) - min(shares) <= 1


@pytest.mark.django_db(transaction=True)
def test_by_its_own_clock_a_host_lets_go_before_the_lease_ends():
    world = World(seconds=30)
    world.keeper.step()
    assert world.keeper.held() == frozenset(range(6))
    world.now += 19.9
    world.keeper.watch()
    assert world.keeper.holds(device_id=3)
    world.now += 0.2  # two thirds of the lease, and it was not renewed: a third is left to close the sessions
    assert not world.keeper.holds(device_id=3)
    world.keeper.watch()
    assert world.lost == [(frozenset(range(6)), True)]
    assert SessionHost.objects.get().lease_until is not None  # still in force by the database's clock
    world.keeper.step()  # it comes back as a new host, and waits for the old lease to lapse
    assert world.keeper.held() == frozenset()
    assert SessionHost.objects.count() == 2


@pytest.mark.django_db(transaction=True)
def test_a_lapsed_lease_is_never_renewed_and_its_shards_are_free():
    first, second = World(seconds=30), World(seconds=30)
    first.keeper.step()
    with connection.cursor() as cursor:
        cursor.execute("UPDATE devices_sessionhost SET lease_until = clock_timestamp() - interval '1 ms'")
    second.keeper.step()
    assert second.keeper.held() == frozenset(range(6))
    first.keeper.step()
    assert (first.keeper.held(), first.lost) == (frozenset(), [(frozenset(range(6)), True)])
    assert set(SessionShard.objects.values_list("fencing", flat=True)) == {2}


@pytest.mark.django_db(transaction=True)
def test_many_hosts_at_once_never_hold_a_shard_together():
    hosts, barrier = [World(total=8) for _ in range(5)], Barrier(5)

    def run(world: World) -> None:
        try:
            barrier.wait(20)
            for _ in range(10):
                world.keeper.step()
        finally:
            connection.close()

    threads = [Thread(target=run, args=(world,)) for world in hosts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    held = [shard for world in hosts for shard in world.keeper.held()]
    assert len(held) == len(set(held))
    for world in hosts:
        world.keeper.step()
    assert {len(world.keeper.held()) for world in hosts} <= {1, 2, 3}


@pytest.mark.django_db(transaction=True)
def test_hosts_configured_for_another_number_of_shards_take_none():
    first, other = World(total=6), World(total=8)
    first.keeper.step()
    other.keeper.step()
    assert (len(first.keeper.held()), len(other.keeper.held())) == (6, 0)
    first.keeper.stop()
    other.keeper.step()
    assert len(other.keeper.held()) == 8


@pytest.mark.django_db
def test_two_deaths_in_a_row_count_and_peace_forgives():
    device = make_device(owner=make_user())
    first, second, third = uuid4(), uuid4(), uuid4()
    assert risky.begin(device_id=device.pk, call="open", process=first) == 0
    risky.end(device_id=device.pk, process=first)
    assert risky.begin(device_id=device.pk, call="open", process=first) == 0  # and now it dies
    assert risky.deaths(device_id=device.pk) == 1
    assert risky.begin(device_id=device.pk, call="open", process=second) == 1
    risky.end(device_id=device.pk, process=second, peace=True)
    assert risky.begin(device_id=device.pk, call="open", process=second) == 0
    assert risky.begin(device_id=device.pk, call="open", process=third) == 1
    risky.end(device_id=device.pk, process=second)  # a late end of somebody who was thought dead
    assert risky.begin(device_id=device.pk, call="open", process=first) == 2
    assert Device.objects.get().pk == device.pk


def test_three_devices_in_a_row_are_an_incident_and_one_success_ends_it():
    now = 0.0
    weather = Weather(clock=lambda: now)
    assert [weather.met_nobody(device_id=1) for _ in range(9)] == [None] * 9  # one device, however often
    assert weather.met() is None
    assert weather.met_nobody(device_id=1) is None
    assert weather.met_nobody(device_id=2) is None
    began = weather.met_nobody(device_id=3)
    assert began is not None
    assert (began.began, began.devices) == (True, frozenset({1, 2, 3}))
    assert weather.wait_seconds() == 10
    now = 10.0
    assert weather.wait_seconds() == 0  # one may try
    assert weather.wait_seconds() > 0  # the others wait for it
    assert weather.met_nobody(device_id=4) is None
    assert weather.wait_seconds() == 20
    now = 30.0
    assert weather.wait_seconds() == 0
    ended = weather.met()
    assert ended is not None
    assert (ended.began, weather.bad, weather.wait_seconds()) == (False, False, 0)


def test_failures_far_apart_are_no_incident():
    now = 0.0
    weather = Weather(clock=lambda: now)
    for device_id in range(10):
        assert weather.met_nobody(device_id=device_id) is None
        now += 31


@pytest.mark.django_db
def test_an_offender_is_refused_until_somebody_wants_it_tried_again():
    device = make_device(owner=make_user(), state=DeviceState.NEEDS_ATTENTION)
    last = uuid4()
    for process in (uuid4(), uuid4(), last):
        risky.begin(device_id=device.pk, call="open", process=process)
    risky.end(device_id=device.pk, process=last)
    assert risky.deaths(device_id=device.pk) >= risky.MOST_DEATHS  # also for whoever waited for the same connection
    services.resume(devices=Device.objects.filter(pk=device.pk))
    assert risky.deaths(device_id=device.pk) == 0
