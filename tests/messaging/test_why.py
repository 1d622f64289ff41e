from __future__ import annotations

from datetime import timedelta

import pytest
from django.utils import timezone

from devices.models import Device
from leads.models import Lead
from messaging import halting
from messaging.dispatch.release import release_next
from messaging.models import Batch, Message
from messaging.states import State
from messaging.why import why_not_sent
from tests.api_support import V1, caller
from tests.factories import make_batch, make_device, make_user, messages_of

pytestmark = pytest.mark.django_db(transaction=True)


def last_of(batch: Batch) -> Message:
    return Message.objects.select_related("batch", "device", "lead").get(pk=messages_of(batch)[-1].pk)


@pytest.fixture
def batch() -> Batch:
    owner = make_user()
    return make_batch(owner=owner, devices=[make_device(owner=owner, name="Sales 1")], leads=3)


def code_of(batch: Batch) -> str | None:
    why = why_not_sent(last_of(batch), now=timezone.now())
    return why.code if why else None


def test_its_turn_has_not_come(batch):
    why = why_not_sent(last_of(batch), now=timezone.now())
    assert (why.code, why.text) == ("waiting_its_turn", "2 of the same batch go before it through Sales 1.")


def test_what_somebody_decided(batch):
    Device.objects.update(state="paused", state_reason="by Ada")
    assert why_not_sent(last_of(batch), now=timezone.now()).text == "Sales 1 is paused: by Ada"
    Device.objects.update(state="needs_attention", state_reason="logged out")
    assert code_of(batch) == "device_not_connected"
    Batch.objects.update(state="paused")
    assert code_of(batch) == "batch_paused"
    Lead.objects.update(opted_out_at=timezone.now())
    Batch.objects.update(state="running")
    assert code_of(batch) == "opted_out"
    halting.halt(now=timezone.now(), reason="drill")
    assert why_not_sent(last_of(batch), now=timezone.now()).text == "Everything is halted: drill."


def test_what_time_will_mend(batch):
    later = timezone.now() + timedelta(minutes=5)
    Device.objects.update(held_until=later, hold_reason="The device's sending cap is reached.")
    why = why_not_sent(last_of(batch), now=timezone.now())
    assert (why.code, why.until) == ("device_rests", later)
    assert "cap" in why.text
    Device.objects.update(held_until=None)
    Message.objects.update(due_at=later)
    assert code_of(batch) == "not_due"
    Message.objects.update(attempts=1, error_text="The gateway was busy.")
    why = why_not_sent(last_of(batch), now=timezone.now())
    assert (why.code, why.until) == ("retry", later)
    assert "busy" in why.text


def test_every_state_has_an_answer_and_what_was_sent_has_none(batch):
    answers = {}
    for state in State:
        Message.objects.filter(pk=last_of(batch).pk).update(state=state, lane=0)
        answers[state] = code_of(batch)
    assert {state for state, code in answers.items() if code is None} == {State.SENT, State.DELIVERED, State.READ}


def test_the_api_tells(batch):
    release_next(device_id=batch.streams.get().device_id)
    client = caller(batch.owner)
    first, last = messages_of(batch)[0], messages_of(batch)[-1]
    assert client.get(f"{V1}/messages/{first.pk}").json()["why"]["code"] == "queued"
    assert client.get(f"{V1}/messages/{last.pk}").json()["why"]["code"] == "waiting_its_turn"
    Message.objects.filter(pk=first.pk).update(state=State.SENT)
    assert client.get(f"{V1}/messages/{first.pk}").json()["why"] is None
