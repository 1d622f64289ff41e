"""Replies and refusals against steps that go out, in racing threads. ``FLOTILLA_RACES=10000`` runs as many."""

from __future__ import annotations

import os
import threading
from random import Random
from time import monotonic, sleep

import pytest
from django.db import connection
from django.utils import timezone

from devices.clients import ClientRegistry
from devices.gateways.news import Reply
from leads.models import Lead
from messaging import inbound
from messaging.dispatch.pool import Pool
from messaging.dispatch.send import Sender
from messaging.models import Attempt, Message
from messaging.states import State
from sequences import services, tallies, walking
from sequences.entry import enrol
from sequences.models import Enrolment, EntrySource, Sequence
from tests.api_support import at_once
from tests.factories import make_device, make_leads, make_user

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.timeout(3600)]

RACES = int(os.environ.get("FLOTILLA_RACES", "200"))


@pytest.fixture
def sender():
    pool, clients = Pool(size=8), ClientRegistry()
    yield Sender(pool=pool, clients=clients, rng=Random(1))
    clients.close()
    pool.close()


def a_sequence(number: int) -> tuple[Sequence, list[Lead]]:
    """A sequence whose first step is due at once for so many leads of one device."""
    owner = make_user()
    leads = make_leads(number, owner=owner, device=make_device(owner=owner))
    sequence = Sequence.objects.create(owner=owner, name="Race", delay_min_seconds=0, delay_max_seconds=0)
    sequence.steps.create(position=1, text="Hello", delay_minutes=0)
    services.activate(sequence=sequence, by=owner, now=timezone.now())
    enrol(sequence=sequence, leads=Lead.objects.filter(owner=owner), source=EntrySource.HAND, now=timezone.now())
    return sequence, leads


def release(message_id: int) -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            """UPDATE messaging_message SET state = 'queued', release_no = 1, lane = id %% 30000, queued_at = now()
               WHERE id = %s AND state = 'pending'""",
            [message_id],
        )


def claim(sender: Sender, message_id: int) -> object:
    job = sender._peek(message_id, 1)
    return None if job is None else sender._claim(job, "Hello", 0.0)


def write_back(lead: Lead, text: str) -> None:
    reply = Reply(event_id=f"race-{lead.pk}", device_id=lead.device_id, phone=lead.phone, text=text, at=timezone.now())
    inbound.store_replies(gateway="simulator", replies=[reply], now=timezone.now())


def has_left(lead: Lead) -> bool:
    """As the database says it right after the reply's commit."""
    return Message.objects.filter(lead=lead, state=State.SENDING).exists()


@pytest.mark.parametrize("text", ["Tell me more", "STOP"])
def test_feature_27_from_the_commit_of_a_reply_on_no_step_is_claimed(sender, text):
    number = max(RACES // 2, 1)
    sequence, leads = a_sequence(number)
    walking.walk(now=timezone.now())
    messages = {message.lead_id: message.pk for message in Message.objects.all()}
    for message_id in messages.values():
        release(message_id)
    assert len(messages) == number
    barrier, seen, takes_seconds = threading.Barrier(2), dict[int, bool](), [0.003]

    def claims() -> None:
        dice = Random(1)
        for lead in leads:
            barrier.wait(60)
            sleep(dice.uniform(0, 2 * takes_seconds[0]))  # writing back takes longer than claiming
            claim(sender, messages[lead.pk])

    def replies() -> None:
        for lead in leads:
            barrier.wait(60)
            began = monotonic()
            write_back(lead, text)
            takes_seconds[0] += (monotonic() - began - takes_seconds[0]) / 10
            seen[lead.pk] = has_left(lead)

    at_once_for_long((claims, replies))
    claimed = set(Attempt.objects.values_list("message__lead_id", flat=True))
    assert claimed == {pk for pk, left in seen.items() if left}
    assert len(seen) == number
    if number >= 50:  # a race in which one side always wins proves nothing
        assert 0 < len(claimed) < number
    services.tick(now=timezone.now())
    assert not Enrolment.objects.filter(state="active").exclude(message__state=State.SENDING).exists()
    assert not Message.objects.filter(state__in=[State.PENDING, State.QUEUED]).exists()
    assert tallies.recount(sequence=sequence) == []


def test_feature_27_nor_one_that_the_tick_hands_over_meanwhile(sender):
    """The whole way: hand-over, release and claim on one side, the reply on the other."""
    number = max(RACES // 10, 1)
    _, leads = a_sequence(number)
    barrier, seen, takes_seconds = threading.Barrier(2), dict[int, bool](), [0.01]
    Enrolment.objects.update(look_at=None)

    def sends() -> None:
        for lead in leads:
            Enrolment.objects.filter(lead=lead).update(look_at=timezone.now())
            barrier.wait(60)
            began = monotonic()
            for _ in range(2):
                walking.walk_round(now=timezone.now())
            for message_id in Message.objects.filter(lead=lead).values_list("pk", flat=True):
                release(message_id)
                claim(sender, message_id)
            takes_seconds[0] += (monotonic() - began - takes_seconds[0]) / 10

    def replies() -> None:
        dice = Random(2)
        for lead in leads:
            barrier.wait(60)
            sleep(dice.uniform(0, 1.5 * takes_seconds[0]))
            write_back(lead, "Yes?")
            seen[lead.pk] = has_left(lead)

    at_once_for_long((sends, replies))
    claimed = set(Attempt.objects.values_list("message__lead_id", flat=True))
    assert claimed == {pk for pk, left in seen.items() if left}
    if number >= 100:
        assert 0 < len(claimed) < number


def test_feature_25_walkers_and_entries_at_once_hand_every_step_over_once():
    sequence, leads = a_sequence(60)

    def work(index: int) -> None:
        for _ in range(5):
            enrol(sequence=sequence, leads=Lead.objects.all(), source=EntrySource.API, now=timezone.now())
            walking.walk_round(now=timezone.now(), at_once=7)

    at_once(4, work)
    walking.walk(now=timezone.now())
    assert Enrolment.objects.count() == len(leads)
    assert Message.objects.count() == len(leads)
    assert set(Enrolment.objects.values_list("message__lead_id", flat=True)) == {lead.pk for lead in leads}
    assert tallies.recount(sequence=sequence) == []


def at_once_for_long(works) -> None:
    """As at_once, for as many trials as there are."""
    errors: list[BaseException] = []

    def run(work) -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001 - told to the main thread
            errors.append(error)
        finally:
            connection.close()

    threads = [threading.Thread(target=run, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(3600)
    assert not errors, errors
