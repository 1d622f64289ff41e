"""A message's page: what happened to it, in order, and why it is not further."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.contrib.admin.models import CHANGE, LogEntry
from django.contrib.auth.models import User
from django.contrib.contenttypes.models import ContentType
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from devices.models import DeviceShare
from messaging.life import life_of
from messaging.models import Attempt, InboundMessage, Message
from tests.browsing import signed_in
from tests.factories import make_batch, make_device, make_user, messages_of

pytestmark = pytest.mark.django_db(transaction=True)

LIST = "/admin/messaging/message/"


def eventful(owner: User) -> Message:
    """Tried in vain, retried by hand, sent with other words, delivered, read and answered."""
    device = make_device(owner=owner, name="Kuala Lumpur 1")
    (message,) = messages_of(make_batch(owner=owner, devices=[device], text="Hello {{ name }}"))
    start = timezone.now() - timedelta(hours=2)

    def at(minutes: int) -> dict[str, object]:
        begins = start + timedelta(minutes=minutes)
        return {"started_at": begins, "finished_at": begins + timedelta(seconds=2)}

    common = {"message": message, "device": device, "number": 1}
    Attempt.objects.create(
        **common, release_no=1, round=1, reference="a", text="Hello Ann", **at(1), outcome="rejected",
        error_code="too_long", error_text="The gateway refused it.",
    )  # fmt: skip
    Attempt.objects.create(
        **common, release_no=2, round=2, reference="b", text="Hello again", **at(5), outcome="accepted"
    )
    kind = ContentType.objects.get_for_model(Message)
    note = LogEntry.objects.create(
        user=owner, content_type=kind, object_id=str(message.pk), object_repr="x", action_flag=CHANGE,
        change_message="Retried.",
    )  # fmt: skip
    LogEntry.objects.filter(pk=note.pk).update(action_time=start + timedelta(minutes=4))
    sent = start + timedelta(minutes=5, seconds=2)
    Message.objects.filter(pk=message.pk).update(
        state="read", round=2, attempts=1, release_no=2, created_at=start, queued_at=sent - timedelta(seconds=3),
        sent_at=sent, delivered_at=sent + timedelta(seconds=3), read_at=sent + timedelta(minutes=1),
    )  # fmt: skip
    InboundMessage.objects.create(
        gateway="simulator", event_id="in-1", device=device, lead=message.lead, phone=message.phone,
        text="<b>Thanks</b>", written_at=sent, received_at=sent + timedelta(minutes=2),
    )  # fmt: skip
    message.refresh_from_db()
    return message


def test_a_life_is_told_in_order_with_every_attempt_receipt_reply_and_hand() -> None:
    me = make_user(username="anna")
    found = life_of(eventful(me), user=me, now=timezone.now())
    assert [event.title for event in found.past] == [
        "Made", "Attempt 1: rejected", "Retried.", "Put into the queue", "Attempt 1 of round 2: accepted", "Sent",
        "Delivered", "Read", "They wrote",
    ]  # fmt: skip
    assert found.past[1].note == "through Kuala Lumpur 1, 2.0 s. The gateway refused it. (too_long)"
    assert found.past[2].by == "anna"
    assert (found.said, found.past[4].text) == ("Hello again", "Hello again")  # other words than before are shown
    assert found.ahead == ()


def test_the_page_shows_it_to_those_who_may_see_the_message_and_to_nobody_else() -> None:
    me, member = make_user(), make_user(role="team")
    message = eventful(me)
    DeviceShare.objects.create(device=message.device, user=member)
    text = signed_in(member).get(f"{LIST}{message.pk}/change/").content.decode()
    assert "&lt;b&gt;Thanks&lt;/b&gt;" in text
    assert "<b>Thanks" not in text
    assert "The phone has it, and it was read." in text
    stranger = signed_in(make_user())
    assert stranger.get(f"{LIST}{message.pk}/change/").status_code == 302
    assert stranger.get(f"{LIST}{message.pk}/life/").status_code == 404
    assert "data-poll=" not in text  # nothing more can come


def test_what_is_not_sent_yet_says_why_and_what_lies_ahead_and_follows_by_itself() -> None:
    me = make_user()
    device = make_device(owner=me, state="paused", state_reason="Battery is low.")
    (message,) = messages_of(make_batch(owner=me, devices=[device], text="Hello {{ name }}"))
    Message.objects.filter(pk=message.pk).update(due_at=timezone.now() + timedelta(minutes=30))
    client = signed_in(me)
    text = client.get(f"{LIST}{message.pk}/change/").content.decode()
    assert f'data-poll="{LIST}{message.pk}/life/"' in text
    part = client.get(f"{LIST}{message.pk}/life/").json()
    assert not part["done"]
    assert 'data-why="device_paused"' in part["html"]
    assert "Battery is low." in part["html"]
    assert "Hello {{ name }}" in part["html"]
    message.refresh_from_db()
    ahead = life_of(message, user=me, now=timezone.now()).ahead
    assert [event.title for event in ahead] == ["Due", "Expires"]
    Message.objects.filter(pk=message.pk).update(state="failed", failed_at=timezone.now(), error_text="No such number.")
    part = client.get(f"{LIST}{message.pk}/life/").json()
    assert part["done"]
    assert "It failed. No such number." in part["html"]


def test_a_long_life_takes_no_more_queries() -> None:
    me = make_user()
    message = eventful(me)
    client = signed_in(me)
    client.get(f"{LIST}{message.pk}/change/")
    with CaptureQueriesContext(connection) as few:
        client.get(f"{LIST}{message.pk}/change/")
    Attempt.objects.bulk_create(
        Attempt(
            message=message, device=message.device, release_no=3 + n, number=n, reference="c",
            started_at=timezone.now(), outcome="temporary", text=f"Hello {n}",
        )
        for n in range(40)
    )  # fmt: skip
    with CaptureQueriesContext(connection) as many:
        assert client.get(f"{LIST}{message.pk}/change/").status_code == 200
    assert len(few) == len(many) <= 30
