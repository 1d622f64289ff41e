from __future__ import annotations

from datetime import timedelta

import pytest
from django.utils import timezone

from leads.models import Lead
from messaging.dispatch.release import release_next
from messaging.models import Attempt, Batch, Message, Stream
from messaging.retrying import failed_of_batch, retry_failed
from messaging.services import wrap_up
from messaging.states import State
from tests.api_support import V1, caller
from tests.factories import make_batch, make_device, make_user, messages_of

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def failing(sender, simulator, settings):
    """A batch of four whose messages have failed: two refused for good, two after their attempts were used up."""
    settings.FLOTILLA_RETRY_MINUTES = []
    owner = make_user()
    device = make_device(owner=owner)
    batch = make_batch(owner=owner, devices=[device], leads=4)
    token = device.credentials["token"]
    refused = [message.phone for message in messages_of(batch)[:2]]
    simulator.add_faults(
        *[{"fault": "reject", "device": token, "phone_prefix": phone} for phone in refused],
        {"fault": "error", "status": 503, "phase": "before", "device": token},
    )
    released = release_next(device_id=device.pk)
    sender.carry(message_id=released.message_id, release_no=released.release_no)
    wrap_up(now=timezone.now())
    batch.refresh_from_db()
    assert batch.state == "finished"
    assert {message.state for message in messages_of(batch)} == {State.FAILED}
    simulator.control("DELETE", "faults")
    return batch


def test_all_that_makes_sense_goes_out_again_under_a_new_id(failing, sender, simulator):
    done = retry_failed(message_ids=failed_of_batch(failing.pk), now=timezone.now())
    assert (done.retried, done.left_alone) == (2, {"rejected_for_good": 2})
    failing.refresh_from_db()
    stream = Stream.objects.get()
    assert (failing.state, stream.waiting, stream.failed, stream.is_open) == ("running", 2, 2, True)
    released = release_next(device_id=stream.device_id)
    assert sender.carry(message_id=released.message_id, release_no=released.release_no) == 2
    message = messages_of(failing)[2]
    attempts = list(Attempt.objects.filter(message=message).order_by("release_no"))
    assert (message.state, message.round) == (State.SENT, 2)
    assert [attempt.round for attempt in attempts] == [1, 2]
    assert attempts[0].reference != attempts[1].reference
    assert sum(entry["delivered"] for entry in simulator.ledger()) == 2


def test_a_person_may_insist(failing):
    first = messages_of(failing)[0]
    assert retry_failed(message_ids=[first.pk], now=timezone.now()).retried == 0
    assert retry_failed(message_ids=[first.pk], now=timezone.now(), insist=True).retried == 1


def test_what_makes_no_sense_is_left_alone_with_the_reason(failing):
    messages = messages_of(failing)
    Lead.objects.filter(pk=messages[2].lead_id).update(opted_out_at=timezone.now())
    Message.objects.filter(pk=messages[3].pk).update(state=State.SENT)
    done = retry_failed(message_ids=[message.pk for message in messages], now=timezone.now(), insist=True)
    assert (done.retried, done.left_alone) == (2, {"opted_out": 1, "not_failed": 1})
    Batch.objects.update(expires_at=timezone.now() - timedelta(seconds=1))
    Message.objects.update(state=State.FAILED)
    assert retry_failed(message_ids=[messages[0].pk], now=timezone.now()).left_alone == {"batch_expired": 1}


def test_the_api_retries_what_the_caller_may_see(failing):
    stranger = caller(make_user())
    assert stranger.post(f"{V1}/messages/retry", {"batch": failing.pk}).json() == {"retried": 0, "left_alone": {}}
    owner = caller(failing.owner)
    assert owner.post(f"{V1}/messages/retry", {}).status_code == 400
    one = owner.post(f"{V1}/messages/retry", {"messages": [messages_of(failing)[2].pk]})
    assert (one.status_code, one.json()) == (200, {"retried": 1, "left_alone": {}})
    rest = owner.post(f"{V1}/messages/retry", {"batch": failing.pk}).json()
    assert rest == {"retried": 1, "left_alone": {"rejected_for_good": 2}}
