"""Quiet hours and caps per lead over simulated days: the real statements, the real simulator, a clock that jumps."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from random import Random
from zoneinfo import ZoneInfo

import pytest
from django.utils import timezone

from devices.clients import ClientRegistry
from devices.models import Device
from leads import optout
from leads.models import Lead
from leads.quiet import parse_caps, parse_quiet_hours
from messaging import fanout, services
from messaging.dispatch.release import release_next, release_round
from messaging.dispatch.send import Result, Sender
from messaging.models import Attempt, Batch, Message
from messaging.states import State
from messaging.why import why_not_sent
from tests.api_support import V1, caller
from tests.factories import make_batch, make_device, make_user, messages_of
from tests.messaging.test_rhythm import TimeTravelPool, run_until_sent

pytestmark = pytest.mark.django_db(transaction=True)

KUALA_LUMPUR, NEW_YORK = ZoneInfo("Asia/Kuala_Lumpur"), ZoneInfo("America/New_York")


@pytest.fixture
def travel():
    pool = TimeTravelPool()
    yield pool
    pool.close()


def travel_to(pool: TimeTravelPool, zone: ZoneInfo, *, hour: int) -> None:
    """The next time it is that late there."""
    here = pool.now().astimezone(zone)
    then = here.replace(hour=hour, minute=0, second=0, microsecond=0)
    pool.ahead += (then if then > here else then + timedelta(days=1)) - here


def started(batch: Batch) -> list[datetime]:
    return list(
        Attempt.objects.filter(message__batch=batch).order_by("started_at").values_list("started_at", flat=True)
    )


def again_to(batch: Batch, *, device: Device, **fields) -> Batch:
    """Another batch to the same people."""
    made = services.open_batch(
        owner=batch.owner, name="again", content=batch.content, now=timezone.now(), expires_after=timedelta(days=60),
        **fields,
    )  # fmt: skip
    fanout.fill(batch_id=made.pk, leads=Lead.objects.filter(messages__batch=batch), devices=[device.pk])
    made.refresh_from_db()
    return made


def test_at_night_a_message_waits_for_its_leads_morning_and_the_device_goes_on_with_others(simulator, settings, travel):
    settings.FLOTILLA_QUIET_HOURS = parse_quiet_hours("21:00-08:00")
    owner = make_user()
    device = make_device(owner=owner, delay_min_seconds=60, delay_max_seconds=60)
    batch = make_batch(owner=owner, devices=[device], leads=6, expires_after=timedelta(days=9))
    in_new_york = list(Lead.objects.order_by("pk")[:3])  # they come first in the stream
    Lead.objects.filter(pk__in=[lead.pk for lead in in_new_york]).update(time_zone="America/New_York")
    travel_to(travel, KUALA_LUMPUR, hour=11)  # late evening in New York
    began = travel.now()
    run_until_sent(travel, seed=1)
    moments = {a.message.lead_id: a.started_at for a in Attempt.objects.select_related("message")}
    for lead in Lead.objects.order_by("pk"):
        if lead in in_new_york:
            assert 8 <= moments[lead.pk].astimezone(NEW_YORK).hour < 21
        else:  # three messages, a minute apart, at once: nobody stood in their way
            assert moments[lead.pk] - began < timedelta(minutes=4)
    assert {message.attempts for message in messages_of(batch)} == {1}


def test_what_a_person_sends_now_goes_now_unless_told_otherwise(simulator, settings, travel):
    settings.FLOTILLA_QUIET_HOURS = parse_quiet_hours("00:00-23:59")
    settings.FLOTILLA_LEAD_CAPS = parse_caps("1/week")
    owner = make_user()
    device = make_device(owner=owner)
    clients = ClientRegistry()
    sender = Sender(pool=travel, clients=clients, rng=Random(1))

    def single() -> Result:
        services.send_single(owner=owner, phone="+60123456789", text="Hi", now=timezone.now(), device=device)
        released = release_next(device_id=device.pk, pool=travel)
        assert released is not None
        return sender.send(message_id=released.message_id, release_no=released.release_no)

    travel_to(travel, KUALA_LUMPUR, hour=3)
    assert [single() for _ in range(3)] == [Result.DONE] * 3
    settings.FLOTILLA_QUIET_HOURS_SINGLE = parse_quiet_hours("00:00-06:00")
    assert single() is Result.SNOOZED
    message = Message.objects.latest("pk")
    assert (message.state, message.attempts) == (State.PENDING, 0)
    assert message.due_at.astimezone(KUALA_LUMPUR).hour == 6
    device.refresh_from_db()
    assert device.wake_at <= travel.now()  # it is the message that waits
    clients.close()


def test_caps_hold_over_all_campaigns_in_every_rolling_window(simulator, settings, travel):
    settings.FLOTILLA_LEAD_CAPS = parse_caps("1/day,3/week")
    owner = make_user()
    devices = [make_device(owner=owner), make_device(owner=owner, lanes=3)]
    batches = [make_batch(owner=owner, devices=devices[:1], leads=3, expires_after=timedelta(days=60))]
    batches += [again_to(batches[0], device=devices[n % 2]) for n in range(5)]
    run_until_sent(travel, seed=1)
    for lead in Lead.objects.all():
        at = sorted(Attempt.objects.filter(message__lead=lead).values_list("started_at", flat=True))
        assert len(at) == 6
        assert all(later - earlier >= timedelta(days=1) for earlier, later in pairwise(at))
        assert all(at[n + 3] - at[n] >= timedelta(days=7) for n in range(3))
    assert set(Message.objects.values_list("attempts", flat=True)) == {1}


def test_why_tells_of_each(simulator, settings):
    owner = make_user()
    device = make_device(owner=owner)
    batch = make_batch(owner=owner, devices=[device])
    (message,) = messages_of(batch)
    (lead,) = Lead.objects.all()
    night = datetime(2026, 5, 4, 22, 10, tzinfo=KUALA_LUMPUR)

    def why(now=None):
        found = Message.objects.select_related("batch", "device", "lead").get(pk=message.pk)
        return why_not_sent(found, now=now or timezone.now())

    settings.FLOTILLA_QUIET_HOURS = parse_quiet_hours("21:00-08:00")
    Batch.objects.update(expires_at=datetime(2027, 1, 1, tzinfo=UTC))
    Message.objects.update(due_at=night)
    told = why(night)
    assert (told.code, told.until) == ("quiet_hours", datetime(2026, 5, 5, 8, 0, tzinfo=KUALA_LUMPUR))
    assert "22:10" in told.text
    assert "until 08:00" in told.text
    settings.FLOTILLA_QUIET_HOURS = None

    settings.FLOTILLA_LEAD_CAPS = parse_caps("1/day")
    other = again_to(batch, device=device)
    at = timezone.now() - timedelta(hours=1)
    Attempt.objects.create(
        message=messages_of(other)[0], device=device, release_no=1, number=1, reference="r", started_at=at,
        outcome="unknown",
    )  # fmt: skip
    told = why()
    assert (told.code, told.text) == ("lead_capped", f"{lead} had 1 message in the last day, of 1 allowed.")
    assert abs(told.until - at - timedelta(days=1)) < timedelta(seconds=5)
    Attempt.objects.update(outcome="temporary")  # that one did not reach them
    assert why().code != "lead_capped"

    optout.hear(owner_id=owner.pk, phone=lead.phone, text="stop please", now=timezone.now())
    assert why().code == "in_review"
    assert caller(owner).get(f"{V1}/messages/{message.pk}").json()["why"]["code"] == "in_review"


def test_messages_wait_while_their_lead_is_reviewed_and_go_on_afterwards(simulator, settings, travel):
    owner = make_user()
    device = make_device(owner=owner)
    batch = make_batch(owner=owner, devices=[device], leads=2)
    held, other = Lead.objects.order_by("pk")
    optout.hear(owner_id=owner.pk, phone=held.phone, text="stop please", now=timezone.now())
    clients = ClientRegistry()
    sender = Sender(pool=travel, clients=clients, rng=Random(1))

    def tick() -> None:
        for item in release_round(pool=travel)[1]:
            sender.carry(message_id=item.message_id, release_no=item.release_no)

    tick()
    assert [(m.lead_id, m.state, m.attempts) for m in messages_of(batch)] == [
        (held.pk, State.PENDING, 0), (other.pk, State.SENT, 1),
    ]  # fmt: skip
    optout.dismiss_review(lead=held, channel="admin", now=timezone.now())
    travel.ahead += timedelta(minutes=6)
    tick()
    assert messages_of(batch)[0].state == State.SENT
    clients.close()


def test_an_opt_out_is_confirmed_once_where_the_installation_says_so(sender, simulator, settings):
    settings.FLOTILLA_OPT_OUT_REPLY = "You will not hear from us again. {{ name }}"
    owner = make_user()
    device = make_device(owner=owner)
    batch = make_batch(owner=owner, devices=[device])
    (lead,) = Lead.objects.all()
    heard = optout.hear(owner_id=owner.pk, phone=lead.phone, text="STOP", now=timezone.now())
    message = services.confirm_opt_out(heard=heard, device=device, now=timezone.now())
    assert message is not None
    assert services.confirm_opt_out(heard=heard, device=device, now=timezone.now()) is None
    again = optout.hear(owner_id=owner.pk, phone=lead.phone, text="STOP", now=timezone.now())
    assert services.confirm_opt_out(heard=again, device=device, now=timezone.now()) is None
    released = release_next(device_id=device.pk)
    assert released is not None
    sender.carry(message_id=released.message_id, release_no=released.release_no)
    assert list(Attempt.objects.values_list("message_id", "text")) == [(message.pk, settings.FLOTILLA_OPT_OUT_REPLY)]
    assert messages_of(batch)[0].error_code == "opted_out"
