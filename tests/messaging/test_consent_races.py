"""Refusals and caps against claims, in racing threads. ``FLOTILLA_RACES=10000`` runs as many as it says."""

from __future__ import annotations

import os
import threading
from random import Random
from time import monotonic, sleep

import pytest
from django.db import connection
from django.utils import timezone

from devices.clients import ClientRegistry
from leads import optout
from leads.models import ConsentEvent, Lead
from leads.quiet import parse_caps
from messaging.dispatch import courtesy, statements
from messaging.dispatch.pool import Pool
from messaging.dispatch.send import Sender
from messaging.models import Attempt, Message
from messaging.states import State
from tests.api_support import at_once
from tests.factories import make_batch, make_device, make_user, messages_of

pytestmark = pytest.mark.django_db(transaction=True)

RACES = int(os.environ.get("FLOTILLA_RACES", "300"))


def queued(messages: list[Message]) -> list[Message]:
    """The messages as if released all at once, each in a lane of its own."""
    with connection.cursor() as cursor:
        cursor.execute(
            """UPDATE messaging_message m SET state = 'queued', release_no = 1, lane = n.lane, queued_at = now()
               FROM (SELECT id, row_number() OVER (ORDER BY id) AS lane FROM messaging_message
                     WHERE id = ANY(%s)) n WHERE m.id = n.id""",
            [[message.pk for message in messages]],
        )
    return list(Message.objects.filter(pk__in=[message.pk for message in messages]).order_by("pk"))


def claim(sender: Sender, message: Message) -> object:
    job = sender._peek(message.pk, 1)
    return None if job is None else sender._claim(job, "Hello", 0.0)


@pytest.fixture
def pool():
    pool = Pool(size=8)
    yield pool
    pool.close()


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("means", ["stop", "review", "api", "another owner"])
def test_from_the_commit_of_a_refusal_on_nothing_is_claimed(pool, settings, means):
    """Every pair starts together. What the refusing thread sees right after its commit must be how it stays."""
    settings.FLOTILLA_SUPPRESSION_SCOPE = "installation" if means == "another owner" else "owner"
    owner, stranger = make_user(), make_user()
    number = max(RACES // 4, 1)
    batch = make_batch(owner=owner, devices=[make_device(owner=owner)], leads=number)
    messages = queued(messages_of(batch))
    leads = {lead.pk: lead for lead in Lead.objects.filter(owner=owner)}
    clients = ClientRegistry()
    sender, barrier = Sender(pool=pool, clients=clients, rng=Random(1)), threading.Barrier(2)
    seen: dict[int, bool] = {}
    takes_seconds = [0.003]

    def claims() -> None:
        dice = Random(1)
        for message in messages:
            barrier.wait(60)
            sleep(dice.uniform(0, 2 * takes_seconds[0]))  # refusing takes longer than claiming: either may be first
            claim(sender, message)

    def refuses() -> None:
        for message in messages:
            lead = leads[message.lead_id]
            barrier.wait(60)
            now, began = timezone.now(), monotonic()
            if means == "api":
                optout.opt_out(lead=lead, channel=ConsentEvent.Channel.API, now=now)
            else:
                whose = stranger if means == "another owner" else owner
                text = "please stop" if means == "review" else "STOP"
                optout.hear(owner_id=whose.pk, phone=lead.phone, text=text, now=now)
            takes_seconds[0] += (monotonic() - began - takes_seconds[0]) / 10
            seen[message.pk] = Message.objects.filter(pk=message.pk, state=State.SENDING).exists()

    at_once(2, lambda index: (claims, refuses)[index]())
    clients.close()
    claimed = set(Attempt.objects.values_list("message_id", flat=True))
    assert claimed == {pk for pk, was_claimed in seen.items() if was_claimed}
    assert len(seen) == number
    if number >= 50:  # a race in which one side always wins proves nothing
        assert 0 < len(claimed) < number


@pytest.mark.parametrize("text", ["STOP", "please stop"])
def test_a_claim_that_had_begun_before_the_refusal_sees_it(pool, text):
    """The race held open: the claim has its snapshot and waits for its device while the refusal commits."""
    owner = make_user()
    device = make_device(owner=owner, cap_per_day=100)  # a claim that reserves a cap locks the device's row
    (message,) = queued(messages_of(make_batch(owner=owner, devices=[device])))
    clients = ClientRegistry()
    sender, answers = Sender(pool=pool, clients=clients, rng=Random(1)), []
    thread = threading.Thread(target=lambda: answers.append(claim(sender, message)))
    with pool.transaction() as session:
        session.execute(statements.LOCK_DEVICE, {"device": device.pk})
        thread.start()
        ends = monotonic() + 30
        while not waits_for_a_row():
            assert monotonic() < ends, "the claim did not wait"
        optout.hear(owner_id=owner.pk, phone=message.phone, text=text, now=timezone.now())
    thread.join(30)
    clients.close()
    assert answers == [None]
    assert Attempt.objects.count() == 0


def waits_for_a_row() -> bool:
    with connection.cursor() as cursor:
        cursor.execute("SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted AND locktype = 'transactionid')")
        return bool(cursor.fetchone()[0])


def test_two_devices_never_share_a_leads_last_place(pool, settings):
    settings.FLOTILLA_LEAD_CAPS = parse_caps("1/day,3/week")
    owner = make_user()
    devices = [make_device(owner=owner, cap_per_day=5000), make_device(owner=owner), make_device(owner=owner)]
    number = min(max(RACES // 5, 1), 500)
    first = make_batch(owner=owner, devices=devices[:1], leads=number)
    others = [make_batch(owner=owner, devices=[device]) for device in devices[1:]]
    leads = list(Lead.objects.filter(messages__batch=first).order_by("pk"))
    for batch in others:
        Message.objects.filter(batch=batch).delete()
        stream = batch.streams.get()
        Message.objects.bulk_create(
            Message(batch=batch, stream=stream, device=stream.device, lead=lead, phone=lead.phone) for lead in leads
        )
    rows = [queued(messages_of(batch)) for batch in (first, *others)]
    clients = ClientRegistry()
    sender, barrier = Sender(pool=pool, clients=clients, rng=Random(1)), threading.Barrier(3)

    def claims(index: int) -> list[object]:
        found = []
        for message in rows[index]:
            barrier.wait(60)
            found.append(claim(sender, message))
        return found

    answers = list(zip(*at_once(3, claims), strict=True))
    clients.close()
    for at_the_same_lead in answers:
        refused = [answer for answer in at_the_same_lead if isinstance(answer, courtesy.HadEnough)]
        assert len(refused) == 2
        assert {answer.number for answer in refused} == {1}
    assert Attempt.objects.count() == number
