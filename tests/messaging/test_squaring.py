from __future__ import annotations

import threading
from datetime import timedelta

import pytest
from django.core.management import CommandError, call_command
from django.db import connection, transaction
from django.db.models import F
from django.utils import timezone

from messaging import squaring
from messaging.models import Batch, BatchState, Message, Stream
from messaging.services import end_batch
from messaging.states import State
from tests.factories import make_batch, make_device, make_user, messages_of
from tests.simulator_process import wait_until

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def batch() -> Batch:
    owner = make_user()
    return make_batch(owner=owner, devices=[make_device(owner=owner) for _ in range(2)], leads=6)


def test_differences_are_found_told_and_put_right(batch):
    assert squaring.square(batch_ids=[batch.pk]) == []
    one, *others = messages_of(batch)
    states = [State.SENT, State.READ, State.FAILED, State.UNKNOWN, State.EXPIRED]
    for message, state in zip(others, states, strict=True):
        Message.objects.filter(pk=message.pk).update(state=state)
    Message.objects.filter(state=State.READ).update(delivered_at=timezone.now(), read_at=timezone.now())
    assert len(squaring.square(batch_ids=[batch.pk], correct=False)) == 2
    found = {difference.device_id: difference for difference in squaring.square(batch_ids=[batch.pk])}
    assert found[one.device_id].counters == {
        "waiting": (3, 1), "sent": (0, 1), "delivered": (0, 1), "read": (0, 1), "unknown": (0, 1)
    }  # fmt: skip
    assert found[others[0].device_id].counters == {
        "waiting": (3, 0), "sent": (0, 1), "failed": (0, 1), "expired": (0, 1), "is_open": (1, 0)
    }  # fmt: skip
    assert squaring.square(batch_ids=[batch.pk]) == []
    assert sorted(Stream.objects.values_list("total", "waiting", "is_open")) == [(3, 0, False), (3, 1, True)]


def test_whoever_waits_with_their_counters_finds_the_right_ones(batch):
    """The recount must not see rows whose counters are still to come."""
    stream = Stream.objects.order_by("pk").first()
    Stream.objects.filter(pk=stream.pk).update(waiting=F("waiting") + 5)
    thread = threading.Thread(target=_end, args=(batch.pk,))
    with transaction.atomic():
        (wrong,) = squaring.square(batch_ids=[batch.pk], correct=False)
        Stream.objects.select_for_update(no_key=True).get(pk=stream.pk)
        thread.start()
        wait_until(_somebody_waits, what="the cancel to wait for the stream")
        assert squaring._correct(wrong).counters == {"waiting": (8, 3)}
    thread.join(30)
    assert squaring.square(batch_ids=[batch.pk]) == []
    assert list(Stream.objects.values_list("waiting", "cancelled")) == [(0, 3), (0, 3)]


def _end(batch_id: int) -> None:
    try:
        end_batch(batch_id=batch_id, state=BatchState.CANCELLED, now=timezone.now())
    finally:
        connection.close()


def _somebody_waits() -> bool:
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM pg_locks WHERE NOT granted")
        return cursor.fetchone()[0] > 0


def test_live_batches_have_their_turn_and_ended_ones_are_looked_at_once_more(batch):
    now = timezone.now()
    assert squaring.square_due(now=now) == 0  # too young
    Batch.objects.update(created_at=now - timedelta(hours=1))
    Stream.objects.update(sent=7)
    assert squaring.square_due(now=now) == 1
    assert set(Stream.objects.values_list("sent", flat=True)) == {0}
    assert squaring.square_due(now=now + timedelta(seconds=59)) == 0
    assert squaring.square_due(now=now + timedelta(seconds=61)) == 1
    end_batch(batch_id=batch.pk, state=BatchState.CANCELLED, now=now + timedelta(seconds=70))
    Stream.objects.update(failed=1)
    assert squaring.square_due(now=now + timedelta(seconds=71)) == 1
    assert set(Stream.objects.values_list("failed", flat=True)) == {0}
    assert squaring.square_due(now=now + timedelta(days=1)) == 0


def test_a_large_live_batch_has_its_turn_less_often(batch, monkeypatch):
    monkeypatch.setattr(squaring, "MESSAGES_PER_MINUTE", 2)
    now = timezone.now()
    Batch.objects.update(created_at=now - timedelta(hours=1), squared_at=now)
    assert squaring.square_due(now=now + timedelta(seconds=170)) == 0  # six messages: every three minutes
    assert squaring.square_due(now=now + timedelta(seconds=190)) == 1


def test_a_tick_counts_no_more_than_its_share_and_always_something(batch, monkeypatch):
    other = make_batch(owner=batch.owner, devices=[make_device(owner=batch.owner)], leads=3)
    Batch.objects.update(created_at=timezone.now() - timedelta(hours=1))
    monkeypatch.setattr(squaring, "MESSAGES_PER_TICK", 5)
    assert squaring.square_due(now=timezone.now()) == 1
    assert squaring.square_due(now=timezone.now()) == 1
    assert set(Batch.objects.filter(squared_at__isnull=False)) == {batch, other}


def test_the_command_tells_or_mends(batch, capsys):
    call_command("square_counters", check=True)
    Stream.objects.filter(pk=Stream.objects.first().pk).update(total=4)
    with pytest.raises(CommandError, match="1 streams differ"):
        call_command("square_counters", check=True)
    assert "total 4, counted 3" in capsys.readouterr().out
    call_command("square_counters")
    call_command("square_counters", check=True)
