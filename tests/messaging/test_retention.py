"""What is old goes, a bounded number of rows at a time; what is counted stays, and so does what is not settled."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from leads.models import ConsentEvent, Lead, LeadChange
from messaging import retention, squaring
from messaging.dispatch.release import release_next
from messaging.models import Attempt, Batch, InboundMessage, Message, Stream
from messaging.services import counts_of
from messaging.states import State
from tests.factories import make_batch, make_device, make_user

pytestmark = pytest.mark.django_db(transaction=True)

LONG_AGO = timedelta(days=100)


def keep(settings, **days: float) -> None:
    for kind in ("MESSAGE", "TEXT", "REPLY", "CHANGE"):
        setattr(settings, f"FLOTILLA_KEEP_{kind}_DAYS", days.get(kind.lower()))


def sent_batch(sender, device, *, leads: int) -> Batch:
    batch = make_batch(owner=device.owner, devices=[device], leads=leads)
    while (released := release_next(device_id=device.pk)) is not None:
        sender.send(message_id=released.message_id, release_no=released.release_no)
    return batch


def ended(batch: Batch, *, ago: timedelta = LONG_AGO, expired: bool = True) -> None:
    then = timezone.now() - ago
    expires_at = then if expired else timezone.now() + timedelta(days=300)
    Batch.objects.filter(pk=batch.pk).update(state="finished", finished_at=then, expires_at=expires_at)


def test_messages_of_what_ended_long_ago_go_in_small_steps_and_the_counts_stay(sender, simulator, settings):
    device = make_device(owner=make_user())
    old, young, in_use, unsettled = (sent_batch(sender, device, leads=number) for number in (7, 2, 2, 2))
    waiting = make_batch(owner=device.owner, devices=[device], leads=2)
    for batch in (old, unsettled, waiting):
        ended(batch)
    ended(young, ago=timedelta(days=20))
    ended(in_use, expired=False)  # as the batch of a sequence's step
    Message.objects.filter(batch=unsettled).update(state=State.UNKNOWN)
    Stream.objects.filter(batch=unsettled).update(sent=0, unknown=2)
    before = counts_of([old.pk])[old.pk]
    assert before.sent == 7

    keep(settings)
    now = timezone.now()
    assert retention.let_go(now=now) == {}
    assert Message.objects.filter(batch=old).count() == 7

    keep(settings, message=31)
    cut = now - timedelta(days=31)
    with CaptureQueriesContext(
        connection,
    ) as queries:
        assert retention.empty_batch(before=cut, now=now, at_once=3) == 3
    assert len([each for each in queries if each["sql"].lstrip().startswith(("UPDATE", "WITH", "DELETE"))]) == 2
    assert Message.objects.filter(batch=old).count() == Attempt.objects.filter(message__batch=old).count() == 4
    assert squaring.square(batch_ids=[old.pk]) == [], "half empty is not a mistake"
    assert list(squaring.square_all()) == []
    assert retention.let_go(now=now, at_once=3) == {"messages": 4}
    assert not Message.objects.filter(batch=old).exists()
    assert Attempt.objects.count() == 6
    assert counts_of([old.pk])[old.pk] == before
    assert Batch.objects.filter(emptied_at__isnull=False).get() == old
    assert [Message.objects.filter(batch=batch).count() for batch in (young, in_use, unsettled, waiting)] == [2] * 4

    Stream.objects.filter(batch=unsettled).update(presumed=2)  # a day later nobody asks any more
    assert retention.let_go(now=now) == {"messages": 2}
    assert retention.let_go(now=now) == {"messages": 0}


def test_texts_replies_and_changes_go_by_their_own_age(sender, simulator, settings):
    device = make_device(owner=make_user())
    batch = sent_batch(sender, device, leads=6)
    lead = Lead.objects.filter(owner=device.owner).order_by("pk").first()
    now = timezone.now()
    then = now - LONG_AGO
    attempts = list(Attempt.objects.filter(message__batch=batch).order_by("pk"))
    Attempt.objects.filter(pk__in=[each.pk for each in attempts[:4]]).update(started_at=then)
    for number, at in enumerate([then, then, now]):
        InboundMessage.objects.create(
            gateway="simulator", event_id=str(number), device=device, lead=lead, phone=lead.phone, text="hello",
            written_at=at, received_at=at,
        )  # fmt: skip
        LeadChange.objects.create(lead=lead, kind="edited", channel="api", changed_at=at)
        ConsentEvent.objects.create(lead=lead, kind="given", channel="api", happened_at=at)

    keep(settings, text=31)
    assert retention.let_go(now=now, at_once=3) == {"texts": 4}
    assert [bool(each.text) for each in Attempt.objects.order_by("pk")] == [False] * 4 + [True] * 2
    assert retention.let_go(now=now) == {"texts": 0}, "nothing is looked at twice"
    keep(settings, reply=31, change=31)
    assert retention.let_go(now=now, at_once=1) == {"replies": 2, "changes": 2}
    assert InboundMessage.objects.get().received_at == now
    assert LeadChange.objects.filter(lead=lead).get().changed_at == now
    assert ConsentEvent.objects.filter(lead=lead).count() == 3
    assert Message.objects.filter(batch=batch).count() == 6
