"""How the installation is: the decision over figures, and the figures from real rows and a real broker."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from devices.models import Device, DeviceState, GatewayRest
from messaging import halting, health
from messaging.dispatch.release import release_due
from messaging.health import Broker, Health, Level, Numbers, assess
from messaging.models import Message, WorkerProcess
from messaging.states import State
from messaging.workers import crew, note_pulse
from tests.api_support import broker_down, published
from tests.factories import make_batch, make_device, make_user

WELL = Numbers(devices={"active": 10}, ticks_silent_seconds=1.0, workers=2, device_workers=True, control_workers=True)


def test_nothing_wrong_is_healthy():
    assert assess(WELL) == ()


@pytest.mark.parametrize(
    ("change", "code", "level"),
    [
        ({"database": False}, "database_away", Level.CRITICAL),
        ({"broker": Broker(answers=False)}, "broker_away", Level.CRITICAL),
        ({"broker": Broker(memory_bytes=95, memory_limit_bytes=100)}, "broker_memory", Level.WARNING),
        ({"broker": Broker(control_tasks=1_000)}, "control_backlog", Level.WARNING),
        ({"oldest_due_seconds": 31.0, "late_devices": 1}, "release_late", Level.WARNING),
        ({"oldest_due_seconds": 121.0, "late_devices": 3}, "release_late", Level.CRITICAL),
        ({"oldest_queued_seconds": 61.0, "queued": 1}, "unclaimed", Level.WARNING),
        ({"oldest_queued_seconds": 301.0, "queued": 1}, "unclaimed", Level.CRITICAL),
        ({"queued": 1, "device_workers": False}, "no_device_worker", Level.CRITICAL),
        ({"ticks_silent_seconds": 61.0}, "ticks_silent", Level.WARNING),
        ({"ticks_silent_seconds": None}, "ticks_silent", Level.WARNING),
        ({"ticks_silent_seconds": 61.0, "queued": 1}, "ticks_silent", Level.CRITICAL),
        ({"leases_expired": 1}, "leases_expired", Level.WARNING),
        ({"unknown": 1}, "unknown", Level.DEGRADED),
        ({"unknown": 100}, "unknown", Level.WARNING),
        ({"failed_last_hour": 50}, "failing", Level.DEGRADED),
        ({"failed_last_hour": 10_001}, "failing", Level.WARNING),
        ({"devices": {"active": 9, "needs_attention": 1}}, "devices_attention", Level.DEGRADED),
        ({"devices": {"active": 4, "needs_attention": 1}}, "devices_attention", Level.WARNING),
        ({"devices": {"paused": 1}}, "no_device", Level.WARNING),
        ({"incidents": 1, "resting_gateways": 1}, "incident", Level.WARNING),
        ({"resting_gateways": 1}, "gateway_rests", Level.DEGRADED),
        ({"workers_silent": ("devices@a",)}, "worker_silent", Level.DEGRADED),
        ({"halted": True, "oldest_due_seconds": 9_999.0}, "halted", Level.WARNING),
    ],
)
def test_each_trouble_has_its_code_and_level(change: dict[str, Any], code: str, level: Level):
    (reason,) = assess(replace(WELL, **change))
    assert (reason.code, reason.level) == (code, level)
    assert reason.text.endswith(".")


def test_what_is_just_within_its_limit_is_no_trouble():
    busy = replace(
        WELL, oldest_due_seconds=30.0, oldest_queued_seconds=60.0, queued=3, ticks_silent_seconds=60.0,
        failed_last_hour=49, broker=Broker(control_tasks=999, memory_bytes=89, memory_limit_bytes=100),
    )  # fmt: skip
    assert assess(busy) == ()


def test_the_worst_comes_first():
    found = assess(replace(WELL, unknown=1, incidents=1, broker=Broker(answers=False)))
    assert [reason.level for reason in found] == [Level.CRITICAL, Level.WARNING, Level.DEGRADED]


# -- from rows ---------------------------------------------------------------------------------------------------------


def codes(found: Health) -> set[str]:
    return {reason.code for reason in found.reasons}


def worker(name: str, *, queues: list[str], seen_seconds_ago: float = 0, **fields: Any) -> WorkerProcess:
    now = timezone.now()
    times = {"started_at": now, "seen_at": now - timedelta(seconds=seen_seconds_ago)}
    return WorkerProcess.objects.create(name=name, host="h", pid=1, queues=queues, **{**times, **fields})


@pytest.fixture
def staffed(db: None) -> None:
    """Workers and ticks, as in a stack that runs."""
    published()  # what other tests left in the control queue
    worker("control@h", queues=["control"])
    worker("devices@h", queues=["devices.http.0"], sent_per_minute=120)
    note_pulse(now=timezone.now())


@pytest.mark.django_db(transaction=True)  # the release has connections of its own
class TestLooking:
    def test_an_installation_where_messages_go_out_is_healthy(self, staffed):
        device = make_device(owner=make_user())
        make_batch(owner=device.owner, devices=[device], leads=2)
        found = health.look(now=timezone.now())
        assert (found.overall, found.reasons, found.ready) == (Level.HEALTHY, (), True)
        assert found.numbers.workers == 2
        assert found.numbers.sent_per_minute == 120
        assert found.numbers.devices == {"active": 1}

    def test_what_is_due_and_not_released_becomes_critical_and_ends_with_the_release(self, staffed):
        device = make_device(owner=make_user())
        make_batch(owner=device.owner, devices=[device])
        Device.objects.update(wake_at=timezone.now() - timedelta(minutes=5))
        found = health.look(now=timezone.now())
        assert (found.overall, found.ready, codes(found)) == (Level.CRITICAL, False, {"release_late"})
        release_due()
        found = health.look(now=timezone.now())
        assert (found.overall, found.numbers.queued) == (Level.HEALTHY, 1)

    def test_whoever_rests_or_is_paused_is_not_late(self, staffed):
        device = make_device(owner=make_user(), base_url="http://rests.example")
        make_batch(owner=device.owner, devices=[device])
        now = timezone.now()
        Device.objects.update(wake_at=now - timedelta(minutes=5))
        GatewayRest.objects.create(
            gateway="simulator", base_url=device.base_url, since=now, until=now + timedelta(minutes=1)
        )
        assert codes(health.look(now=now)) == {"gateway_rests"}
        GatewayRest.objects.all().delete()
        Device.objects.update(state=DeviceState.PAUSED)
        assert codes(health.look(now=now)) == {"no_device"}

    def test_released_and_never_claimed_is_told_by_its_age(self, staffed):
        device = make_device(owner=make_user())
        make_batch(owner=device.owner, devices=[device])
        release_due()
        Message.objects.update(queued_at=timezone.now() - timedelta(minutes=6))
        found = health.look(now=timezone.now())
        assert (found.overall, codes(found)) == (Level.CRITICAL, {"unclaimed"})

    def test_what_ended_badly_is_counted(self, staffed):
        device = make_device(owner=make_user())
        batch = make_batch(owner=device.owner, devices=[device], leads=60)
        ids = list(Message.objects.filter(batch=batch).values_list("pk", flat=True))
        Message.objects.filter(pk__in=ids[:55]).update(state=State.FAILED, failed_at=timezone.now())
        Message.objects.filter(pk__in=ids[55:]).update(state=State.UNKNOWN)
        found = health.look(now=timezone.now())
        assert (found.numbers.failed_last_hour, found.numbers.unknown) == (55, 5)
        assert codes(found) == {"failing", "unknown"}

    def test_a_halt_is_said_and_nothing_has_to_move(self, staffed):
        device = make_device(owner=make_user())
        make_batch(owner=device.owner, devices=[device])
        Device.objects.update(wake_at=timezone.now() - timedelta(hours=1))
        halting.halt(now=timezone.now())
        found = health.look(now=timezone.now())
        assert (found.overall, codes(found)) == (Level.WARNING, {"halted"})

    def test_without_a_broker_it_is_critical_and_the_rest_is_still_told(self, staffed):
        make_device(owner=make_user(), state=DeviceState.NEEDS_ATTENTION)
        with broker_down():
            found = health.look(now=timezone.now())
        assert found.overall is Level.CRITICAL
        assert codes(found) == {"broker_away", "devices_attention", "no_device"}

    def test_it_asks_three_questions_however_much_there_is(self, staffed):
        owner = make_user()
        for _ in range(3):
            make_batch(owner=owner, devices=[make_device(owner=owner) for _ in range(2)], leads=6)
        with CaptureQueriesContext(
            connection,
        ) as queries:
            health.look(now=timezone.now())
        assert len(queries) == 3


@pytest.mark.django_db
class TestCrew:
    def test_live_silent_left_and_come_back(self):
        now = timezone.now()
        worker("a@h", queues=["devices.http.0"])
        worker("b@h", queues=["control"], seen_seconds_ago=40)
        worker("c@h", queues=["control"], seen_seconds_ago=40, left_at=now)
        worker("d@h", queues=["control"], seen_seconds_ago=40)
        worker("d@h", queues=["control"])
        worker("e@h", queues=["control"], seen_seconds_ago=7200)
        found = crew(now=now)
        assert [w.name for w in found.live] == ["a@h", "d@h"]
        assert [w.name for w in found.silent] == ["b@h"]
        assert found.serve("devices.")
        assert not found.serve("pairing")

    def test_the_pulse_forgets_who_was_gone_a_day_ago(self):
        worker("old@h", queues=[], seen_seconds_ago=90_000)
        worker("new@h", queues=[])
        note_pulse(now=timezone.now())
        assert [w.name for w in WorkerProcess.objects.all()] == ["new@h"]
