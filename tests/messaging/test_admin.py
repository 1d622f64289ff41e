"""Messages and batches in the admin: read only, scoped, never counted."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from devices.models import DeviceShare
from messaging.admin_progress import bar, parts
from messaging.models import Attempt, Batch, BatchState, Message, Stream
from messaging.services import Counts
from tests.factories import make_batch, make_device, make_user, messages_of

pytestmark = pytest.mark.django_db

several_fills = pytest.mark.django_db(transaction=True)  # a fan-out's scratch table lives as long as its transaction

LIST = "/admin/messaging/message/"
BATCHES = "/admin/messaging/batch/"


def signed_in(user: User) -> Client:
    client = Client()
    client.force_login(user)
    return client


def rows(answer: Any) -> list[Any]:
    return list(answer.context["cl"].result_list)


# -- Messages ----------------------------------------------------------------------------------------------------------


@several_fills
def test_staff_see_their_own_messages_team_those_of_shared_devices_ops_none() -> None:
    staff, other, member = make_user(role="staff"), make_user(role="staff"), make_user(role="team")
    device = make_device(owner=other)
    DeviceShare.objects.create(device=device, user=member)
    mine = messages_of(make_batch(owner=staff, devices=[make_device(owner=staff)]))
    shared = messages_of(make_batch(owner=other, devices=[device]))
    make_batch(owner=other, devices=[make_device(owner=other)])
    assert rows(signed_in(staff).get(LIST)) == mine
    assert rows(signed_in(member).get(LIST)) == shared
    assert len(rows(signed_in(make_user(role="admin")).get(LIST))) == 3
    assert signed_in(make_user(role="ops")).get(LIST).status_code == 403
    assert signed_in(staff).get(f"{LIST}{shared[0].pk}/change/").status_code == 302
    assert signed_in(member).get(f"{LIST}{shared[0].pk}/change/").status_code == 200


def test_nobody_edits_adds_or_deletes_a_message() -> None:
    boss = make_user(role="admin")
    (message,) = messages_of(make_batch(owner=boss, devices=[make_device(owner=boss)]))
    client = signed_in(boss)
    assert client.get(f"{LIST}add/").status_code == 403
    assert client.post(f"{LIST}{message.pk}/change/", {"state": "sent"}).status_code == 403
    assert client.post(f"{LIST}{message.pk}/delete/", {"post": "yes"}).status_code == 403
    message.refresh_from_db()
    assert message.state == "pending"


def test_the_page_shows_what_was_said_and_what_came_of_it() -> None:
    me = make_user(role="staff")
    (message,) = messages_of(make_batch(owner=me, devices=[make_device(owner=me, name="Penang desk")]))
    Attempt.objects.create(
        message=message,
        device=message.device,
        release_no=1,
        number=1,
        reference="ref",
        text="Hello Aina, as it was sent",
        started_at=timezone.now(),
        outcome="rejected",
        error_code="not_registered",
        error_text="The number is not on WhatsApp.",
    )
    text = signed_in(me).get(f"{LIST}{message.pk}/change/").content.decode()
    for words in ("Hello Aina, as it was sent", "The number is not on WhatsApp.", "Penang desk", "rejected"):
        assert words in text


def test_search_by_number_finds_messages_also_when_the_lead_is_gone() -> None:
    me = make_user(role="staff")
    first, second = messages_of(make_batch(owner=me, devices=[make_device(owner=me)], leads=2))
    client = signed_in(me)
    assert rows(client.get(LIST, {"q": first.phone})) == [first]
    assert first.lead is not None
    first.lead.delete()
    assert [m.pk for m in rows(client.get(LIST, {"q": first.phone}))] == [first.pk]
    assert rows(client.get(LIST, {"q": second.phone[:6]})) == []
    assert "is not a phone number" in client.get(LIST, {"q": "Aina"}).content.decode()


@several_fills
def test_filters_by_state_device_and_batch() -> None:
    me = make_user(role="staff")
    one, two = make_device(owner=me), make_device(owner=me)
    batch, other = make_batch(owner=me, devices=[one, two], leads=2), make_batch(owner=me, devices=[one], leads=1)
    failed = messages_of(other)[0]
    Message.objects.filter(pk=failed.pk).update(state="failed")
    client = signed_in(me)
    assert [m.pk for m in rows(client.get(LIST, {"state__exact": "failed"}))] == [failed.pk]
    assert {m.device_id for m in rows(client.get(LIST, {"device__id__exact": two.pk}))} == {two.pk}
    assert {m.batch_id for m in rows(client.get(LIST, {"batch__id__exact": batch.pk}))} == {batch.pk}


def test_a_filter_does_not_name_the_device_of_somebody_else() -> None:
    foreign = make_device(owner=make_user(), name="Secret device name")
    text = signed_in(make_user(role="staff")).get(LIST, {"device__id__exact": foreign.pk}).content.decode()
    assert "Secret device name" not in text


def test_the_list_never_counts_messages_and_costs_the_same_however_many() -> None:
    boss = make_user(role="admin")
    devices = [make_device(owner=boss) for _ in range(10)]
    make_batch(owner=boss, devices=devices, leads=120)
    client = signed_in(boss)
    with CaptureQueriesContext(connection) as first:
        answer = client.get(LIST)
    assert len(rows(answer)) == 50
    with CaptureQueriesContext(connection) as last:
        assert len(rows(client.get(LIST, {"p": 3}))) == 20
    with CaptureQueriesContext(connection) as by_hand:
        sorted_by_address = rows(client.get(LIST, {"o": "6", "_facets": "1", "p": 3}))
    assert [message.pk for message in sorted_by_address] == sorted((m.pk for m in sorted_by_address), reverse=True)
    for queries in (first, last, by_hand):
        assert len(queries) <= 12
        asked = [query["sql"] for query in queries.captured_queries if "messaging_message" in query["sql"]]
        assert asked
        assert not [sql for sql in asked if "COUNT(" in sql.upper()]
    assert "Next" in answer.content.decode()


# -- Batches -----------------------------------------------------------------------------------------------------------


@several_fills
def test_batches_show_progress_from_counters_in_a_bounded_number_of_queries(django_assert_max_num_queries: Any) -> None:
    me = make_user(role="staff")
    device = make_device(owner=me)
    batches = [make_batch(owner=me, devices=[device], leads=2) for _ in range(30)]
    Stream.objects.filter(batch=batches[0]).update(waiting=0, sent=1, failed=1)
    client = signed_in(me)
    with django_assert_max_num_queries(12):
        text = client.get(BATCHES).content.decode()
    assert "2 of 2" in text
    assert "0 of 2" in text


def test_pause_resume_and_cancel_ask_first() -> None:
    me = make_user(role="staff")
    batch = make_batch(owner=me, devices=[make_device(owner=me)], leads=3)
    client = signed_in(me)

    def state() -> str:
        return str(Batch.objects.values_list("state", flat=True).get(pk=batch.pk))

    for what, after in (("pause", "paused"), ("resume", "running"), ("cancel", "cancelled")):
        before = state()
        assert f"{what.capitalize()} “{batch}”?" in client.get(f"{BATCHES}{batch.pk}/{what}_batch/").content.decode()
        assert state() == before
        client.post(f"{BATCHES}{batch.pk}/{what}_batch/", {"confirmed": "yes"})
        assert state() == after
    assert {message.state for message in messages_of(batch)} == {"cancelled"}
    answer = client.post(f"{BATCHES}{batch.pk}/pause_batch/", {"confirmed": "yes"}, follow=True)
    assert "it is not in a state for that" in answer.content.decode()


def test_strangers_and_team_neither_see_nor_stop_a_batch() -> None:
    owner, member = make_user(role="staff"), make_user(role="team")
    device = make_device(owner=owner)
    DeviceShare.objects.create(device=device, user=member)
    batch = make_batch(owner=owner, devices=[device])
    for user, expected in ((make_user(role="staff"), 404), (member, 403)):
        for address in ("pause_batch/", "cancel_batch/"):
            assert signed_in(user).post(f"{BATCHES}{batch.pk}/{address}", {"confirmed": "yes"}).status_code == expected
        assert signed_in(user).get(f"{BATCHES}{batch.pk}/progress/").status_code == 404
    batch.refresh_from_db()
    assert batch.state == BatchState.RUNNING


def test_the_moving_part_follows_the_counters_and_says_when_it_is_done() -> None:
    me = make_user(role="staff")
    batch = make_batch(owner=me, devices=[make_device(owner=me)], leads=4)
    client = signed_in(me)
    news = client.get(f"{BATCHES}{batch.pk}/progress/").json()
    assert news["done"] is False
    assert 'data-part="Pending">4<' in news["html"]
    Stream.objects.filter(batch=batch).update(waiting=1, sent=2, expired=1)
    assert 'data-part="Sent">2<' in client.get(f"{BATCHES}{batch.pk}/progress/").json()["html"]
    Batch.objects.filter(pk=batch.pk).update(state=BatchState.FINISHED)
    news = client.get(f"{BATCHES}{batch.pk}/progress/").json()
    assert news["done"] is True
    assert "Pause" not in news["html"]


# -- The bar -----------------------------------------------------------------------------------------------------------


def test_parts_are_the_five_words_and_name_every_kind_of_failure() -> None:
    counts = Counts(total=10, pending=1, queued=1, sent=3, delivered=2, failed=1, cancelled=1, expired=2, unknown=1)
    found = {part.word: part for part in parts(counts)}
    assert list(found) == ["Pending", "Queued", "Sent", "Failed", "Unknown"]
    assert [part.number for part in found.values()] == [1, 1, 3, 4, 1]
    assert sum(part.share for part in found.values()) == pytest.approx(100)
    assert found["Failed"].note == "1 failed, 1 cancelled, 2 expired"
    assert "2 delivered" in found["Sent"].note


def test_the_bar_draws_what_is_settled() -> None:
    drawn = bar(Counts(total=4, pending=2, sent=1, unknown=1))
    assert "2 of 4" in drawn
    assert 'class="fl-sent" style="width:25.00%"' in drawn
    assert "fl-failed" not in drawn
    assert "fl-bar" not in bar(Counts())
