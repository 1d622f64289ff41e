from __future__ import annotations

import threading
from datetime import timedelta
from random import Random

import pytest
from celery import current_app
from django.db import connection
from django.utils import timezone

from devices.models import Device, DeviceState
from leads.models import Lead
from messaging import services
from messaging.dispatch.publish import Released, all_bells, bell_of
from messaging.dispatch.release import release_next, release_round
from messaging.dispatch.send import Result, Sender
from messaging.models import Attempt, BatchState, Message, Stream
from messaging.states import State
from tests.factories import make_batch, make_device, make_leads, make_user, messages_of

pytestmark = pytest.mark.django_db(transaction=True)


def release_one(device: Device) -> Released:
    released = release_next(device_id=device.pk)
    assert released is not None
    return released


def send(sender: Sender, released: Released) -> Result:
    return sender.send(message_id=released.message_id, release_no=released.release_no)


def counters(batch) -> dict[str, int]:
    stream = Stream.objects.get(batch=batch)
    return {name: getattr(stream, name) for name in Stream.COUNTERS if getattr(stream, name)}


def token(device: Device) -> str:
    return device.credentials["token"]


def test_a_message_reaches_its_phone_and_everything_is_written_down(sender, simulator):
    owner = make_user()
    device = make_device(owner=owner)
    batch = make_batch(owner=owner, devices=[device], text="Hello {{ first_name or 'there' }}")
    released = release_one(device)
    assert send(sender, released) is Result.DONE
    (message,) = messages_of(batch)
    (entry,) = simulator.landed(token(device))
    assert message.state == State.SENT
    assert message.sent_at is not None
    assert (entry["message"], entry["phone"], entry["delivered"]) == (message.pk, message.phone, True)
    attempt = Attempt.objects.get()
    assert (attempt.outcome, attempt.text, attempt.reference) == ("accepted", "Hello Lead", entry["id"])
    assert attempt.external_id == message.external_id != ""
    assert counters(batch) == {"sent": 1}


def test_a_task_that_comes_twice_is_dropped(sender, simulator):
    owner = make_user()
    device = make_device(owner=owner)
    make_batch(owner=owner, devices=[device])
    released = release_one(device)
    assert [send(sender, released) for _ in range(3)] == [Result.DONE, Result.STALE, Result.STALE]
    assert len(simulator.landed(token(device))) == 1


def test_a_late_task_of_an_earlier_release_is_dropped(sender, simulator):
    owner = make_user()
    device = make_device(owner=owner)
    make_batch(owner=owner, devices=[device])
    old = release_one(device)
    Message.objects.filter(pk=old.message_id).update(state=State.PENDING)
    new = release_one(device)
    assert send(sender, old) is Result.STALE
    assert send(sender, new) is Result.DONE
    assert len(simulator.landed(token(device))) == 1


def test_twenty_workers_with_the_same_task_send_once(pool, simulator):
    owner = make_user()
    device = make_device(owner=owner)
    make_batch(owner=owner, devices=[device])
    released, start, results = release_one(device), threading.Barrier(20), []
    from devices.clients import ClientRegistry

    clients = ClientRegistry()

    def run() -> None:
        start.wait()
        results.append(send(Sender(pool=pool, clients=clients, rng=Random()), released))
        connection.close()

    threads = [threading.Thread(target=run) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert results.count(Result.DONE) == 1
    assert len(results) == 20
    assert [entry["delivered"] for entry in simulator.landed(token(device))] == [True]


def test_carrying_goes_on_with_the_devices_next_messages_in_order(sender, simulator):
    owner = make_user()
    device = make_device(owner=owner)
    batch = make_batch(owner=owner, devices=[device], leads=7)
    released = release_one(device)
    assert sender.carry(message_id=released.message_id, release_no=released.release_no) == 7
    order = [entry["message"] for entry in simulator.landed(token(device))]
    assert order == [message.pk for message in messages_of(batch)]
    assert counters(batch) == {"sent": 7}


def test_a_gap_is_reserved_by_the_claim_and_measured_from_the_end_of_the_send(sender, simulator):
    owner = make_user()
    device = make_device(owner=owner, delay_min_seconds=30, delay_max_seconds=30)
    batch = make_batch(owner=owner, devices=[device], leads=2)
    before = timezone.now()
    released = release_one(device)
    assert sender.carry(message_id=released.message_id, release_no=released.release_no) == 1
    device.refresh_from_db()
    sent = messages_of(batch)[0].sent_at
    assert device.next_send_at >= sent + timedelta(seconds=30) > before + timedelta(seconds=30)
    assert device.wake_at == device.next_send_at
    assert release_round() == (0, [])


@pytest.mark.parametrize(
    ("fault", "state", "outcome"),
    [
        ({"fault": "reject", "code": "not_on_whatsapp", "text": "No such number."}, State.FAILED, "rejected"),
        ({"fault": "error", "status": 503, "phase": "before"}, State.PENDING, None),
        ({"fault": "throttle", "retry_after_seconds": 40}, State.PENDING, "throttled"),
        ({"fault": "reset", "phase": "after"}, State.PENDING, "unknown"),  # the simulator provably drops repeats
        ({"fault": "ban"}, State.PENDING, "banned"),
    ],
)
def test_every_answer_has_its_consequence(sender, simulator, fault, state, outcome):
    owner = make_user()
    device = make_device(owner=owner)
    batch = make_batch(owner=owner, devices=[device])
    simulator.add_faults({**fault, "device": token(device)})
    assert send(sender, release_one(device)) is Result.DONE
    (message,) = messages_of(batch)
    assert message.state == state
    if outcome:
        assert Attempt.objects.get().outcome == outcome
    assert message.error_code
    assert counters(batch) == ({"failed": 1} if state == State.FAILED else {"waiting": 1})


def test_a_throttled_device_rests_and_no_attempt_is_counted(sender, simulator):
    owner = make_user()
    device = make_device(owner=owner)
    batch = make_batch(owner=owner, devices=[device])
    simulator.add_faults({"fault": "throttle", "retry_after_seconds": 40, "device": token(device)})
    send(sender, release_one(device))
    device.refresh_from_db()
    assert device.held_until > timezone.now() + timedelta(seconds=30)
    assert messages_of(batch)[0].attempts == 0
    assert release_round()[1] == []


def test_a_logged_out_device_asks_for_attention_and_its_messages_wait(sender, simulator):
    owner = make_user()
    device = make_device(owner=owner)
    batch = make_batch(owner=owner, devices=[device], leads=2)
    simulator.ban(token(device))
    released = release_one(device)
    sender.carry(message_id=released.message_id, release_no=released.release_no)
    device.refresh_from_db()
    assert (device.state, bool(device.state_reason)) == (DeviceState.NEEDS_ATTENTION, True)
    assert {message.state for message in messages_of(batch)} == {State.PENDING}


def test_a_cut_line_after_acceptance_is_resent_with_the_same_id_and_reaches_the_phone_once(sender, simulator, settings):
    settings.FLOTILLA_RETRY_MINUTES = [0, 0, 0, 0, 0]
    owner = make_user()
    device = make_device(owner=owner)
    batch = make_batch(owner=owner, devices=[device])
    simulator.add_faults({"fault": "reset", "phase": "after", "device": token(device), "count": 1})
    released = release_one(device)
    assert sender.carry(message_id=released.message_id, release_no=released.release_no) == 2
    entries = simulator.landed(token(device))
    assert len({entry["id"] for entry in entries}) == 1
    assert [entry["delivered"] for entry in entries] == [True, False]
    assert messages_of(batch)[0].state == State.SENT
    assert list(Attempt.objects.values_list("number", "outcome")) == [(1, "unknown"), (2, "accepted")]


def test_a_refusal_after_a_cut_line_does_not_claim_that_nothing_arrived(sender, simulator, settings):
    settings.FLOTILLA_RETRY_MINUTES = [0, 0, 0, 0, 0]
    owner = make_user()
    device = make_device(owner=owner)
    batch = make_batch(owner=owner, devices=[device])
    simulator.add_faults(
        {"fault": "reset", "phase": "after", "device": token(device), "count": 1},
        {"fault": "reject", "code": "blocked", "text": "Blocked.", "device": token(device)},
    )
    released = release_one(device)
    sender.carry(message_id=released.message_id, release_no=released.release_no)
    assert simulator.landed(token(device))[0]["delivered"] is True
    assert messages_of(batch)[0].state == State.UNKNOWN
    assert counters(batch) == {"unknown": 1}


def test_five_retries_then_failed(sender, simulator, settings):
    settings.FLOTILLA_RETRY_MINUTES = [0, 0, 0, 0, 0]
    owner = make_user()
    device = make_device(owner=owner)
    batch = make_batch(owner=owner, devices=[device])
    simulator.add_faults({"fault": "error", "status": 503, "phase": "before", "device": token(device)})
    released = release_one(device)
    sender.carry(message_id=released.message_id, release_no=released.release_no)
    (message,) = messages_of(batch)
    assert (message.state, message.attempts, Attempt.objects.count()) == (State.FAILED, 6, 6)
    assert counters(batch) == {"failed": 1}


def test_who_opted_out_after_the_release_hears_nothing(sender, simulator):
    owner = make_user()
    device = make_device(owner=owner)
    batch = make_batch(owner=owner, devices=[device])
    released = release_one(device)
    Lead.objects.update(opted_out_at=timezone.now())
    assert send(sender, released) is Result.ENDED
    (message,) = messages_of(batch)
    assert (message.state, message.error_code) == (State.CANCELLED, "opted_out")
    assert simulator.of_device(token(device)) == []
    assert counters(batch) == {"cancelled": 1}


def test_nothing_is_claimed_after_an_opt_out_has_committed(pool, simulator):
    """Racing threads: whatever reached the phone was claimed before the opt-out committed."""
    owner = make_user()
    from devices.clients import ClientRegistry

    clients = ClientRegistry()
    for _ in range(40):
        device = make_device(owner=owner)
        batch = make_batch(owner=owner, devices=[device])
        released, start = release_one(device), threading.Barrier(2)
        lead = Lead.objects.get(messages__batch=batch)
        committed: list[object] = []

        def opt_out(lead=lead, start=start, committed=committed) -> None:
            start.wait()
            Lead.objects.filter(pk=lead.pk).update(opted_out_at=timezone.now())
            committed.append(timezone.now())
            connection.close()

        thread = threading.Thread(target=opt_out)
        thread.start()
        start.wait()
        send(Sender(pool=pool, clients=clients, rng=Random()), released)
        thread.join(10)
        attempt = Attempt.objects.filter(message__batch=batch).first()
        assert attempt is None or attempt.started_at <= committed[0]
        assert bool(simulator.landed(token(device)) if attempt else []) == (attempt is not None)


def test_a_paused_batch_gives_the_message_back_and_costs_no_attempt(sender, simulator):
    owner = make_user()
    device = make_device(owner=owner)
    batch = make_batch(owner=owner, devices=[device])
    released = release_one(device)
    services.pause_batch(batch_id=batch.pk)
    assert send(sender, released) is Result.GIVEN_BACK
    (message,) = messages_of(batch)
    assert (message.state, message.attempts) == (State.PENDING, 0)
    assert counters(batch) == {"waiting": 1}
    assert Attempt.objects.count() == 0


def test_a_cancelled_batch_ends_what_was_released(sender, simulator):
    owner = make_user()
    device = make_device(owner=owner)
    batch = make_batch(owner=owner, devices=[device])
    released = release_one(device)
    services.end_batch(batch_id=batch.pk, state=BatchState.CANCELLED, now=timezone.now())
    assert send(sender, released) is Result.STALE
    assert counters(batch) == {"cancelled": 1}


def test_a_full_cap_rests_the_device_until_there_is_room(sender, simulator):
    owner = make_user()
    device = make_device(owner=owner, cap_per_hour=2)
    batch = make_batch(owner=owner, devices=[device], leads=3)
    released = release_one(device)
    assert sender.carry(message_id=released.message_id, release_no=released.release_no) == 3
    assert [message.state for message in messages_of(batch)] == [State.SENT, State.SENT, State.PENDING]
    device.refresh_from_db()
    first = Attempt.objects.order_by("started_at").first()
    assert abs(device.held_until - first.started_at - timedelta(hours=1)) < timedelta(seconds=5)


def test_a_cap_holds_over_many_lanes(pool, simulator):
    owner = make_user()
    device = make_device(owner=owner, lanes=10, cap_per_day=4)
    make_batch(owner=owner, devices=[device], leads=20)
    from devices.clients import ClientRegistry

    clients = ClientRegistry()
    _, released = release_round()
    assert len(released) == 10
    start = threading.Barrier(10)

    def run(item: Released) -> None:
        start.wait()
        send(Sender(pool=pool, clients=clients, rng=Random()), item)
        connection.close()

    threads = [threading.Thread(target=run, args=(item,)) for item in released]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(simulator.landed(token(device))) == 4


def test_content_that_comes_out_empty_fails_with_the_reason(sender, simulator):
    owner = make_user()
    device = make_device(owner=owner)
    batch = make_batch(owner=owner, devices=[device], text="{{ nickname }}")
    assert send(sender, release_one(device)) is Result.ENDED
    (message,) = messages_of(batch)
    assert (message.state, message.error_code) == (State.FAILED, "content")
    assert "empty" in message.error_text


def test_a_single_message_finds_a_device_and_a_lead(sender, simulator):
    owner = make_user()
    device = make_device(owner=owner)
    message = services.send_single(owner=owner, text="Hi", phone="+60123456789", now=timezone.now())
    assert (message.lead.phone, message.device) == ("+60123456789", device)
    assert send(sender, release_one(device)) is Result.DONE
    assert simulator.landed(token(device))[0]["phone"] == "+60123456789"


def test_a_single_message_says_what_stands_in_its_way():
    owner = make_user()
    (lead,) = make_leads(1, owner=owner, opted_out_at=timezone.now())
    with pytest.raises(services.SendRefused, match="opted out"):
        services.send_single(owner=owner, text="Hi", lead=lead, now=timezone.now())
    with pytest.raises(services.SendRefused, match="No device") as refused:
        services.send_single(owner=owner, text="Hi", phone="+60123456789", now=timezone.now())
    assert refused.value.field == "device"
    with pytest.raises(services.SendRefused) as refused:
        services.send_single(owner=owner, text="Hi", phone="12", now=timezone.now())
    assert refused.value.field == "phone"


def test_after_its_share_a_device_goes_back_through_the_queue(sender, simulator, monkeypatch):
    monkeypatch.setattr("messaging.dispatch.send.CARRY_MESSAGES", 3)
    owner = make_user()
    device = make_device(owner=owner)
    batch = make_batch(owner=owner, devices=[device], leads=5)
    released = release_one(device)
    assert sender.carry(message_id=released.message_id, release_no=released.release_no) == 3
    assert [message.state for message in messages_of(batch)] == [State.SENT] * 3 + [State.QUEUED, State.PENDING]
    with current_app.connection_for_read() as connection_:
        client = connection_.default_channel.client
        assert client.llen(device.queue) == 1
        client.delete(device.queue)


def test_a_device_belongs_to_the_same_bell_for_ever():
    bells = {device_id: bell_of(device_id) for device_id in range(1, 200)}
    assert set(bells.values()) <= set(all_bells())
    assert len(set(bells.values())) == len(all_bells())
    assert bells == {device_id: bell_of(device_id) for device_id in range(1, 200)}


def test_an_opt_out_while_a_repeat_waits_leaves_the_first_try_in_doubt(sender, simulator):
    owner = make_user()
    device = make_device(owner=owner)
    batch = make_batch(owner=owner, devices=[device])
    simulator.add_faults({"fault": "reset", "phase": "after", "count": 1})
    send(sender, release_one(device))
    Message.objects.update(due_at=timezone.now())
    services.wake([device.pk])
    again = release_one(device)
    Lead.objects.update(opted_out_at=timezone.now())
    assert send(sender, again) is Result.ENDED
    (message,) = messages_of(batch)
    assert (message.state, message.error_code) == (State.UNKNOWN, "opted_out")
    assert counters(batch) == {"unknown": 1}
    assert len(simulator.landed(token(device))) == 1
