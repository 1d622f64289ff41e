"""Outgoing webhooks, from the change of a row to a real listener."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest
from django.core import mail
from django.core.exceptions import ValidationError
from django.db import transaction
from django.utils import timezone

from config import alerts
from devices.gateways.news import Receipt, Reply
from devices.models import Device, DeviceState
from messaging import receipts, services
from messaging.inbound import store_replies
from messaging.models import BatchState, Message
from messaging.outgoing import delivering, subscribing
from messaging.outgoing.kinds import SUBSCRIBABLE
from messaging.outgoing.models import Delivery, Subscriber
from messaging.states import State
from tests.api_support import V1, at_once, caller, fields_of, problem
from tests.campaigns.support import finish, launched, send_due
from tests.factories import make_batch, make_campaign, make_device, make_leads, make_user
from tests.messaging.outgoing.listener import Listener, fits, listening

ALL = [kind.value for kind in SUBSCRIBABLE]
STATE = Delivery.State


@pytest.fixture
def listener(settings: Any) -> Iterator[Listener]:
    with listening() as found:
        settings.FLOTILLA_OUTGOING_ALLOW = [found.place]
        yield found


@pytest.fixture
def owner(db: Any) -> Any:
    return make_user()


@pytest.fixture
def subscriber(owner: Any, listener: Listener) -> Subscriber:
    """It wants everything; ``secret`` is what its calls are signed with."""
    found = Subscriber(owner=owner, name="mine", url=f"http://{listener.place}/in", kinds=ALL)
    found.secret = found.equip()  # type: ignore[attr-defined]
    found.full_clean()
    found.save()
    return found


def waiting(subscriber: Subscriber, state: str = STATE.WAITING) -> list[tuple[str, int]]:
    rows = Delivery.objects.filter(subscriber=subscriber, state=state).order_by("pk")
    return list(rows.values_list("kind", "subject"))


def happen(owner: Any, number: int) -> list[int]:
    """So many messages are sent; their ids."""
    batch = make_batch(owner=owner, devices=[make_device(owner=owner)], leads=number)
    ids = list(Message.objects.filter(batch=batch).order_by("pk").values_list("pk", flat=True))
    for pk in ids:
        Message.objects.filter(pk=pk).update(state=State.SENT)
    return ids


def clock(**units: float) -> Callable[[], datetime]:
    """A clock that goes on from now and so much later."""
    return lambda: timezone.now() + timedelta(**units)


def deliver(subscriber: Subscriber, **units: float) -> int:
    return delivering.deliver(subscriber_id=subscriber.pk, clock=clock(**units))


def messages_in(listener: Listener) -> list[int]:
    return [event["data"]["message"] for event in listener.events]


# -- What is written down ----------------------------------------------------------------------------------------------


def test_each_change_is_told_to_those_who_asked_and_own_it(owner, subscriber):
    def other(name: str, **fields: Any) -> Subscriber:
        return Subscriber.objects.create(**{"owner": owner, "name": name, "url": "x", "kinds": ALL, **fields})

    failures, off, strange = (
        other("f", kinds=["message.failed"]),
        other("o", enabled=False),
        other("s", owner=make_user()),
    )
    device = make_device(owner=owner)
    first, second = Message.objects.filter(batch=make_batch(owner=owner, devices=[device], leads=2)).order_by("pk")
    for message, states in ((first, ("queued", "sending", "sent", "sent", "read")), (second, ("queued", "failed"))):
        for state in states:
            Message.objects.filter(pk=message.pk).update(state=state, lane=0)
    now = timezone.now()
    reply = Reply(event_id="e1", device_id=device.pk, phone=first.phone, text="Yes please", at=now)
    (heard,) = store_replies(gateway="simulator", replies=[reply], now=now)
    store_replies(gateway="simulator", replies=[reply], now=now)
    Device.objects.filter(pk=device.pk).update(state=DeviceState.NEEDS_ATTENTION, attention_code="banned")
    Device.objects.filter(pk=device.pk).update(state=DeviceState.NEEDS_ATTENTION, state_reason="again")
    assert waiting(subscriber) == [
        ("message.sent", first.pk),
        ("message.read", first.pk),
        ("message.failed", second.pk),
        ("reply.received", heard.inbound_id),
        ("device.needs_attention", device.pk),
    ]
    assert waiting(failures) == [("message.failed", second.pk)]
    assert waiting(off) == waiting(strange) == []


def test_what_is_rolled_back_was_never_told(owner, subscriber):
    with transaction.atomic():
        happen(owner, 1)
        assert waiting(subscriber)
        transaction.set_rollback(True)
    assert waiting(subscriber) == []


@pytest.mark.django_db(transaction=True)
def test_a_campaign_is_told_from_its_first_message_to_its_end(owner, subscriber, listener, simulator, sender):
    """By the product's own statements, over real sockets, in order, signed."""
    device = make_device(owner=owner)
    make_leads(3, owner=owner, device=device)
    run = launched(make_campaign(owner=owner, name="Mondays"))
    batch = services.Batch.objects.get(run=run)
    send_due(sender)
    message = Message.objects.filter(batch=batch, state=State.SENT).order_by("pk").first()
    assert message is not None
    news = Receipt(event_id="r1", status="delivered", at=timezone.now(), external_id=message.external_id)
    assert receipts.apply_receipts(gateway="simulator", receipts=[news]).moved == 1
    finish(run)
    other = make_batch(owner=owner, devices=[device], leads=1)
    services.end_batch(batch_id=other.pk, state=BatchState.CANCELLED, now=timezone.now(), reason="enough")

    assert deliver(subscriber) == 6
    (headers, body), *more = listener.calls
    assert not more
    assert fits(headers, body, subscriber.secret)
    assert not fits(headers, body + b" ", subscriber.secret)
    assert not fits(headers, body, "guess")
    assert [event["type"] for event in listener.events] == [
        *["message.sent"] * 3, "message.delivered", "run.finished", "message.cancelled",
    ]  # fmt: skip
    ended = listener.events[4]["data"]
    assert (ended["campaign_name"], ended["state"], ended["sent"], ended["delivered"]) == ("Mondays", "finished", 3, 1)
    delivered = listener.events[3]["data"]
    assert (delivered["message"], delivered["was"], delivered["phone"]) == (message.pk, "sent", message.phone)
    assert waiting(subscriber) == []
    assert deliver(subscriber) == 0
    assert len(listener.calls) == 1


# -- Calls -------------------------------------------------------------------------------------------------------------


def test_a_failure_holds_the_rest_back_and_the_order_stays(owner, subscriber, listener):
    ids = happen(owner, 3)
    listener.answers = [500, 503, 200]
    assert deliver(subscriber) == 0
    assert deliver(subscriber) == 0  # held: nobody is called
    assert len(listener.calls) == 1
    row = Subscriber.objects.get(pk=subscriber.pk)
    assert (row.failures, row.last_error) == (1, "It answered with HTTP 500.")
    assert row.failing_since
    assert deliver(subscriber, seconds=11) == 0
    assert messages_in(listener) == [*ids, ids[0]]  # after a failure the first goes alone
    assert deliver(subscriber, seconds=75) == 3
    assert messages_in(listener)[4:] == ids
    row.refresh_from_db()
    assert (row.failures, row.failing_since, row.held_until, row.lease_until) == (0, None, None, None)
    assert waiting(subscriber, STATE.DELIVERED) == [("message.sent", pk) for pk in ids]


@pytest.mark.parametrize(
    ("asked", "rest"),
    [
        ("120", 120), ("1", 10), ("-5", 10), ("999999999", 86_400), ("inf", 86_400), ("nan", 10), ("soon", 10),
        ("in an hour", 3600),
    ],
)  # fmt: skip
def test_the_rest_that_an_answer_asks_for_is_kept_and_ours_is_the_least(asked, rest, owner, subscriber, listener):
    """Seconds or a date; never shorter than our own pause, never longer than a day."""
    now = timezone.now().replace(microsecond=0)
    listener.retry_after = format_datetime(now + timedelta(hours=1)) if asked == "in an hour" else asked
    happen(owner, 1)
    for status in (429, 503):
        listener.answers = [status]
        Subscriber.objects.update(held_until=None, failures=0)
        assert delivering.deliver(subscriber_id=subscriber.pk, clock=lambda: now) == 0
        row = Subscriber.objects.get(pk=subscriber.pk)
        assert row.held_until == now + timedelta(seconds=rest)
    listener.answers = [200]
    just = timedelta(seconds=rest)
    assert delivering.deliver(subscriber_id=subscriber.pk, clock=lambda: now + just - timedelta(seconds=1)) == 0
    assert len(listener.calls) == 2
    assert delivering.deliver(subscriber_id=subscriber.pk, clock=lambda: now + just) == 1  # ends the rest
    assert Subscriber.objects.get(pk=subscriber.pk).held_until is None


def test_one_event_that_is_refused_becomes_a_dead_letter_and_the_others_go_on(owner, subscriber, listener):
    ids = happen(owner, 3)
    listener.refuses = {ids[0]}
    for minutes in (0, 1, 5):
        deliver(subscriber, minutes=minutes)
    assert waiting(subscriber, STATE.DEAD) == [("message.sent", ids[0])]
    assert deliver(subscriber, minutes=5) == 2
    dead = Delivery.objects.get(subscriber=subscriber, state=STATE.DEAD)
    assert (dead.attempts, dead.answered, dead.error) == (3, 422, "It answered with HTTP 422.")
    listener.refuses.clear()
    assert subscribing.replay(subscriber=subscriber) == 1
    assert deliver(subscriber) == 1
    assert messages_in(listener)[-1] == ids[0]
    assert listener.events[-1]["id"] == str(dead.pk)
    assert subscribing.replay(subscriber=subscriber) == 0
    assert subscribing.replay(subscriber=subscriber, since=timezone.now() - timedelta(hours=1)) == 3


def test_an_outage_costs_a_dead_letter_only_after_all_tries(owner, subscriber, listener):
    happen(owner, 2)
    listener.answers = [500]
    hours = 0.0
    for _ in range(delivering.TRIES):
        assert deliver(subscriber, hours=hours) == 0
        hours += 1.1
    assert len(listener.calls) == delivering.TRIES
    assert len(waiting(subscriber, STATE.DEAD)) == len(waiting(subscriber)) == 1


def test_whoever_fails_for_days_is_given_up_and_the_admins_are_told_once(owner, subscriber, listener):
    (only,) = happen(owner, 1)
    make_user(role="admin", email="admin@example.com")
    listener.answers = [500]
    deliver(subscriber)
    assert alerts.tell_given_up(now=timezone.now()) == 0
    deliver(subscriber, hours=73)
    row = Subscriber.objects.get(pk=subscriber.pk)
    assert (row.enabled, "72 hours" in row.disabled_reason) == (False, True)
    assert deliver(subscriber, hours=80) == 0
    assert alerts.tell_given_up(now=timezone.now()) == 1
    assert alerts.tell_given_up(now=timezone.now()) == 0
    (sent,) = mail.outbox
    assert sent.to == ["admin@example.com"]
    assert "mine" in sent.body
    listener.answers = [200]
    answer = caller(owner).patch(f"{V1}/subscribers/{subscriber.pk}", {"enabled": True})
    assert (answer.status_code, answer.json()["disabled_reason"], answer.json()["failing_since"]) == (200, "", None)
    assert deliver(subscriber) == 1  # what waited was kept
    assert messages_in(listener)[-1] == only


def test_gone_means_gone(owner, subscriber, listener):
    happen(owner, 1)
    listener.answers = [410]
    deliver(subscriber)
    assert Subscriber.objects.get(pk=subscriber.pk).disabled_reason == "It said that it is gone."


@pytest.mark.django_db(transaction=True)
def test_one_process_at_a_time_calls_a_subscriber(owner, subscriber, listener):
    ids = happen(owner, 250)
    taken = at_once(6, lambda _: deliver(subscriber))
    assert (sum(taken), max(taken)) == (250, 250)
    assert messages_in(listener) == ids


def test_a_lease_that_was_lost_ends_the_work_of_whoever_lost_it(owner, subscriber, listener):
    """A frozen process that comes back makes no further call and leaves the other's lease alone."""
    ids = happen(owner, 150)
    later = timezone.now() + timedelta(hours=1)
    listener.before = lambda: None
    taken = iter([True])

    def stolen() -> datetime:
        if listener.calls and next(taken, False):
            Subscriber.objects.filter(pk=subscriber.pk).update(lease_until=later)
        return timezone.now()

    assert delivering.deliver(subscriber_id=subscriber.pk, clock=stolen) == 100
    assert messages_in(listener) == ids[:100]
    assert Subscriber.objects.get(pk=subscriber.pk).lease_until == later
    assert delivering.due(now=timezone.now()) == []
    assert delivering.due(now=later) == [subscriber.pk]


def test_few_are_called_at_once_and_those_that_waited_longest_come_first(owner, subscriber, listener):
    extra = [
        Subscriber.objects.create(owner=owner, name=f"s{number}", url=subscriber.url, kinds=ALL) for number in range(3)
    ]
    happen(owner, 1)
    now = timezone.now()
    Subscriber.objects.filter(pk=subscriber.pk).update(last_called_at=now)
    assert delivering.due(now=now) == [extra[0].pk, extra[1].pk]
    Subscriber.objects.filter(pk=extra[0].pk).update(lease_until=now + timedelta(seconds=9))
    assert delivering.due(now=now) == [extra[1].pk]


# -- Where calls go ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com/", "https://127.0.0.1/", "https://[::1]/", "https://169.254.169.254/latest",
        "https://10.1.2.3:8443/", "https://user:pw@example.com/", "ftp://example.com/", "https://example.com:22/",
        "https://", "nonsense",
    ],
)  # fmt: skip
def test_addresses_that_are_refused_when_they_are_given(url, owner):
    row = Subscriber(owner=owner, name="n", url=url, kinds=["reply.received"])
    with pytest.raises(ValidationError) as refused:
        row.clean()
    assert set(refused.value.message_dict) == {"url"}


@pytest.mark.parametrize("url", ["https://localhost/", "https://2130706433/", "https://0x7f000001:9999/", "http://{}/"])
def test_addresses_inside_are_not_called(url, owner, subscriber, listener, settings):
    """Neither by names that lead inside, nor because they were allowed once."""
    Subscriber.objects.filter(pk=subscriber.pk).update(url=url.format(listener.place))
    settings.FLOTILLA_OUTGOING_ALLOW = []
    happen(owner, 1)
    assert deliver(subscriber) == 0
    assert listener.calls == []
    assert Subscriber.objects.get(pk=subscriber.pk).last_error


def test_a_redirect_is_a_failure_and_is_not_followed(owner, subscriber, listener):
    happen(owner, 1)
    listener.answers = [307]
    assert deliver(subscriber) == 0
    assert Delivery.objects.get(subscriber=subscriber).answered == 307


# -- What people do ----------------------------------------------------------------------------------------------------


def test_after_a_rotation_calls_are_signed_with_both_secrets_for_a_while(owner, subscriber, listener):
    client = caller(owner)
    new = client.post(f"{V1}/subscribers/{subscriber.pk}/rotate").json()["secret"]
    for hours, old_fits in ((0, True), (25, False)):
        happen(owner, 1)
        deliver(subscriber, hours=hours)
        headers, body = listener.calls[-1]
        assert (fits(headers, body, new), fits(headers, body, subscriber.secret)) == (True, old_fits)
    last = client.post(f"{V1}/subscribers/{subscriber.pk}/rotate", {"keep_hours": 0}).json()["secret"]
    happen(owner, 1)
    deliver(subscriber)
    headers, body = listener.calls[-1]
    assert (fits(headers, body, last), fits(headers, body, new)) == (True, False)


def test_over_rest(owner, listener, settings):
    client = caller(owner)
    body = {"name": "shop", "url": f"http://{listener.place}/", "kinds": ["message.sent"]}
    made = client.post(f"{V1}/subscribers", body)
    assert made.status_code == 201, made.content
    secret, pk = made.json()["secret"], made.json()["id"]
    assert secret not in client.get(f"{V1}/subscribers/{pk}").content.decode()
    assert "secret" not in client.get(f"{V1}/subscribers").json()["results"][0]
    assert secret not in Subscriber.objects.filter(pk=pk).extra(select={"raw": "secrets"}).values("raw").get()["raw"]
    assert fields_of(problem(client.post(f"{V1}/subscribers", body), 400, "invalid")) == {"name": "unique_together"}
    wrong = problem(client.post(f"{V1}/subscribers", body | {"name": "b", "kinds": []}), 400, "invalid")
    assert set(fields_of(wrong)) == {"kinds"}
    again = client.post(f"{V1}/subscribers/{pk}/test", headers={"Idempotency-Key": "k"})
    assert again.status_code == 202
    assert client.post(f"{V1}/subscribers/{pk}/test", headers={"Idempotency-Key": "k"}).json() == again.json()
    assert delivering.deliver(subscriber_id=pk) == 1
    assert listener.events[0]["type"] == "test"
    found = client.get(f"{V1}/deliveries", {"subscriber": pk, "state": "delivered"}).json()["results"]
    assert [(row["kind"], row["answered"], row["attempts"]) for row in found] == [("test", 200, 1)]
    replayed = client.post(f"{V1}/subscribers/{pk}/replay", {"deliveries": [found[0]["id"]]})
    assert replayed.json() == {"replayed": 1}
    assert caller().post(f"{V1}/subscribers/{pk}/replay").status_code == 404
    assert client.delete(f"{V1}/subscribers/{pk}").status_code == 204
    assert client.get(f"{V1}/deliveries").json()["results"] == []
    assert delivering.sweep(now=timezone.now()) == 1


def test_in_the_admin(owner, subscriber, listener, client):
    client.force_login(owner)
    base = "/admin/messaging/subscriber"
    form = {
        "name": "two",
        "url": f"http://{listener.place}/",
        "kinds": ["message.sent", "reply.received"],
        "enabled": "on",
    }
    shown = client.post(f"{base}/add/", form)
    made = Subscriber.objects.get(name="two")
    assert (shown.status_code, made.owner, made.kinds) == (200, owner, form["kinds"])
    assert made.secrets["secret"] in shown.content.decode()
    assert "no-store" in shown["Cache-Control"]
    refused = client.post(f"{base}/add/", form | {"name": "three", "url": "https://10.0.0.1/"})
    assert "not on the public Internet" in refused.content.decode()
    ids = happen(owner, 1)
    listener.refuses = set(ids)
    for minutes in (0, 1, 5):
        deliver(subscriber, minutes=minutes)
    for page in (f"{base}/", f"{base}/{subscriber.pk}/change/", "/admin/messaging/delivery/?state__exact=dead"):
        assert client.get(page).status_code == 200
    dead = Delivery.objects.get(state=STATE.DEAD)
    for page in (f"/admin/messaging/delivery/{dead.pk}/change/", f"{base}/{subscriber.pk}/change/"):
        shown = client.get(page)
        assert (shown.status_code, "(&#x27;" in shown.content.decode()) == (200, False), "a label, not its parts"
    asked = client.get(f"{base}/{subscriber.pk}/replay_dead/")
    assert "1 events were given up" in asked.content.decode()
    assert Delivery.objects.get(pk=dead.pk).state == STATE.DEAD
    client.post(f"{base}/{subscriber.pk}/replay_dead/", {"confirmed": "yes"})
    assert Delivery.objects.get(pk=dead.pk).state == STATE.WAITING
    rotated = client.post(f"{base}/{subscriber.pk}/rotate_secret/", {"confirmed": "yes"})
    assert Subscriber.objects.get(pk=subscriber.pk).secrets["secret"] in rotated.content.decode()


def test_what_ended_long_ago_is_swept_and_what_waited_too_long_is_a_dead_letter(owner, subscriber, listener):
    happen(owner, 1)
    deliver(subscriber)
    happen(owner, 1)
    assert delivering.sweep(now=timezone.now()) == 0
    Delivery.objects.filter(state=STATE.DELIVERED).update(ended_at=timezone.now() - timedelta(days=31))
    Delivery.objects.filter(state=STATE.WAITING).update(happened_at=timezone.now() - timedelta(days=31))
    assert delivering.sweep(now=timezone.now()) == 1
    assert list(Delivery.objects.values_list("state", flat=True)) == ["dead"]
