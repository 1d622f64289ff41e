from __future__ import annotations

from collections import Counter
from datetime import timedelta

import pytest
from django.utils import timezone

from devices.models import Device
from messaging import halting, squaring
from messaging.dispatch import failover
from messaging.dispatch.release import release_next, release_round
from messaging.models import Attempt, Batch, Message, Stream
from messaging.services import resume_batch
from messaging.states import State
from messaging.why import why_not_sent
from tests.api_support import at_once
from tests.factories import make_batch, make_device, make_pool, make_user, messages_of

pytestmark = pytest.mark.django_db(transaction=True)


def make(number: int = 4, *, leads: int = 12, failover: bool = True) -> tuple[Batch, list[Device]]:
    """A batch over the devices of one pool."""
    owner = make_user()
    _, devices = make_pool(owner=owner, devices=number)
    return make_batch(owner=owner, devices=devices, leads=leads, failover=failover), devices


def breaks(device: Device, **fields) -> None:
    fields = fields or {"state": "needs_attention", "attention_code": "http_401", "state_reason": "logged out"}
    Device.objects.filter(pk=device.pk).update(**fields)


def loads(batch: Batch) -> dict[int, tuple[int, int, bool]]:
    """(total, waiting, is_open) by device; the counters agree with the rows."""
    assert squaring.square(batch_ids=[batch.pk], correct=False) == []
    rows = Stream.objects.filter(batch=batch)
    return {pk: (*rest, is_open) for pk, *rest, is_open in rows.values_list("device_id", "total", "waiting", "is_open")}


def why(message: Message) -> str:
    message = Message.objects.select_related("batch", "device", "lead").get(pk=message.pk)
    return why_not_sent(message, now=timezone.now()).text


def in_minutes(minutes: float):
    return timezone.now() + timedelta(minutes=minutes)


def fail(sender, simulator, device: Device, *, times: int) -> Message:
    """The device's next message fails for now, ``times`` times, and is due again."""
    simulator.add_faults(
        {"fault": "error", "status": 503, "phase": "before", "device": device.credentials["token"], "count": times}
    )
    message = Message.objects.filter(device=device).order_by("pk").first()
    for _ in range(times):
        released = release_next(device_id=device.pk)
        assert released.message_id == message.pk
        sender.send(message_id=released.message_id, release_no=released.release_no)
        Message.objects.filter(pk=message.pk).update(due_at=timezone.now() - timedelta(hours=1))
    message.refresh_from_db()
    return message


@pytest.mark.parametrize(
    "trouble",
    [
        {"state": "needs_attention", "attention_code": "unreachable"},
        {"state": "unpaired"},
        {"held_until": timezone.now() + timedelta(days=1)},
    ],
)
def test_what_waits_for_a_device_that_cannot_send_goes_to_those_with_the_least_to_do(trouble):
    batch, (broken, busy, *rest) = make()
    make_batch(owner=batch.owner, devices=[busy], leads=6)
    breaks(broken, **trouble)
    Device.objects.update(wake_at=None)
    waiting = messages_of(batch)[0]
    assert "Another device of its pool takes it over" in why(waiting)
    assert failover.move_stuck() == 3
    assert loads(batch) == {
        broken.pk: (0, 0, False), busy.pk: (3, 3, True), rest[0].pk: (5, 5, True), rest[1].pk: (4, 4, True)
    }  # fmt: skip
    woken = set(Device.objects.filter(wake_at__isnull=False).values_list("pk", flat=True))
    assert woken == {rest[0].pk, rest[1].pk}
    assert failover.move_stuck() == 0


def test_what_has_moved_is_sent_by_its_new_device(sender, simulator):
    batch, (broken, able) = make(2, leads=4)
    breaks(broken)
    assert failover.move_stuck() == 2
    released = release_next(device_id=able.pk)
    assert sender.carry(message_id=released.message_id, release_no=released.release_no) == 4
    assert Counter(entry["device"] for entry in simulator.ledger()) == {able.credentials["token"]: 4}
    assert loads(batch)[able.pk] == (4, 0, False)


@pytest.mark.parametrize(
    ("trouble", "text"),
    [
        ({"state": "paused"}, "is paused"),
        ({"state": "needs_attention", "attention_code": "banned"}, "a ban moves nothing"),
        ({"held_until": timedelta(minutes=8)}, "rests"),
    ],
)
def test_a_pause_a_ban_and_a_short_rest_move_nothing(trouble, text):
    batch, (broken, *_) = make()
    now = timezone.now()
    breaks(broken, **{name: now + value if isinstance(value, timedelta) else value for name, value in trouble.items()})
    assert failover.move_stuck() == 0
    assert text in why(messages_of(batch)[0])


def test_a_batch_that_keeps_to_its_devices_and_one_that_stands_still_move_nothing():
    batch, (broken, *others) = make(failover=False)
    breaks(broken)
    assert failover.move_stuck() == 0
    assert "its batch moves nothing to another" in why(messages_of(batch)[0])
    Batch.objects.update(failover=True, state="paused")
    assert failover.move_stuck() == 0
    Batch.objects.update(state="running")
    halting.halt(now=timezone.now())
    assert failover.move_stuck() == 0
    halting.resume(now=timezone.now())
    for other in others:
        breaks(other)
    assert failover.move_stuck() == 0
    assert "No other device of its pool" in why(messages_of(batch)[0])
    Device.objects.filter(pk=others[0].pk).update(state="active", pool=None)
    assert failover.move_stuck() == 0


def test_a_message_with_an_attempt_in_doubt_stays_with_the_account_that_may_have_seen_its_id(sender, simulator):
    batch, (broken, able) = make(2, leads=4)
    simulator.add_faults({"fault": "reset", "phase": "after", "device": broken.credentials["token"], "count": 1})
    released = release_next(device_id=broken.pk)
    sender.send(message_id=released.message_id, release_no=released.release_no)
    breaks(broken)
    assert failover.move_stuck() == 1
    message = Message.objects.get(pk=released.message_id)
    assert (message.device_id, message.state) == (broken.pk, State.PENDING)
    assert "may have arrived" in why(message)
    assert loads(batch) == {broken.pk: (1, 1, True), able.pk: (3, 3, True)}


def test_what_failed_twice_for_now_goes_to_a_device_that_has_not_failed_it(sender, simulator):
    batch, (first, second) = make(2, leads=2)
    message = fail(sender, simulator, first, times=1)
    assert failover.move_tired() == 0
    message = fail(sender, simulator, first, times=1)
    assert (failover.move_tired(), failover.move_tired()) == (1, 0)
    message.refresh_from_db()
    assert (message.device_id, message.attempts) == (second.pk, 2)
    assert set(Attempt.objects.values_list("device_id", flat=True)) == {first.pk}
    assert loads(batch) == {first.pk: (0, 0, False), second.pk: (2, 2, True)}
    message = fail(sender, simulator, second, times=2)
    assert failover.move_tired() == 0  # both have failed it now: it stays, and is tried again by its own rhythm
    breaks(second)
    assert failover.move_stuck() == 2  # better a device that failed before than one that cannot
    message.refresh_from_db()
    assert message.device_id == first.pk


def test_a_retry_that_is_far_off_is_not_looked_at_yet(sender, simulator):
    _, (first, _) = make(2, leads=2)
    message = fail(sender, simulator, first, times=2)
    Message.objects.filter(pk=message.pk).update(due_at=in_minutes(15))
    assert failover.move_tired() == 0


def test_ticks_at_once_and_a_release_between_them_move_everything_once():
    batch, devices = make(8, leads=800)
    for device in devices[:4]:
        breaks(device, held_until=in_minutes(60), wake_at=timezone.now())

    def work(index: int) -> int:
        if index < 4:
            return failover.move_stuck()
        for _ in range(20):
            release_round()
            Device.objects.filter(pk__in=[device.pk for device in devices]).update(wake_at=timezone.now())
        return 0

    moved = sum(at_once(6, work))
    moved += failover.move_stuck()
    assert moved == 400
    after = loads(batch)
    assert [after[device.pk][0] for device in devices[:4]] == [0, 0, 0, 0]
    assert sum(total for total, _, _ in after.values()) == 800
    assert max(after[device.pk][0] for device in devices[4:]) - min(after[device.pk][0] for device in devices[4:]) <= 4
    queued = Message.objects.filter(state=State.QUEUED)
    assert queued.count() == queued.values("device").distinct().count() == 4


def test_a_tick_is_bounded_and_the_next_goes_on(monkeypatch):
    monkeypatch.setattr(failover, "MESSAGES_PER_ROUND", 20)
    monkeypatch.setattr(failover, "ROUNDS_PER_POOL", 2)
    batch, (broken, *_) = make(2, leads=120)
    breaks(broken)
    assert [failover.move_stuck() for _ in range(3)] == [40, 20, 0]
    assert loads(batch)[broken.pk] == (0, 0, False)


# -- bans --------------------------------------------------------------------------------------------------------------


def get_banned(sender, simulator, device: Device) -> None:
    simulator.ban(device.credentials["token"])
    released = release_next(device_id=device.pk)
    sender.send(message_id=released.message_id, release_no=released.release_no)
    device.refresh_from_db()
    assert (device.state, device.attention_code) == ("needs_attention", "banned")


def test_the_second_ban_of_a_run_within_the_hour_pauses_it(sender, simulator):
    batch, (first, second, third, _) = make()
    get_banned(sender, simulator, first)
    batch.refresh_from_db()
    assert (batch.state, failover.move_stuck()) == ("running", 0)
    get_banned(sender, simulator, second)
    batch.refresh_from_db()
    assert batch.state == "paused"
    assert first.name in batch.reason
    assert "2 devices were banned" in why(messages_of(batch)[0])
    assert resume_batch(batch_id=batch.pk)  # a person may go on; the next ban stops it again
    batch.refresh_from_db()
    assert (batch.state, batch.reason) == ("running", "")
    get_banned(sender, simulator, third)
    batch.refresh_from_db()
    assert batch.state == "paused"


def test_bans_of_another_run_or_of_another_hour_pause_nothing(sender, simulator):
    batch, (first, second) = make(2)
    other = make_batch(owner=batch.owner, devices=[make_device(owner=batch.owner)], leads=1)
    get_banned(sender, simulator, first)
    get_banned(sender, simulator, other.streams.get().device)
    Attempt.objects.update(started_at=timezone.now() - timedelta(minutes=61))
    get_banned(sender, simulator, second)
    assert set(Batch.objects.values_list("state", flat=True)) == {"running"}
