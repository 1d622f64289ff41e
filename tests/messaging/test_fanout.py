from __future__ import annotations

import threading
from collections import Counter

import pytest
from django.db import connection, transaction
from django.utils import timezone

from leads.audience import Audience
from leads.models import Lead
from messaging import fanout, services
from messaging.models import Message, Stream
from tests.factories import make_batch, make_device, make_leads, make_pool, make_user

pytestmark = pytest.mark.django_db(transaction=True)


def open_batch(owner):
    return services.open_batch(owner=owner, name="b", content={"type": "text", "text": "hi"}, now=timezone.now())


def test_a_pool_takes_turns_across_chunks():
    owner = make_user()
    _, devices = make_pool(owner=owner, devices=3)
    make_leads(20, owner=owner)
    batch = open_batch(owner)
    made = fanout.fill(
        batch_id=batch.pk, leads=Audience(owner_id=owner.pk).reachable(), devices=[d.pk for d in devices], chunk=7
    )
    assert made == 20
    order = list(Message.objects.order_by("lead_id").values_list("device_id", flat=True))
    assert order == [devices[n % 3].pk for n in range(20)]
    batch.refresh_from_db()
    assert batch.filled_at is not None


def test_leads_go_to_their_own_device_and_homeless_ones_are_passed_over():
    owner = make_user()
    first, second = make_device(owner=owner), make_device(owner=owner)
    make_leads(3, owner=owner, device=first)
    make_leads(2, owner=owner, device=second)
    make_leads(4, owner=owner)
    batch = open_batch(owner)
    fanout.fill(batch_id=batch.pk, leads=Audience(owner_id=owner.pk).reachable())
    assert Counter(Message.objects.values_list("device_id", flat=True)) == {first.pk: 3, second.pk: 2}
    assert dict(Stream.objects.values_list("device_id", "waiting")) == {first.pk: 3, second.pk: 2}


def test_devices_are_woken():
    owner = make_user()
    device, idle = make_device(owner=owner), make_device(owner=owner)
    make_batch(owner=owner, devices=[device])
    device.refresh_from_db()
    idle.refresh_from_db()
    assert device.wake_at is not None
    assert idle.wake_at is None


def test_a_crash_between_chunks_is_resumed_without_a_second_message():
    owner = make_user()
    _, devices = make_pool(owner=owner, devices=2)
    make_leads(10, owner=owner)
    batch = open_batch(owner)
    leads, ids = Audience(owner_id=owner.pk).reachable(), [d.pk for d in devices]
    assert fanout.fill_chunk(batch_id=batch.pk, leads=leads, devices=ids, chunk=4) == (False, 4)

    def dies_before_the_commit():
        with transaction.atomic():
            fanout.fill_chunk(batch_id=batch.pk, leads=leads, devices=ids, chunk=4)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        dies_before_the_commit()
    assert Message.objects.count() == 4
    assert fanout.fill(batch_id=batch.pk, leads=leads, devices=ids, chunk=4) == 6
    assert Message.objects.values("phone").distinct().count() == Message.objects.count() == 10
    assert sum(Stream.objects.values_list("waiting", flat=True)) == 10


def test_ten_fan_outs_at_once_make_one_message_per_person():
    owner = make_user()
    _, devices = make_pool(owner=owner, devices=3)
    make_leads(60, owner=owner)
    batch = open_batch(owner)
    ids = [device.pk for device in devices]
    start = threading.Barrier(10)
    errors: list[BaseException] = []

    def run() -> None:
        start.wait()
        try:
            fanout.fill(batch_id=batch.pk, leads=Audience(owner_id=owner.pk).reachable(), devices=ids, chunk=9)
        except fanout.FanOutBusy:
            pass
        except BaseException as error:  # noqa: BLE001 - told to the main thread
            errors.append(error)
        finally:
            connection.close()

    threads = [threading.Thread(target=run) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert not errors
    fanout.fill(batch_id=batch.pk, leads=Audience(owner_id=owner.pk).reachable(), devices=[d.pk for d in devices])
    assert Message.objects.count() == 60
    assert sum(Stream.objects.values_list("total", flat=True)) == 60


def test_who_opted_out_or_never_agreed_is_not_in_the_audience():
    owner, other = make_user(), make_user()
    make_leads(2, owner=owner)
    make_leads(3, owner=owner, consent_at=None)
    make_leads(4, owner=owner, opted_out_at=timezone.now())
    make_leads(5, owner=other)
    audience = Audience(owner_id=owner.pk)
    assert audience.reachable().count() == 2
    assert audience.left_out() == {"opted_out": 4, "no_consent": 3}


def test_tags_match_exactly():
    owner = make_user()
    make_leads(1, owner=owner, niches=["cartoon"])
    (car,) = make_leads(1, owner=owner, niches=["car", "boat"])
    found = Audience(owner_id=owner.pk, niches=("car",)).leads()
    assert [lead.pk for lead in found] == [car.pk]
    assert Lead.objects.count() == 2


def test_a_device_deleted_meanwhile_costs_no_lead():
    owner = make_user()
    _, devices = make_pool(owner=owner, devices=3)
    make_leads(9, owner=owner)
    batch = open_batch(owner)
    known = [device.pk for device in devices]
    devices[1].delete()
    reachable = Audience(owner_id=owner.pk).reachable()
    with pytest.raises(fanout.FanOutBusy, match="deleted"):
        fanout.fill(batch_id=batch.pk, leads=reachable, devices=known)
    assert not Message.objects.exists()
    assert fanout.fill(batch_id=batch.pk, leads=reachable, devices=[known[0], known[2]]) == 9
