"""What a chaos run does to the database by its own hand: a rogue releaser, and people who opt out under claims."""

from __future__ import annotations

import threading

import pytest
from django.db import connection

from config.chaos.refusals import opt_out, opt_out_under_claims
from config.chaos.rogue import Rogue
from leads.models import Lead
from messaging.dispatch import statements as sql
from messaging.dispatch.pool import shared_pool
from messaging.dispatch.release import release_next
from messaging.models import Attempt, Batch, Message
from messaging.states import State
from tests.factories import make_batch, make_device, make_user, messages_of
from tests.simulator_process import wait_until

pytestmark = pytest.mark.django_db(transaction=True)


def claim(device, released) -> bool:
    rows = shared_pool().execute(
        sql.CLAIM_FREE,
        {
            "message": released.message_id, "release_no": released.release_no, "device": device.pk,
            "lease_seconds": 60, "gap_seconds": 0, "reference": "r", "text": "t", "warm_up_cap": None,
        },
    )  # fmt: skip
    return bool(rows)


def test_the_index_refuses_a_second_message_in_a_lane_that_is_taken():
    device = make_device(owner=make_user())
    batch = make_batch(owner=device.owner, devices=[device], leads=3)
    release_next(device_id=device.pk)
    rogue = Rogue()
    rogue.start()
    try:
        wait_until(lambda: rogue.refused >= 2, what="refusals")
    finally:
        rogue.end()
        rogue.join()
    assert not rogue.released
    assert [message.state for message in messages_of(batch)] == [State.QUEUED, State.PENDING, State.PENDING]


def test_an_opt_out_sees_every_claim_before_it_and_there_is_none_after_it():
    device = make_device(owner=make_user())
    batch = make_batch(owner=device.owner, devices=[device], leads=2)
    first = release_next(device_id=device.pk)
    assert claim(device, first)
    leads = frozenset(Lead.objects.values_list("pk", flat=True))
    refusal = opt_out(leads)
    assert (refusal.leads, refusal.seen) == (leads, {(first.message_id, first.release_no)})
    Message.objects.filter(pk=first.message_id).update(state=State.SENT)
    second = release_next(device_id=device.pk)
    assert second.message_id == messages_of(batch)[1].pk
    assert not claim(device, second)


def test_a_claim_that_waits_while_its_lead_refuses_is_either_seen_or_fails():
    device = make_device(owner=make_user())
    batch = make_batch(owner=device.owner, devices=[device])
    Batch.objects.filter(pk=batch.pk).update(origin="run-1")
    released = release_next(device_id=device.pk)
    claimed: list[bool] = []
    claimant = threading.Thread(target=lambda: claimed.append(claim(device, released)))

    def held() -> bool:
        with connection.cursor() as cursor:
            cursor.execute("SELECT FROM messaging_message WHERE id = %s FOR UPDATE SKIP LOCKED", [released.message_id])
            return cursor.fetchone() is None

    refusals: list[object] = []

    def refuse() -> None:
        try:
            refusals.append(opt_out_under_claims())
        finally:
            connection.close()

    refusing = threading.Thread(target=refuse)
    refusing.start()
    wait_until(held, what="the lock")
    claimant.start()
    refusing.join()
    claimant.join()
    (refusal,) = refusals
    assert refusal.leads == {Message.objects.get().lead_id}
    assert claimed == [bool(refusal.seen)]
    assert Attempt.objects.count() == len(refusal.seen)


def test_nobody_refuses_while_nothing_is_under_way():
    make_batch(owner=make_user(), devices=[make_device(owner=make_user())])
    assert opt_out_under_claims() is None
    assert not Lead.objects.exclude(opted_out_at=None).exists()
