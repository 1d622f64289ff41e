"""The queue of one device: how deep it is, clearing it, expiring what is old."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta

import pytest
from django.utils import timezone

from messaging import queues
from messaging.dispatch.release import release_due
from messaging.models import Attempt, Message
from messaging.services import wrap_up
from messaging.states import State
from tests.api_support import broker_down
from tests.factories import make_batch, make_device, make_user, messages_of
from tests.messaging.recount import assert_counters_hold

pytestmark = pytest.mark.django_db(transaction=True)


def states(*batches) -> Counter[str]:
    return Counter(message.state for batch in batches for message in messages_of(batch))


def test_depths_clear_and_the_other_devices_messages():
    owner = make_user()
    device, other = make_device(owner=owner), make_device(owner=owner)
    batches = [make_batch(owner=owner, devices=[device, other], leads=6) for _ in range(2)]
    assert release_due() == 2
    found = queues.depths(devices=[device, other])
    assert [found[d.pk].waiting for d in (device, other)] == [6, 6]
    assert [found[d.pk].tasks for d in (device, other)] == [1, 1]
    assert found[device.pk].bytes > 0

    assert queues.clear(device=device) == 6
    assert states(*batches) == {State.CANCELLED: 6, State.PENDING: 5, State.QUEUED: 1}
    assert set(Message.objects.filter(device=device).values_list("error_code", flat=True)) == {"queue_cleared"}
    found = queues.depths(devices=[device, other])
    assert (found[device.pk], found[other.pk].tasks) == (queues.Depth(0, 0, 0), 1)
    assert queues.clear(device=device) == 0
    assert_counters_hold()
    wrap_up(now=timezone.now())


def test_what_may_have_arrived_is_not_called_cancelled():
    device = make_device(owner=make_user())
    batch = make_batch(owner=device.owner, devices=[device], leads=2)
    doubtful = messages_of(batch)[0]
    Message.objects.filter(pk=doubtful.pk).update(attempts=1)
    Attempt.objects.create(
        message=doubtful, device=device, release_no=0, number=1, round=1, reference="r", started_at=timezone.now(),
        outcome="unknown",
    )  # fmt: skip
    assert queues.clear(device=device) == 2
    assert states(batch) == {State.UNKNOWN: 1, State.CANCELLED: 1}
    assert_counters_hold()


def test_only_what_is_old_expires():
    device = make_device(owner=make_user())
    batch = make_batch(owner=device.owner, devices=[device], leads=5)
    now = timezone.now()
    old = [message.pk for message in messages_of(batch)[:2]]
    Message.objects.filter(pk__in=old).update(created_at=now - timedelta(hours=3))
    assert queues.expire_old(device=device, older_than=timedelta(hours=2), now=now) == 2
    assert states(batch) == {State.EXPIRED: 2, State.PENDING: 3}
    assert_counters_hold()


def test_without_a_broker_the_rows_still_tell_and_still_go():
    device = make_device(owner=make_user())
    make_batch(owner=device.owner, devices=[device], leads=3)
    with broker_down():
        assert queues.depths(devices=[device])[device.pk] == queues.Depth(3, None, None)
        assert queues.clear(device=device) == 3
