"""Two beats: one ticks, the other takes over; with real processes, one of which is killed in a campaign."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from django.conf import settings as django_settings
from django.utils import timezone

from campaigns import services as campaigns
from campaigns.models import RunState
from config import doctor
from config.celery import app
from config.demo.verdict import judge
from messaging.beats import BEATS_KEY, LEASE_KEY, LEASE_SECONDS, RENEW_SECONDS, Lease, StandbyScheduler
from messaging.health import Numbers, assess, look_at_broker
from messaging.models import Message
from messaging.states import State
from tests.factories import make_campaign, make_leads, make_pool, make_user
from tests.programs import another_beat, database_url, worker_and_beat
from tests.simulator_process import running_simulator, wait_until


@pytest.fixture
def broker() -> Iterator[redis.Redis]:
    """The test's Valkey, where no beat was heard of."""
    with redis.Redis.from_url(django_settings.REDIS_URL) as client:
        client.delete(LEASE_KEY, BEATS_KEY)
        yield client
        client.delete(LEASE_KEY, BEATS_KEY)


class Clock:
    """Reads what it is set to."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_one_holds_the_lease_and_the_other_gets_it_when_it_goes(broker, clock):
    first, second = Lease(app, clock=clock), Lease(app, clock=clock)
    assert (first.holds(), second.holds()) == (True, False)
    assert 0 < broker.pttl(LEASE_KEY) <= 1000 * LEASE_SECONDS
    seen = look_at_broker().beats
    assert (seen.leader, seen.standbys, set(seen.alive)) == (first.name, 1, {first.name, second.name})
    clock.now += RENEW_SECONDS
    assert (second.holds(), first.holds()) == (False, True)
    first.leave()
    assert look_at_broker().beats.leader == ""
    clock.now += RENEW_SECONDS
    assert second.holds()
    assert look_at_broker().beats.alive == (second.name,)
    second.leave()


def test_one_that_was_frozen_asks_before_it_ticks_again(broker, clock):
    frozen, other = Lease(app, clock=clock), Lease(app, clock=clock)
    assert frozen.holds()
    broker.delete(LEASE_KEY)  # as if it had lapsed meanwhile
    assert other.holds()
    clock.now += 60
    assert not frozen.holds()
    assert other.holds()
    for lease in (frozen, other):
        lease.leave()


def test_a_broker_that_forgets_everything_leaves_one_leader(broker, clock):
    beats = [Lease(app, clock=clock) for _ in range(3)]
    assert sum(beat.holds() for beat in beats) == 1
    broker.flushall()
    clock.now += RENEW_SECONDS
    assert sum(beat.holds() for beat in beats) == 1
    for beat in beats:
        beat.leave()


def test_silent_ticks_are_not_put_down_to_a_beat_that_ticks(broker, clock):
    lease = Lease(app, clock=clock)

    def silent() -> str:
        numbers = Numbers(broker=look_at_broker(), ticks_silent_seconds=600)
        return next(reason.text for reason in assess(numbers) if reason.code == "ticks_silent")

    assert "beat or the control worker is away" in silent()
    assert lease.holds()
    assert "the control worker is away or busy" in silent()
    lease.leave()


def test_one_that_stands_by_writes_its_schedule_down_as_well(broker, tmp_path: Path):
    """By which the probe of deploy/ believes that it lives."""
    other = Lease(app)
    assert other.holds()
    broker.delete("control")
    standby = StandbyScheduler(app, schedule_filename=str(tmp_path / "beat-schedule"))
    assert standby.tick() == RENEW_SECONDS
    for file in tmp_path.iterdir():
        os.utime(file, (1, 1))
    assert standby.should_sync()
    standby._do_sync()
    assert max(file.stat().st_mtime for file in tmp_path.iterdir()) > 1
    assert broker.llen("control") == 0
    other.leave()
    standby._lease._asked_at = None
    wait_until(lambda: standby.tick() is not None and broker.llen("control") > 0, what="the first tick")
    standby.close()
    assert look_at_broker().beats.alive == ()


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.django_db(transaction=True)
def test_the_one_that_stands_by_takes_over_from_one_that_is_killed_and_from_one_that_goes(broker, tmp_path: Path):
    owner = make_user()
    pool, _ = make_pool(owner=owner, devices=6, delay_min_seconds=0.4, delay_max_seconds=0.6)
    make_leads(180, owner=owner)
    told = {"DATABASE_URL": database_url()}

    def leader_but(*names: str) -> str:
        return wait_until(
            lambda: (name := look_at_broker().beats.leader) not in names and name, what="a leader", seconds=100
        )

    def sent() -> int:
        return Message.objects.filter(state=State.SENT).count()

    with (
        running_simulator() as simulator,
        worker_and_beat(simulator, tmp_path, **told),
        another_beat(simulator, tmp_path, "second", **told),
        another_beat(simulator, tmp_path, "third", **told),
    ):
        wait_until(lambda: look_at_broker().beats.standbys == 2, what="all beats", seconds=100)
        found = [finding for finding in doctor.workers_are_alive() if finding.topic == "beat"]
        first = leader_but("")
        campaign = make_campaign(owner=owner, pool=pool, delay_min_seconds=0.4, delay_max_seconds=0.6)
        run = campaigns.launch(campaign=campaign, now=timezone.now()).run
        wait_until(lambda: sent() >= 40, what="the first messages", seconds=120)
        os.kill(int(first.split(":")[1]), signal.SIGKILL)
        second = leader_but("", first)
        before = sent()
        wait_until(lambda: sent() >= before + 12, what="messages by the next beat", seconds=120)
        os.kill(int(second.split(":")[1]), signal.SIGTERM)
        leader_but("", first, second)
        before = sent()
        ended = (RunState.FINISHED, RunState.FAILED)
        wait_until(lambda: run.refresh_from_db() or run.state in ended, what="the run to end", seconds=200)
        verdict = judge(batch_id=run.batch_id, entries=simulator.ledger())
    assert before < 180, "nothing was left for the last beat"
    assert [(one.level, "another stands by" in one.text) for one in found] == [("ok", True)]
    assert run.state == RunState.FINISHED, run.reason
    assert verdict.clean, verdict
    assert (verdict.delivered, sent()) == (180, 180)
