"""Counts per day: taken from counters as they grow, found again in the messages, seen by those who may."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.core.management import call_command
from django.db import connection, transaction
from django.db.models import F
from django.utils import timezone

from devices.models import DeviceShare
from messaging import days
from messaging.days import Day
from messaging.models import DayCount, DayCursor, InboundMessage, Message, Stream
from messaging.retrying import retry_failed
from tests.factories import make_batch, make_device, make_user, messages_of

pytestmark = pytest.mark.django_db


def day_of(device: Any, now: datetime) -> tuple[int, ...]:
    row = DayCount.objects.filter(device=device, day=days.today(now)).first()
    return tuple(getattr(row, name) for name in DayCount.COUNTED) if row else (0, 0, 0, 0, 0)


def happen(message: Message, at: datetime, **news: Any) -> None:
    """One message's row and its stream's counters, as one statement of the dispatch leaves them."""
    Message.objects.filter(pk=message.pk).update(**news)
    names = {"sent_at": "sent", "delivered_at": "delivered", "read_at": "read", "failed_at": "failed"}
    counters = {name: F(name) + 1 for field, name in names.items() if field in news}
    Stream.objects.filter(pk=message.stream_id).update(
        waiting=F("waiting") - int("sent_at" in news or "failed_at" in news), **counters
    )


def reply(device: Any, at: datetime, event: str) -> None:
    InboundMessage.objects.create(
        gateway="simulator", event_id=event, device=device, phone="+60121", text="Hi", written_at=at, received_at=at
    )


def test_what_counters_grow_by_belongs_to_the_day_on_which_a_tick_sees_it() -> None:
    now = datetime(2026, 5, 4, 10, tzinfo=UTC)
    owner = make_user()
    device = make_device(owner=owner)
    first, second, third = messages_of(make_batch(owner=owner, devices=[device], leads=3))
    happen(first, now, state="sent", sent_at=now)
    happen(second, now, state="failed", failed_at=now)
    reply(device, now - timedelta(minutes=1), "one")
    assert days.take_in(now=now)
    assert day_of(device, now) == (1, 0, 0, 1, 1)
    days.take_in(now=now)  # nothing new, nothing added
    assert day_of(device, now) == (1, 0, 0, 1, 1)

    later = now + timedelta(days=1)
    happen(first, later, state="read", delivered_at=later, read_at=later)
    happen(third, later, state="sent", sent_at=later)
    days.take_in(now=later)
    assert (day_of(device, now), day_of(device, later)) == ((1, 0, 0, 1, 1), (1, 1, 1, 0, 0))

    # What failed on a day has failed on it, also when it is sent again afterwards.
    retry_failed(message_ids=[second.pk], now=later)
    days.take_in(now=later)
    assert (day_of(device, now), day_of(device, later)) == ((1, 0, 0, 1, 1), (1, 1, 1, 0, 0))
    found = days.last_days(user=owner, days=3, now=later)
    assert [(day.sent, day.failed, day.replied) for day in found] == [(0, 0, 0), (1, 1, 1), (1, 0, 0)]


def test_a_receipt_long_after_its_batch_ended_is_found_by_the_walk(monkeypatch: pytest.MonkeyPatch) -> None:
    now = timezone.now()
    owner = make_user()
    device = make_device(owner=owner)
    old, *_rest = [make_batch(owner=owner, devices=[device], leads=1) for _ in range(6)]
    (message,) = messages_of(old)
    happen(message, now, state="sent", sent_at=now)
    days.take_in(now=now)
    type(old).objects.update(state="finished", finished_at=now)
    happen(message, now, state="delivered", delivered_at=now)
    monkeypatch.setattr(days, "NEWEST_STREAMS", 1)
    monkeypatch.setattr(days, "WALKED_STREAMS", 2)
    last = Stream.objects.order_by("-pk").values_list("pk", flat=True)[0]
    for _ in range(last // 2 + 1):  # one way through all of them
        days.take_in(now=now)
    assert day_of(device, now) == (1, 1, 0, 0, 0)


def test_a_recount_finds_the_same_and_mends_what_was_wrong() -> None:
    now = timezone.now()
    owner = make_user()
    devices = [make_device(owner=owner), make_device(owner=owner)]
    one, two, three, _four = messages_of(make_batch(owner=owner, devices=devices, leads=4))
    yesterday = now - timedelta(days=1)
    happen(one, now, state="sent", sent_at=yesterday)
    happen(one, now, state="delivered", delivered_at=now)
    happen(two, now, state="failed", failed_at=now)
    reply(devices[1], now, "late")
    call_command("recount_days", days=3)
    truth = sorted(DayCount.objects.values_list("device", "day", *DayCount.COUNTED))
    assert [row[2:] for row in truth if row[0] == devices[0].pk] == [(1, 0, 0, 0, 0), (0, 1, 0, 0, 0)]
    assert [row[2:] for row in truth if row[0] == devices[1].pk] == [(0, 0, 0, 1, 1)]
    days.take_in(now=now + timedelta(minutes=1))  # marks and the place among replies moved along
    assert sorted(DayCount.objects.values_list("device", "day", *DayCount.COUNTED)) == truth

    happen(three, now, state="sent", sent_at=now)
    DayCount.objects.update(sent=77)
    DayCount.objects.create(device=devices[1], day=days.today(yesterday), sent=5)
    days.recount(days=3, now=now)
    mended = {(row.device_id, row.day): row.sent for row in DayCount.objects.all()}
    assert mended == {
        (devices[0].pk, days.today(yesterday)): 1,
        (devices[0].pk, days.today(now)): 1,
        (devices[1].pk, days.today(now)): 0,
    }


@pytest.mark.django_db(transaction=True)
def test_only_one_process_counts_at_a_time() -> None:
    DayCursor.objects.create(pk=DayCursor.ONLY)
    with transaction.atomic(), ThreadPoolExecutor(1) as other:
        DayCursor.objects.select_for_update().get(pk=DayCursor.ONLY)
        assert other.submit(_tick_elsewhere).result(timeout=30) is False
    assert days.take_in(now=timezone.now())


def _tick_elsewhere() -> bool:
    try:
        return days.take_in(now=timezone.now())
    finally:
        connection.close()


def test_days_are_seen_by_their_owner_admins_and_those_whom_a_device_is_shared_with() -> None:
    now = timezone.now()
    owner, member = make_user(), make_user(role="team")
    shared, private = make_device(owner=owner), make_device(owner=owner)
    DeviceShare.objects.create(device=shared, user=member)
    for device, sent in ((shared, 3), (private, 4), (make_device(owner=make_user()), 50)):
        DayCount.objects.create(device=device, day=days.today(now), sent=sent)
    seen = {
        role: days.last_days(user=user, days=1, now=now)[0].sent
        for role, user in {
            "owner": owner, "member": member, "admin": make_user(role="admin"), "ops": make_user(role="ops")
        }.items()
    }  # fmt: skip
    assert seen == {"owner": 7, "member": 3, "admin": 57, "ops": 0}
    assert days.last_days(user=member, days=2, now=now)[0] == Day(days.today(now) - timedelta(days=1))
