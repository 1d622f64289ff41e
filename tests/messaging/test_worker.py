"""The whole corridor with real Celery workers in processes of their own, judged by the simulator's ledger."""

from __future__ import annotations

import os
import signal
import subprocess
from collections import Counter
from datetime import timedelta

import pytest
from django.conf import settings as django_settings
from django.utils import timezone

from devices.gateways import registry
from messaging import halting
from messaging.dispatch.publish import Released, publish
from messaging.dispatch.release import release_next
from messaging.models import Attempt, Message
from messaging.services import counts_of
from messaging.states import State
from tests.api_support import published
from tests.factories import make_batch, make_device, make_pool, make_user, messages_of
from tests.messaging.corridor import sent, ticking, verdict_on, wait_for_the_end
from tests.programs import CELERY, ROOT, database_url, device_worker
from tests.simulator_process import wait_until

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.slow]


def test_a_batch_reaches_every_phone_once_and_devices_come_and_go(broker, simulator, tmp_path):
    owner = make_user()
    _, devices = make_pool(owner=owner, devices=20)
    batch = make_batch(owner=owner, devices=devices, leads=300)
    with device_worker(simulator, tmp_path / "one.log"), ticking():
        wait_for_the_end(batch)
        late = make_device(owner=owner, lanes=4)  # the worker has never heard of it
        second = make_batch(owner=owner, devices=[late], leads=40)
        wait_for_the_end(second)
    for each in (batch, second):
        assert verdict_on(each, simulator).clean
        assert counts_of([each.pk])[each.pk].sent == counts_of([each.pk])[each.pk].total
    assert simulator.summary()["max_in_flight"][late.credentials["token"]] <= 4
    assert max(simulator.summary()["max_in_flight"][device.credentials["token"]] for device in devices) == 1


def test_a_device_that_hangs_delays_no_other(broker, simulator, tmp_path):
    owner = make_user()
    _, devices = make_pool(owner=owner, devices=10)
    hanging = devices[0]
    simulator.add_faults({"fault": "hang", "phase": "before", "device": hanging.credentials["token"]})
    batch = make_batch(owner=owner, devices=devices, leads=200)
    with device_worker(simulator, tmp_path / "hang.log", threads=4) as worker, ticking():
        wait_until(lambda: sent(batch) == 180, what="the other nine devices", seconds=15)
        assert Message.objects.filter(device=hanging, state=State.SENDING).count() == 1
        worker.kill()  # a polite end would wait for the one that hangs


@pytest.mark.parametrize("dedups", [True, False])
def test_a_killed_worker_loses_nothing_and_doubles_nothing(broker, simulator, tmp_path, monkeypatch, settings, dedups):
    """SIGKILL in mid-stream, several times; the simulator drops repeats, or is treated as if it did not."""
    if not dedups:
        monkeypatch.setattr(type(registry.driver_for("simulator")), "id_semantics", "none")
        settings.FLOTILLA_UNKNOWN_CLOSE_HOURS = 0  # nobody will settle them here
    owner = make_user()
    _, devices = make_pool(owner=owner, devices=30)
    simulator.add_faults({"fault": "latency", "min_seconds": 0.0, "max_seconds": 0.05, "phase": "after"})
    batch = make_batch(owner=owner, devices=devices, leads=600)
    with ticking():
        for number in range(3):
            with device_worker(simulator, tmp_path / f"kill{number}.log", FLOTILLA_LEASE_SECONDS="2") as worker:
                goal = 100 * (number + 1)
                wait_until(lambda goal=goal: sent(batch) >= goal, what=f"{goal} messages", seconds=60)
                worker.send_signal(signal.SIGKILL)
                worker.wait(10)
        with device_worker(simulator, tmp_path / "last.log"):
            wait_for_the_end(batch, seconds=90)
            wait_until(
                lambda: not Message.objects.filter(batch=batch, state=State.SENDING).exists(), what="leases", seconds=20
            )
    states = Counter(Message.objects.filter(batch=batch).values_list("state", flat=True))
    verdict = verdict_on(batch, simulator)
    assert verdict.clean
    if dedups:
        assert states == {State.SENT: 600}
    else:
        assert set(states) <= {State.SENT, State.UNKNOWN}
        assert states[State.UNKNOWN] <= 3 * 8  # one per thread and kill: nothing else may hide behind “unknown”


def test_whoever_starts_after_a_kill_recovers_without_any_tick(broker, simulator, tmp_path):
    owner = make_user()
    hanging, forgotten = make_device(owner=owner), make_device(owner=owner)
    simulator.add_faults({"fault": "hang", "phase": "before", "device": hanging.credentials["token"]})
    batch = make_batch(owner=owner, devices=[hanging, forgotten], leads=2)
    first, second = messages_of(batch)
    with device_worker(simulator, tmp_path / "killed.log", FLOTILLA_LEASE_SECONDS="1") as worker:
        publish([release_next(device_id=hanging.pk)])
        wait_until(lambda: Message.objects.filter(pk=first.pk, state=State.SENDING).exists(), what="the claim")
        worker.send_signal(signal.SIGKILL)
        worker.wait(10)
    simulator.control("DELETE", "faults")
    release_next(device_id=forgotten.pk)  # released, and never published
    Message.objects.filter(pk=second.pk).update(queued_at=timezone.now() - timedelta(minutes=1))
    wait_until(
        lambda: Message.objects.filter(pk=first.pk, lease_until__lt=timezone.now()).exists(), what="the lease to lapse"
    )
    with device_worker(simulator, tmp_path / "next.log"):
        wait_until(
            lambda: list(Message.objects.order_by("pk").values_list("state", flat=True)) == [State.PENDING, State.SENT],
            what="the recovery on start",
        )


def test_beat_asks_for_a_recovery_before_its_first_tick(broker, tmp_path):
    argv = [*CELERY, "beat", "-s", str(tmp_path / "schedule"), "--pidfile="]
    env = {**os.environ, "DATABASE_URL": database_url(), "REDIS_URL": django_settings.REDIS_URL}
    process = subprocess.Popen(argv, cwd=ROOT, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT)
    try:
        wait_until(lambda: broker.llen("control") >= 3, what="beat's first ticks", seconds=30)
    finally:
        process.terminate()
        process.wait(20)
    assert [name for name, _ in published()][:2] == ["messaging.recover", "messaging.wake_sleepers"]


def test_an_emptied_broker_loses_nothing(broker, simulator, tmp_path):
    owner = make_user()
    _, devices = make_pool(owner=owner, devices=30)
    batch = make_batch(owner=owner, devices=devices, leads=600)
    with device_worker(simulator, tmp_path / "flush.log", threads=4), ticking():
        for goal in (100, 250, 400):
            wait_until(lambda goal=goal: sent(batch) >= goal, what=f"{goal} messages", seconds=60)
            broker.flushall()
        wait_for_the_end(batch, seconds=90)
    assert verdict_on(batch, simulator).clean
    assert sent(batch) == 600


def test_stop_all_holds_under_load_and_over_a_restart_of_everything(broker, simulator, tmp_path):
    owner = make_user(role="admin")
    _, devices = make_pool(owner=owner, devices=40)
    batch = make_batch(owner=owner, devices=devices, leads=800)
    with device_worker(simulator, tmp_path / "first.log"), device_worker(simulator, tmp_path / "second.log"), ticking():
        wait_until(lambda: sent(batch) >= 200, what="200 messages", seconds=60)
        halt = halting.halt(now=timezone.now(), by=owner, reason="under load")
        wait_until(
            lambda: not Message.objects.filter(state=State.SENDING).exists(), what="what is at the gateway", seconds=60
        )
    stopped_at = sent(batch)
    assert stopped_at < 800
    broker.flushall()
    with device_worker(simulator, tmp_path / "again.log"), ticking():
        for message in Message.objects.filter(batch=batch, state=State.QUEUED):  # what a crash may have left queued
            publish([Released(message_id=message.pk, device_id=message.device_id, release_no=message.release_no)])
        wait_until(
            lambda: not Message.objects.filter(state=State.QUEUED).exists(), what="the queues to give back", seconds=60
        )
        assert sent(batch) == stopped_at
        last = Attempt.objects.order_by("-started_at")[0]
        assert last.started_at - halt.started_at < timedelta(seconds=2)
        assert halting.backlog().messages == 800 - stopped_at
        assert halting.resume(now=timezone.now(), by=owner)
        wait_for_the_end(batch)
    assert verdict_on(batch, simulator).clean
    assert sent(batch) == 800


def test_two_workers_share_the_devices(broker, simulator, tmp_path):
    owner = make_user()
    _, devices = make_pool(owner=owner, devices=24)
    batch = make_batch(owner=owner, devices=devices, leads=480)
    with (
        device_worker(simulator, tmp_path / "first.log", threads=4),
        device_worker(simulator, tmp_path / "second.log", threads=4),
        ticking(),
    ):
        wait_for_the_end(batch)
    assert verdict_on(batch, simulator).clean
    assert sent(batch) == 480
