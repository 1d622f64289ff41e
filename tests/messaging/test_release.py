from __future__ import annotations

import threading
from datetime import timedelta

import pytest
from django.db import IntegrityError, connection
from django.utils import timezone

from devices.models import Device, DeviceState
from messaging import services
from messaging.dispatch.release import release_next, release_round
from messaging.models import BatchState, Message, Priority
from messaging.states import IN_FLIGHT, State
from tests.factories import make_batch, make_device, make_pool, make_user, messages_of

pytestmark = pytest.mark.django_db(transaction=True)


def in_flight(device: Device) -> int:
    return Message.objects.filter(device=device, state__in=IN_FLIGHT).count()


def test_one_message_per_lane_in_order():
    owner = make_user()
    single, wide = make_device(owner=owner), make_device(owner=owner, lanes=3)
    first, second = make_batch(owner=owner, devices=[single], leads=3), make_batch(owner=owner, devices=[wide], leads=5)
    looked_at, released = release_round()
    assert looked_at == 2
    expected = [messages_of(first)[0], *messages_of(second)[:3]]
    assert {item.message_id for item in released} == {message.pk for message in expected}
    assert (in_flight(single), in_flight(wide)) == (1, 3)
    assert release_round() == (0, [])


def test_the_database_refuses_a_second_message_in_the_same_lane():
    owner = make_user()
    device = make_device(owner=owner)
    batch = make_batch(owner=owner, devices=[device], leads=2)
    release_round()
    waiting = messages_of(batch)[1]
    with pytest.raises(IntegrityError, match="message_one_in_flight"):
        Message.objects.filter(pk=waiting.pk).update(state=State.QUEUED, lane=0)


@pytest.mark.parametrize("state", [DeviceState.PAUSED, DeviceState.NEEDS_ATTENTION, DeviceState.UNPAIRED])
def test_a_device_that_is_not_able_gets_nothing(state):
    owner = make_user()
    device = make_device(owner=owner, state=state)
    make_batch(owner=owner, devices=[device])
    assert release_round() == (0, [])


def test_an_idle_device_is_not_looked_at():
    owner = make_user()
    make_pool(owner=owner, devices=50)
    assert release_round() == (0, [])


def test_a_resting_device_wakes_when_its_rest_is_over():
    owner = make_user()
    until = timezone.now() + timedelta(hours=1)
    device = make_device(owner=owner, held_until=until)
    make_batch(owner=owner, devices=[device])
    assert release_round() == (1, [])
    device.refresh_from_db()
    assert device.wake_at == until
    assert release_round() == (0, [])


def test_a_message_for_later_sets_the_alarm():
    owner = make_user()
    device = make_device(owner=owner)
    batch = make_batch(owner=owner, devices=[device])
    due = timezone.now() + timedelta(minutes=5)
    Message.objects.filter(batch=batch).update(due_at=due)
    assert release_round() == (1, [])
    device.refresh_from_db()
    assert device.wake_at == due


def test_a_paused_batch_is_passed_over_and_goes_on_when_resumed():
    owner = make_user()
    device = make_device(owner=owner)
    batch = make_batch(owner=owner, devices=[device])
    assert services.pause_batch(batch_id=batch.pk)
    assert release_round() == (1, [])
    assert release_round() == (0, [])
    assert services.resume_batch(batch_id=batch.pk)
    assert len(release_round()[1]) == 1


def test_a_single_message_goes_before_bulk():
    owner = make_user()
    device = make_device(owner=owner)
    make_batch(owner=owner, devices=[device], leads=3)
    single = make_batch(owner=owner, devices=[device], priority=Priority.INTERACTIVE)
    _, (released,) = release_round()
    assert released.message_id == messages_of(single)[0].pk


def test_batches_on_one_device_take_turns():
    owner = make_user()
    device = make_device(owner=owner)
    large = make_batch(owner=owner, devices=[device], leads=20)
    small = make_batch(owner=owner, devices=[device], leads=5)
    served = []
    for _ in range(10):
        released = release_next(device_id=device.pk)
        message = Message.objects.get(pk=released.message_id)
        served.append(message.batch_id)
        Message.objects.filter(pk=message.pk).update(state=State.SENT)
    assert served.count(large.pk) == served.count(small.pk) == 5


def test_each_release_has_a_number_of_its_own():
    owner = make_user()
    device = make_device(owner=owner)
    make_batch(owner=owner, devices=[device])
    first = release_next(device_id=device.pk)
    Message.objects.filter(pk=first.message_id).update(state=State.PENDING)
    second = release_next(device_id=device.pk)
    assert (second.message_id, second.release_no) == (first.message_id, first.release_no + 1)


def test_many_releases_at_once_fill_each_lane_once():
    owner = make_user()
    _, devices = make_pool(owner=owner, devices=40, lanes=2)
    make_batch(owner=owner, devices=devices, leads=400)
    start, found, errors = threading.Barrier(8), [], []

    def run() -> None:
        start.wait()
        try:
            for _ in range(5):
                found.extend(release_round(limit=15)[1])
        except BaseException as error:  # noqa: BLE001 - told to the main thread
            errors.append(error)
        finally:
            connection.close()

    threads = [threading.Thread(target=run) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert not errors
    assert len(found) == len({item.message_id for item in found}) == 80
    assert all(in_flight(device) == 2 for device in devices)


def test_an_ended_batch_releases_nothing_and_fails_what_was_unsent():
    owner = make_user()
    device = make_device(owner=owner)
    batch = make_batch(owner=owner, devices=[device], leads=3)
    release_round()
    assert services.end_batch(batch_id=batch.pk, state=BatchState.FAILED, now=timezone.now(), reason="because")
    assert {m.state for m in messages_of(batch)} == {State.FAILED}
    assert {m.error_text for m in messages_of(batch)} == {"because"}
    counts = services.counts_of([batch.pk])[batch.pk]
    assert (counts.total, counts.failed, counts.pending, counts.queued) == (3, 3, 0, 0)
    assert release_round()[1] == []
