from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from random import Random

import pytest
from django.db import connection, connections, transaction
from django.db.models import Count, Q
from django.utils import timezone

from devices.clients import ClientRegistry
from devices.models import Device
from leads.models import Lead
from messaging import halting, services
from messaging.dispatch.convoy import Convoy
from messaging.dispatch.pool import Pool
from messaging.dispatch.release import release_round
from messaging.dispatch.send import Sender
from messaging.models import Attempt, Message, Stream
from messaging.states import State
from tests.factories import make_batch, make_device, make_user, messages_of

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def convoy(pool: Pool) -> Convoy:
    return Convoy(pool=pool)


def claims_of(messages: list[Message], *, gap: float = 0.0) -> list[dict]:
    return [
        {
            "message": message.pk,
            "release_no": message.release_no,
            "device": message.device_id,
            "lease_seconds": 60,
            "gap_seconds": gap,
            "reference": f"ref-{message.pk}",
            "text": f"text of {message.pk}",
            "warm_up_cap": None,
        }
        for message in messages
    ]


def records_of(messages: list[Message], *, gap: float = 0.0) -> list[dict]:
    return [
        {
            "message": message.pk,
            "release_no": message.release_no,
            "device": message.device_id,
            "gap_seconds": gap,
            "external_id": f"ext-{message.pk}",
        }
        for message in messages
    ]


def queued_on(device: Device, *, number: int, **fields) -> list[Message]:
    """Messages of one batch, released to every lane of the device."""
    batch = make_batch(owner=device.owner, devices=[device], leads=number, **fields)
    release_round()
    return [message for message in messages_of(batch) if message.state == State.QUEUED]


class Holding:
    """A transaction of somebody else that holds a row."""

    def __init__(self, row) -> None:
        self._row, self._held, self._let_go = row, threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._hold)

    def _hold(self) -> None:
        try:
            with transaction.atomic():
                type(self._row).objects.select_for_update().get(pk=self._row.pk)
                self._held.set()
                self._let_go.wait(30)
        finally:
            connections.close_all()

    def __enter__(self) -> None:
        self._thread.start()
        assert self._held.wait(30)

    def __exit__(self, *_: object) -> None:
        self._let_go.set()
        self._thread.join()


def assert_counters_square() -> None:
    for stream in Stream.objects.all():
        of_state = {
            name: Count("pk", filter=Q(state__in=states))
            for name, states in {
                "waiting": ["pending", "queued", "sending"],
                "sent": ["sent", "delivered", "read"],
                "unknown": ["unknown"],
            }.items()
        }
        recount = Message.objects.filter(stream=stream).aggregate(**of_state)
        assert recount == {name: getattr(stream, name) for name in recount}
        assert stream.is_open == (stream.waiting > 0)


def test_what_somebody_holds_is_left_out_and_delays_nobody(convoy):
    device = make_device(owner=make_user(), lanes=5)
    free, held, lead_held, opted_out, stale = queued_on(device, number=5)
    Lead.objects.filter(pk=opted_out.lead_id).update(opted_out_at=timezone.now())
    stale.release_no -= 1
    asked = claims_of([free, held, lead_held, opted_out, stale])
    with Holding(held), Holding(lead_held.lead):
        assert convoy.claim_all(asked, paced=False) == [(1, False), None, None, None, None]
    # what was only held is there for the next one
    assert convoy.claim_all(asked, paced=False) == [None, (1, False), (1, False), None, None]
    assert set(Attempt.objects.values_list("message", "reference", "text")) == {
        (message.pk, f"ref-{message.pk}", f"text of {message.pk}") for message in (free, held, lead_held)
    }
    states = dict(Message.objects.values_list("pk", "state"))
    assert [states[m.pk] for m in (free, held, lead_held, opted_out, stale)] == ["sending"] * 3 + ["queued"] * 2


@pytest.mark.parametrize("stop", ["halt", "pause", "device"])
def test_nothing_is_claimed_once_it_was_stopped(convoy, stop):
    device = make_device(owner=make_user(), lanes=2)
    messages = queued_on(device, number=2)
    match stop:
        case "halt":
            halting.halt(by=device.owner, now=timezone.now(), reason="test")
        case "pause":
            services.pause_batch(batch_id=messages[0].batch_id)
        case "device":
            Device.objects.update(state="paused")
    assert convoy.claim_all(claims_of(messages), paced=False) == [None, None]
    assert convoy.claim_all(claims_of(messages[:1]), paced=True) == [None]
    assert not Attempt.objects.exists()


def test_devices_with_a_rhythm_reserve_it_and_caps_hold(convoy):
    owner = make_user()
    resting, capped = make_device(owner=owner), make_device(owner=owner, cap_per_hour=1)
    for _ in range(2):
        asked = []
        for device in (resting, capped):
            Device.objects.filter(pk=device.pk).update(next_send_at=None)
            asked += queued_on(device, number=1)
        answers = convoy.claim_all(claims_of(asked, gap=30), paced=True)
        assert convoy.record_sent_all(records_of(asked, gap=30)) == [None if a is None else () for a in answers]
    assert answers == [(1, False), None]
    assert Attempt.objects.filter(device=capped).count() == 1
    for device in Device.objects.all():
        assert device.next_send_at is None or device.next_send_at > timezone.now()
    assert Device.objects.get(pk=resting.pk).wake_at == Device.objects.get(pk=resting.pk).next_send_at
    assert_counters_square()


def test_records_count_every_row_once_whatever_its_state(convoy):
    owner = make_user()
    first, second = make_device(owner=owner, lanes=4), make_device(owner=owner, lanes=2)
    messages = queued_on(first, number=4) + queued_on(second, number=2)
    assert None not in convoy.claim_all(claims_of(messages), paced=False)
    late, gone = messages[1], messages[2]
    for message, state in ((late, State.UNKNOWN), (gone, State.FAILED)):
        Message.objects.filter(pk=message.pk).update(state=state)
        column = "unknown" if state == State.UNKNOWN else "failed"
        with connection.cursor() as cursor:
            cursor.execute(
                f"UPDATE messaging_stream SET waiting = waiting - 1, {column} = {column} + 1 WHERE id = %s",  # noqa: S608
                [message.stream_id],
            )
    answers = convoy.record_sent_all(records_of(messages))
    assert answers == [(), (), None, (), (), ()]
    assert convoy.record_sent_all(records_of(messages)) == [None] * 6
    sent = Message.objects.filter(state=State.SENT)
    assert set(sent.values_list("pk", "external_id")) == {(m.pk, f"ext-{m.pk}") for m in messages if m != gone}
    assert set(Attempt.objects.values_list("outcome", flat=True)) == {"accepted", ""}
    assert_counters_square()


def test_lanes_are_handed_what_is_due_and_no_more(convoy):
    owner = make_user()
    lanes, idle, held = make_device(owner=owner, lanes=3), make_device(owner=owner), make_device(owner=owner)
    batch = make_batch(owner=owner, devices=[lanes], leads=2)
    make_batch(owner=owner, devices=[held])
    with Holding(held):
        answers = convoy.hand_over_all([lanes.pk, idle.pk, lanes.pk, held.pk, lanes.pk])
    rows = [answer[0] for answer in (answers[0], answers[2])]
    assert [row[0] for row in rows] == [message.pk for message in messages_of(batch)]
    assert (answers[1], answers[3], answers[4]) == ((), None, ())
    assert sorted(Message.objects.filter(state=State.QUEUED).values_list("lane", flat=True)) == [0, 1]
    assert Device.objects.get(pk=idle.pk).wake_at is None


def test_many_threads_on_one_device_send_everything_once(pool, simulator):
    device = make_device(owner=make_user(), lanes=16)
    batch = make_batch(owner=device.owner, devices=[device], leads=300)
    released = release_round()[1]
    clients, convoy = ClientRegistry(), Convoy(pool=pool)

    def carry(number: int) -> int:
        sender = Sender(pool=pool, clients=clients, rng=Random(number), convoy=convoy)
        item = released[number % len(released)]  # every task comes twice
        return sender.carry(message_id=item.message_id, release_no=item.release_no)

    with ThreadPoolExecutor(32) as threads:
        carried = sum(threads.map(carry, range(2 * len(released))))
    clients.close()
    assert carried >= 300
    assert sorted(entry["message"] for entry in simulator.landed(device.credentials["token"])) == [
        message.pk for message in messages_of(batch)
    ]
    assert set(Message.objects.values_list("state", flat=True)) == {State.SENT}
    assert_counters_square()
