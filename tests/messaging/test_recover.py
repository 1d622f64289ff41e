from __future__ import annotations

from datetime import timedelta

import pytest
from django.utils import timezone

from devices.gateways import registry
from messaging import squaring
from messaging.dispatch import recover
from messaging.dispatch import statements as sql
from messaging.dispatch.pool import shared_pool
from messaging.dispatch.release import release_next
from messaging.ending import end_leftovers
from messaging.models import Attempt, Batch, BatchState, Message, Stream
from messaging.services import counts_of, end_batch, wrap_up
from messaging.states import State
from tests.api_support import at_once
from tests.factories import make_batch, make_device, make_user, messages_of

pytestmark = pytest.mark.django_db(transaction=True)


def claim(device, released):
    """What a worker does before it dies: the claim, and nothing after it."""
    rows = shared_pool().execute(
        sql.CLAIM_FREE,
        {
            "message": released.message_id, "release_no": released.release_no, "device": device.pk,
            "lease_seconds": 60, "gap_seconds": 0, "reference": "r", "text": "t", "warm_up_cap": None,
        },
    )  # fmt: skip
    assert rows == [(1, False)]


def lapse(message_id: int) -> None:
    Message.objects.filter(pk=message_id).update(lease_until=timezone.now() - timedelta(seconds=1))


@pytest.fixture
def plain_gateway(monkeypatch):
    """The simulator as if it did not drop repeats, like every real gateway."""
    monkeypatch.setattr(type(registry.driver_for("simulator")), "id_semantics", "none")


@pytest.mark.usefixtures("plain_gateway")
def test_a_worker_that_died_after_its_claim_leaves_an_unknown_and_frees_the_lane():
    owner = make_user()
    device = make_device(owner=owner)
    batch = make_batch(owner=owner, devices=[device], leads=2)
    released = release_next(device_id=device.pk)
    claim(device, released)
    assert recover.expire_leases() == 0
    lapse(released.message_id)
    assert recover.expire_leases() == 1
    assert [message.state for message in messages_of(batch)] == [State.UNKNOWN, State.PENDING]
    stream = Stream.objects.get()
    assert (stream.waiting, stream.unknown, stream.is_open) == (1, 1, True)
    assert Attempt.objects.get().outcome == "unknown"
    assert release_next(device_id=device.pk).message_id == messages_of(batch)[1].pk


def test_where_the_gateway_drops_repeats_it_is_sent_again():
    owner = make_user()
    device = make_device(owner=owner)
    make_batch(owner=owner, devices=[device])
    released = release_next(device_id=device.pk)
    claim(device, released)
    lapse(released.message_id)
    assert recover.expire_leases() == 1
    again = release_next(device_id=device.pk)
    assert (again.message_id, again.release_no) == (released.message_id, released.release_no + 1)


@pytest.mark.usefixtures("plain_gateway")
def test_a_frozen_worker_may_still_tell_the_truth_about_an_unknown():
    owner = make_user()
    device = make_device(owner=owner)
    batch = make_batch(owner=owner, devices=[device])
    released = release_next(device_id=device.pk)
    claim(device, released)
    lapse(released.message_id)
    recover.expire_leases()
    record(device, released, "sent")
    assert messages_of(batch)[0].state == State.SENT
    stream = Stream.objects.get()
    assert (stream.sent, stream.unknown, stream.waiting) == (1, 0, 0)


def test_a_frozen_worker_may_still_spare_a_message_from_being_sent_again():
    owner = make_user()
    device = make_device(owner=owner)
    batch = make_batch(owner=owner, devices=[device])
    released = release_next(device_id=device.pk)
    claim(device, released)
    lapse(released.message_id)
    recover.expire_leases()
    record(device, released, "failed")  # of one attempt: the next is due all the same
    assert messages_of(batch)[0].state == State.PENDING
    record(device, released, "sent")
    assert messages_of(batch)[0].state == State.SENT
    stream = Stream.objects.get()
    assert (stream.sent, stream.waiting, stream.is_open) == (1, 0, False)
    assert release_next(device_id=device.pk) is None


def test_a_frozen_worker_writes_nothing_over_a_later_release():
    owner = make_user()
    device = make_device(owner=owner)
    batch = make_batch(owner=owner, devices=[device])
    released = release_next(device_id=device.pk)
    claim(device, released)
    lapse(released.message_id)
    recover.expire_leases()
    later = release_next(device_id=device.pk)
    record(device, released, "failed")
    (message,) = messages_of(batch)
    assert (message.state, message.release_no) == (State.QUEUED, later.release_no)
    assert Stream.objects.get().failed == 0


def record(device, released, state: str) -> None:
    shared_pool().execute(
        sql.RECORD,
        {
            "message": released.message_id, "release_no": released.release_no, "device": device.pk, "state": state,
            "outcome": "x", "wait_seconds": 0, "free": False, "external_id": "", "error_code": "", "error_text": "",
            "gap_seconds": 0,
        },
    )  # fmt: skip


def test_what_is_queued_for_too_long_is_taken_back():
    owner = make_user()
    device = make_device(owner=owner)
    batch = make_batch(owner=owner, devices=[device])
    release_next(device_id=device.pk)
    assert recover.unstick_queued() == 0
    Message.objects.update(queued_at=timezone.now() - timedelta(minutes=6))
    assert recover.unstick_queued() == 1
    (message,) = messages_of(batch)
    assert (message.state, message.attempts) == (State.PENDING, 0)
    assert release_next(device_id=device.pk).message_id == message.pk


def test_what_is_queued_for_too_long_fails_where_that_is_the_policy(settings):
    settings.FLOTILLA_STUCK_QUEUED_POLICY = "failed"
    owner = make_user()
    device = make_device(owner=owner, lanes=2)
    batch = make_batch(owner=owner, devices=[device], leads=4)
    for _ in range(3):
        release_next(device_id=device.pk)
    one, doubtful, *_ = messages_of(batch)
    Message.objects.filter(pk=doubtful.pk).update(attempts=1)
    Attempt.objects.create(
        message=doubtful, device=device, release_no=0, number=1, reference="r", started_at=timezone.now(),
        outcome="unknown",
    )  # fmt: skip
    assert recover.unstick_queued() == 0
    Message.objects.update(queued_at=timezone.now() - timedelta(minutes=6))
    assert sum(at_once(3, lambda _: recover.unstick_queued())) == 2
    assert [message.state for message in messages_of(batch)] == [
        State.FAILED, State.UNKNOWN, State.PENDING, State.PENDING
    ]  # fmt: skip
    one.refresh_from_db()
    assert (one.error_code, one.attempts, bool(one.error_text)) == ("stuck_queued", 0, True)
    assert squaring.square(batch_ids=[batch.pk], correct=False) == []
    assert {release_next(device_id=device.pk).message_id for _ in range(2)} == {
        message.pk for message in messages_of(batch)[2:]
    }


def test_workers_that_start_at_once_recover_once():
    owner = make_user()
    devices = [make_device(owner=owner) for _ in range(5)]
    batch = make_batch(owner=owner, devices=devices, leads=5)
    for device in devices:
        claim(device, release_next(device_id=device.pk))
    Message.objects.update(lease_until=timezone.now() - timedelta(seconds=1))
    assert any(at_once(8, lambda _: recover.at_start()))
    assert {message.state for message in messages_of(batch)} == {State.PENDING}
    assert recover.at_start()
    assert squaring.square(batch_ids=[batch.pk], correct=False) == []


def test_a_sleeping_device_with_work_is_woken():
    owner = make_user()
    device, idle = make_device(owner=owner), make_device(owner=owner)
    make_batch(owner=owner, devices=[device])
    type(device).objects.update(wake_at=None)
    assert recover.wake_sleepers() == 1
    idle.refresh_from_db()
    assert idle.wake_at is None


def test_a_finished_batch_that_has_something_to_send_again_is_opened():
    owner = make_user()
    device = make_device(owner=owner)
    batch = make_batch(owner=owner, devices=[device])
    Batch.objects.update(state="finished")
    recover.wake_sleepers()
    batch.refresh_from_db()
    assert batch.state == "running"


def test_batches_finish_and_expire():
    owner = make_user()
    device = make_device(owner=owner)
    done, late = make_batch(owner=owner, devices=[device]), make_batch(owner=owner, devices=[device], leads=3)
    released = release_next(device_id=device.pk)
    claim(device, released)
    record(device, released, "sent")
    Batch.objects.filter(pk=late.pk).update(expires_at=timezone.now() - timedelta(seconds=1))
    assert wrap_up(now=timezone.now()) == (3, 2)
    assert counts_of([done.pk, late.pk])[late.pk].expired == 3
    assert {message.state for message in messages_of(late)} == {State.EXPIRED}
    assert set(Batch.objects.values_list("state", flat=True)) == {"finished"}


@pytest.mark.parametrize(("ended", "becomes"), [("cancelled", State.CANCELLED), ("failed", State.FAILED)])
def test_a_send_that_comes_back_after_its_batch_has_ended_ends_with_it(ended, becomes):
    owner = make_user()
    device = make_device(owner=owner)
    batch = make_batch(owner=owner, devices=[device], leads=2)
    released = release_next(device_id=device.pk)
    claim(device, released)
    end_batch(batch_id=batch.pk, state=BatchState(ended), now=timezone.now(), reason="Because.")
    assert messages_of(batch)[0].state == State.SENDING  # at the gateway: it ends as it ends
    record(device, released, "pending")
    assert release_next(device_id=device.pk) is None
    assert end_leftovers(now=timezone.now()) == 1
    assert [message.state for message in messages_of(batch)] == [becomes, becomes]
    stream = Stream.objects.get()
    assert (stream.waiting, getattr(stream, ended), stream.is_open) == (0, 2, False)
    assert end_leftovers(now=timezone.now()) == 0


def in_doubt(*, device) -> int:
    """A message that waits for another try after an attempt that may have reached the phone; its id."""
    released = release_next(device_id=device.pk)
    claim(device, released)
    lapse(released.message_id)
    recover.expire_leases()
    return released.message_id


@pytest.mark.parametrize("released_again", [False, True])
@pytest.mark.parametrize("ended", ["cancelled", "failed", "expired"])
def test_what_may_have_reached_the_phone_does_not_end_as_unsent(ended, released_again):
    owner = make_user()
    device = make_device(owner=owner)
    batch = make_batch(owner=owner, devices=[device], leads=2)
    doubtful = in_doubt(device=device)
    if released_again:
        release_next(device_id=device.pk)
    if ended == "expired":
        Batch.objects.update(expires_at=timezone.now())
        wrap_up(now=timezone.now())
    else:
        end_batch(batch_id=batch.pk, state=BatchState(ended), now=timezone.now())
    states = {message.pk: message.state for message in messages_of(batch)}
    assert states.pop(doubtful) == State.UNKNOWN
    assert set(states.values()) == {ended}
    stream = Stream.objects.get()
    assert (stream.waiting, stream.unknown, getattr(stream, ended), stream.is_open) == (0, 1, 1, False)
