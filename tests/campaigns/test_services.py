from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading

import pytest
from django.db import connection
from django.utils import timezone

from campaigns import checks, running, services
from campaigns.models import CampaignState, Run, RunState, Schedule
from devices.models import Device, DeviceState
from messaging import fanout
from messaging.models import Batch, BatchState, Message
from messaging.services import end_batch, wrap_up
from tests.factories import make_campaign, make_device, make_leads, make_pool, make_user
from tests.programs import ROOT, database_url

pytestmark = pytest.mark.django_db(transaction=True)


def test_ten_launches_and_triggers_at_once_make_one_run_and_one_message_per_person():
    owner = make_user()
    pool, _ = make_pool(owner=owner, devices=3)
    make_leads(30, owner=owner)
    campaign = make_campaign(owner=owner, pool=pool)
    start, launches, errors = threading.Barrier(10), [], []

    def run() -> None:
        start.wait()
        try:
            for _ in range(2):  # a double click each
                launch = services.launch(campaign=campaign, now=timezone.now())
                launches.append(launch)
                services.trigger(run_id=launch.run.pk, now=timezone.now())
                services.tick(now=timezone.now())
        except BaseException as error:  # noqa: BLE001 - told to the main thread
            errors.append(error)
        finally:
            connection.close()

    threads = [threading.Thread(target=run) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not errors
    assert sum(launch.created for launch in launches) == 1
    services.tick(now=timezone.now())
    assert (Run.objects.count(), Batch.objects.count()) == (1, 1)
    assert Message.objects.count() == Message.objects.values("phone").distinct().count() == 30


def test_no_connected_device_fails_the_run_at_once_with_that_reason():
    owner = make_user()
    device = make_device(owner=owner, state=DeviceState.PAUSED)
    make_leads(2, owner=owner, device=device)
    run = services.launch(campaign=make_campaign(owner=owner), now=timezone.now()).run
    run = services.trigger(run_id=run.pk, now=timezone.now())
    assert (run.state, run.reason) == (RunState.FAILED, "No device is connected.")
    assert Message.objects.count() == 0


def test_no_leads_finishes_the_run():
    owner = make_user()
    make_device(owner=owner)
    run = services.launch(campaign=make_campaign(owner=owner), now=timezone.now()).run
    run = services.trigger(run_id=run.pk, now=timezone.now())
    assert (run.state, run.reason) == (RunState.FINISHED, "No lead matches.")


def test_who_is_left_out_is_counted():
    owner = make_user()
    pool, _ = make_pool(owner=owner, devices=1)
    make_leads(2, owner=owner)
    make_leads(1, owner=owner, consent_at=None)
    make_leads(3, owner=owner, opted_out_at=timezone.now())
    campaign = make_campaign(owner=owner, pool=pool)
    assert services.preview(campaign).left_out == {"opted_out": 3, "no_consent": 1}
    run = services.trigger(run_id=services.launch(campaign=campaign, now=timezone.now()).run.pk, now=timezone.now())
    assert run.left_out == {"opted_out": 3, "no_consent": 1}
    assert Message.objects.count() == 2


def test_a_run_finishes_when_nothing_is_left():
    owner = make_user()
    pool, _ = make_pool(owner=owner, devices=1)
    make_leads(2, owner=owner)
    run = services.launch(campaign=make_campaign(owner=owner, pool=pool), now=timezone.now()).run
    services.trigger(run_id=run.pk, now=timezone.now())
    wrap_up(now=timezone.now())
    services.tick(now=timezone.now())
    run.refresh_from_db()
    assert run.state == RunState.TRIGGERED
    assert run.batch_id is not None
    end_batch(batch_id=run.batch_id, state=BatchState.CANCELLED, now=timezone.now())
    services.tick(now=timezone.now())
    run.refresh_from_db()
    assert (run.state, run.reason) == (RunState.FINISHED, "Cancelled.")


def test_an_interrupted_fan_out_is_resumed_by_the_tick(monkeypatch):
    owner = make_user()
    pool, _ = make_pool(owner=owner, devices=2)
    make_leads(9, owner=owner)
    run = services.launch(campaign=make_campaign(owner=owner, pool=pool), now=timezone.now()).run
    real = fanout.fill

    def dies(*, batch_id, leads, devices=(), chunk=4, limit=None):
        fanout.fill_chunk(batch_id=batch_id, leads=leads, devices=devices, chunk=chunk)
        raise KeyboardInterrupt

    monkeypatch.setattr(fanout, "fill", dies)
    with pytest.raises(KeyboardInterrupt):
        services.trigger(run_id=run.pk, now=timezone.now())
    assert Message.objects.count() == 4
    monkeypatch.setattr(fanout, "fill", real)
    services.tick(now=timezone.now())
    assert Message.objects.values("phone").distinct().count() == Message.objects.count() == 9


DIES = """
import django
django.setup()
from django.utils import timezone
from campaigns import checks, services
services.trigger(run_id={run}, now=timezone.now())
"""


def test_a_process_that_is_killed_in_the_middle_of_a_fan_out_leaves_it_to_the_tick():
    owner = make_user()
    pool, _ = make_pool(owner=owner, devices=2)
    make_leads(9, owner=owner)
    run = services.launch(campaign=make_campaign(owner=owner, pool=pool), now=timezone.now()).run
    died = subprocess.run(
        [sys.executable, "-c", DIES.format(run=run.pk)],
        cwd=ROOT,
        env={
            **os.environ,
            "DJANGO_SETTINGS_MODULE": "config.settings",
            "DATABASE_URL": database_url(),
            "FLOTILLA_FAILPOINTS": "mid_fan_out=kill@1",
        },
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert died.returncode == -signal.SIGKILL, died.stderr
    run.refresh_from_db()
    assert (run.state, Message.objects.count()) == (RunState.TRIGGERED, 0)  # its last chunk was not committed
    services.tick(now=timezone.now())
    assert Message.objects.values("phone").distinct().count() == Message.objects.count() == 9


def test_a_campaign_that_is_not_ready_says_everything_that_is_wrong():
    owner = make_user()
    campaign = make_campaign(owner=owner, text="Hello {{ name", delay_min_seconds=3, delay_max_seconds=5)
    campaign.routing, campaign.delay_max_seconds = "pooled", 1
    with pytest.raises(services.CampaignNotReady) as refused:
        services.launch(campaign=campaign, now=timezone.now())
    assert {problem.field for problem in refused.value.problems} >= {"text", "pool", "delay_max_seconds"}
    assert Run.objects.count() == 0


def test_a_cancelled_campaign_is_cloned_not_launched():
    campaign = make_campaign(owner=make_user(), state=CampaignState.CANCELLED)
    with pytest.raises(services.CampaignNotReady, match="clone"):
        services.launch(campaign=campaign, now=timezone.now())


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"schedule": Schedule.CRON, "cron": "61 * * * *"}, "cron"),
        ({"schedule": Schedule.AT}, "scheduled_at"),
        ({"time_zone": "Mars/Olympus"}, "time_zone"),
        ({"text": "  "}, "text"),
    ],
)
def test_bad_input_names_its_field(fields, field):
    campaign = make_campaign(owner=make_user(), **fields)
    assert field in {problem.field for problem in services.check(campaign=campaign)}


def test_only_pooled_runs_may_move_messages_to_another_device():
    owner = make_user()
    pool, (device,) = make_pool(owner=owner, devices=1)
    make_leads(1, owner=owner, device=device)
    for campaign in (make_campaign(owner=owner, pool=pool), make_campaign(owner=owner)):
        services.trigger(run_id=services.launch(campaign=campaign, now=timezone.now()).run.pk, now=timezone.now())
    assert list(Batch.objects.order_by("pk").values_list("failover", flat=True)) == [True, False]


@pytest.mark.parametrize(
    ("gateway", "code"),
    [("wablas", "too_long"), ("meta", "window"), ("gone", "unknown_gateway"), ("simulator", None), ("whatsapp", None)],
)
def test_a_launch_is_refused_what_a_gateway_cannot_carry(gateway, code):
    owner = make_user()
    pool, _ = make_pool(owner=owner, devices=1)
    pool.devices.update(gateway=gateway)
    make_leads(1, owner=owner)
    campaign = make_campaign(owner=owner, pool=pool, text="x" * 1500)
    found = {problem.code for problem in checks.check(campaign=campaign, now=timezone.now())}
    assert found == ({code} if code else set())


# -- Devices that go between the start and the messages ----------------------------------------------------------------


@pytest.mark.parametrize("gone", [1, 3])
def test_devices_deleted_before_the_messages_are_made_are_made_up_for_by_the_others(gone):
    owner, now = make_user(), timezone.now()
    pool, devices = make_pool(owner=owner, devices=3)
    make_leads(6, owner=owner)
    started = services.start(campaign=make_campaign(owner=owner, pool=pool), now=now).run
    running._start(started, now)  # whoever began was killed before the first message
    Device.objects.filter(pk__in=[device.pk for device in devices[:gone]]).delete()
    run = services.trigger(run_id=started.pk, now=now)
    made = Message.objects.filter(batch=run.batch)
    if gone == 3:
        assert (run.state, made.count()) == (RunState.FAILED, 0)
        assert run.reason == "Every device of the pool was deleted before its messages were made."
    else:
        assert (run.state, made.count()) == (RunState.TRIGGERED, 6)
        assert set(made.values_list("device_id", flat=True)) == {device.pk for device in devices[gone:]}
