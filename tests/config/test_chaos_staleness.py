"""A worker that acts on what it saw long ago, or tells its outcome again, is stopped by the fences."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

import pytest

from config.chaos import staleness
from config.chaos.staleness import outdated, repeated
from devices.clients import ClientRegistry
from messaging.dispatch.pool import shared_pool
from messaging.dispatch.release import release_next
from messaging.dispatch.send import Result, Sender
from messaging.models import Attempt, Message, Stream
from messaging.states import State
from tests.factories import make_batch, make_device, make_user
from tests.simulator_process import Simulator, running_simulator, wait_until

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(scope="module")
def simulator() -> Iterator[Simulator]:
    with running_simulator() as running:
        yield running


def test_an_outdated_look_ends_at_the_claim(settings, simulator, monkeypatch):
    settings.FLOTILLA_GATEWAY_URLS = {"simulator": simulator.url}
    monkeypatch.setattr(staleness, "CHANCE", 1.0)
    monkeypatch.setattr(Sender, "_peek", outdated(Sender._peek, rng=Random(1)))
    device = make_device(owner=make_user())
    make_batch(owner=device.owner, devices=[device])
    sender = Sender(pool=shared_pool(), clients=ClientRegistry(), rng=Random(1))
    early = release_next(device_id=device.pk)
    assert sender._peek(early.message_id, early.release_no).release_no == early.release_no
    Message.objects.update(state=State.PENDING)
    later = release_next(device_id=device.pk)
    assert later.release_no == early.release_no + 1
    assert sender.send(message_id=later.message_id, release_no=later.release_no) is Result.STALE
    assert not Attempt.objects.exists()
    monkeypatch.undo()
    assert sender.send(message_id=later.message_id, release_no=later.release_no) is Result.DONE
    assert Attempt.objects.get().release_no == later.release_no


def test_an_outcome_that_is_told_again_changes_nothing(settings, simulator, monkeypatch):
    settings.FLOTILLA_GATEWAY_URLS = {"simulator": simulator.url}
    monkeypatch.setattr(staleness, "AGAIN_SECONDS", (0.0, 0.01))
    told: list[bool] = []

    def record(sender, job, decision, gap):
        plain(sender, job, decision, gap)
        told.append(True)

    plain = Sender._record
    monkeypatch.setattr(Sender, "_record", repeated(record, rng=Random(1)))
    device = make_device(owner=make_user())
    batch = make_batch(owner=device.owner, devices=[device])
    sender = Sender(pool=shared_pool(), clients=ClientRegistry(), rng=Random(1))
    released = release_next(device_id=device.pk)
    simulator.add_faults({"fault": "error", "status": 503, "phase": "before", "count": 1})
    assert sender.send(message_id=released.message_id, release_no=released.release_no) is Result.DONE
    wait_until(lambda: len(told) == 1 + staleness.TIMES, what="the same outcome again")
    assert Message.objects.get().state == State.PENDING
    assert (Attempt.objects.get().outcome, Stream.objects.get(batch=batch).waiting) == ("temporary", 1)
