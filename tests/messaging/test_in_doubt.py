"""A message that perhaps arrived is never called cancelled, expired or failed, whatever ends it."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.utils import timezone

from messaging import ending, services
from messaging.dispatch import recover
from messaging.dispatch.release import release_next
from messaging.dispatch.send import Result
from messaging.ending import end_leftovers
from messaging.models import Attempt, Batch, BatchState, Message, Stream
from messaging.states import State
from tests.factories import make_batch, make_device, make_user, messages_of

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def batch(sender, simulator) -> Batch:
    """Three messages: one whose first attempt was cut off after acceptance, one that the gateway was too busy for, and
    one untouched."""
    owner = make_user()
    device = make_device(owner=owner)
    batch = make_batch(owner=owner, devices=[device], leads=3)
    doubtful, busy, _ = messages_of(batch)
    simulator.add_faults(
        {"fault": "reset", "phase": "after", "phone_prefix": doubtful.phone},
        {"fault": "error", "status": 503, "phase": "before", "phone_prefix": busy.phone},
    )
    for _ in range(2):
        released = release_next(device_id=device.pk)
        sender.send(message_id=released.message_id, release_no=released.release_no)
    assert list(Attempt.objects.order_by("pk").values_list("outcome", flat=True)) == ["unknown", "temporary"]
    assert {message.state for message in messages_of(batch)} == {State.PENDING}
    simulator.control("DELETE", "faults")
    return batch


def counters(batch: Batch) -> dict[str, int]:
    stream = Stream.objects.get(batch=batch)
    assert stream.is_open == (stream.waiting > 0)
    return {name: getattr(stream, name) for name in ("total", *Stream.COUNTERS) if getattr(stream, name)}


@pytest.mark.parametrize(
    ("end", "state"), [("cancelled", State.CANCELLED), ("failed", State.FAILED), ("expired", State.EXPIRED)]
)
def test_what_ends_a_batch_leaves_what_is_in_doubt_unknown(batch, end, state):
    if end == "expired":
        Batch.objects.update(expires_at=timezone.now() - timedelta(seconds=1))
        assert services.wrap_up(now=timezone.now())[0] == 3
    else:
        assert services.end_batch(
            batch_id=batch.pk, state=BatchState(end), now=timezone.now(), reason="Ended by the test."
        )
    assert [message.state for message in messages_of(batch)] == [State.UNKNOWN, state, state]
    doubtful = messages_of(batch)[0]
    assert (doubtful.error_code, bool(doubtful.error_text)) == ("run_failed" if end == "failed" else end, True)
    assert counters(batch) == {"total": 3, "unknown": 1, end: 2}


def test_an_opt_out_after_a_doubtful_attempt_does_not_say_that_nothing_arrived(batch, sender):
    message = messages_of(batch)[0]
    Message.objects.filter(pk=message.pk).update(due_at=timezone.now() - timedelta(hours=1))
    released = release_next(device_id=message.device_id)
    assert released.message_id == message.pk
    message.lead.opted_out_at = timezone.now()
    message.lead.save()
    assert sender.send(message_id=released.message_id, release_no=released.release_no) is Result.ENDED
    message.refresh_from_db()
    assert (message.state, message.error_code) == (State.UNKNOWN, "opted_out")
    assert counters(batch) == {"total": 3, "unknown": 1, "waiting": 2}


def test_a_new_round_forgets_the_old_rounds_doubt(batch):
    message = messages_of(batch)[0]
    Message.objects.filter(pk=message.pk).update(round=2)
    services.end_batch(batch_id=batch.pk, state=BatchState.CANCELLED, now=timezone.now())
    message.refresh_from_db()
    assert message.state == State.CANCELLED


def test_what_comes_back_to_a_batch_that_has_ended_ends_too(batch, sender):
    message = messages_of(batch)[2]
    released = release_next(device_id=message.device_id)
    job = sender._peek(released.message_id, released.release_no)
    assert sender._claim(job, "Hello", 0.0)
    services.end_batch(batch_id=batch.pk, state=BatchState.CANCELLED, now=timezone.now(), reason="Enough.")
    Message.objects.filter(pk=message.pk).update(lease_until=timezone.now() - timedelta(seconds=1))
    assert recover.expire_leases() == 1  # to be sent again, but its batch is over
    assert counters(batch)["waiting"] == 1
    assert end_leftovers(now=timezone.now()) == 1
    message.refresh_from_db()
    assert (message.state, message.error_text) == (State.UNKNOWN, "Enough.")
    assert counters(batch) == {"total": 3, "unknown": 2, "cancelled": 1}
    assert end_leftovers(now=timezone.now()) == 0


def test_a_large_batch_ends_piece_by_piece_and_the_tick_ends_the_rest(monkeypatch):
    monkeypatch.setattr(ending, "STREAMS_AT_ONCE", 2)
    monkeypatch.setattr(ending, "MESSAGES_PER_STREAM", 3)
    owner = make_user()
    batch = make_batch(owner=owner, devices=[make_device(owner=owner) for _ in range(5)], leads=40)
    assert (
        ending.end_unsent(batch_id=batch.pk, state=State.CANCELLED, code="cancelled", text="Enough.", seconds=0) == 6
    )  # no time for more than one piece
    assert services.end_batch(batch_id=batch.pk, state=BatchState.CANCELLED, now=timezone.now(), reason="Enough.")
    assert set(Message.objects.values_list("state", flat=True)) == {State.CANCELLED}
    assert services.counts_of([batch.pk])[batch.pk].cancelled == 40
    assert not Stream.objects.filter(is_open=True).exists()
    assert end_leftovers(now=timezone.now()) == 0
