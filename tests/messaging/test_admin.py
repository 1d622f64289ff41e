"""Messages and batches in the admin: read only, scoped, never counted."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from devices.models import DeviceShare
from leads.models import Lead
from messaging.admin_progress import bar, parts
from messaging.models import Attempt, Batch, BatchState, Message, Stream
from messaging.services import Counts
from tests.browsing import signed_in
from tests.factories import make_batch, make_device, make_user, messages_of

pytestmark = pytest.mark.django_db

several_fills = pytest.mark.django_db(transaction=True)  # a fan-out's scratch table lives as long as its transaction

LIST = "/admin/messaging/message/"
BATCHES = "/admin/messaging/batch/"


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
    for words in ("Hello Aina, as it was sent", "The number is not on WhatsApp.", "Penang desk", "Rejected"):
        assert words in text


def test_attempts_stand_in_the_order_in_which_they_happened() -> None:
    me, now = make_user(role="staff"), timezone.now()
    (message,) = messages_of(make_batch(owner=me, devices=[make_device(owner=me)]))
    for release_no, round_no, number in ((7, 2, 1), (1, 1, 1), (4, 1, 2)):  # not in the order of their keys
        Attempt.objects.create(
            message=message, device=message.device, release_no=release_no, round=round_no, number=number,
            reference="ref", text=f"text of release {release_no}", started_at=now,
        )  # fmt: skip
    text = signed_in(me).get(f"{LIST}{message.pk}/change/").content.decode()
    table = text.partition('id="message_form"')[2]  # above it stands the message's life
    assert re.findall(r"text of release (\d)", table) == ["1", "4", "7"]
    assert "1, round 2" in text


@pytest.mark.parametrize(("state", "colour"), [("failed", "red"), ("delivered", "green"), ("pending", "base")])
def test_the_state_is_a_coloured_label_in_the_list_and_on_the_page(state: str, colour: str) -> None:
    me = make_user(role="staff")
    (message,) = messages_of(make_batch(owner=me, devices=[make_device(owner=me)]))
    Message.objects.filter(pk=message.pk).update(state=state)
    for address in (LIST, f"{LIST}{message.pk}/change/"):
        text = signed_in(me).get(address).content.decode()
        label = rf'<span class="[^"]*bg-{colour}-[^"]*"\s*>\s*{state.capitalize()}\s*</span>'
        assert re.search(label, text), address


def test_times_are_told_from_now_and_exactly() -> None:
    me = make_user(role="staff")
    (message,) = messages_of(make_batch(owner=me, devices=[make_device(owner=me)]))
    sent = timezone.now() - timedelta(minutes=5, seconds=20)
    Message.objects.filter(pk=message.pk).update(state="sent", sent_at=sent)
    exact = f"{sent:%Y-%m-%d %H:%M:%S} UTC"
    listed = signed_in(me).get(LIST).content.decode()
    assert f'<time datetime="{sent.isoformat()}" title="{exact}">5\xa0minutes ago</time>' in listed
    shown = signed_in(me).get(f"{LIST}{message.pk}/change/").content.decode()
    assert f'<time datetime="{sent.isoformat()}">{exact}</time> <span class="fl-muted">5\xa0minutes ago</span>' in shown


def test_names_and_numbers_are_kept_apart_for_both_writing_directions() -> None:
    me = make_user(role="staff")
    (message,) = messages_of(make_batch(owner=me, devices=[make_device(owner=me)]))
    Lead.objects.filter(pk=message.lead_id).update(name="עלי <b>")
    Message.objects.filter(pk=message.pk).update(state="failed")
    client = signed_in(me)
    number = f'<bdi dir="ltr" class="fl-phone">{message.phone}</bdi>'
    assert f"<bdi>עלי &lt;b&gt;</bdi> {number}" in client.get(LIST).content.decode()
    assert number in client.get(f"{LIST}{message.pk}/change/").content.decode()
    leads = client.get("/admin/leads/lead/").content.decode()
    assert "<bdi>עלי &lt;b&gt;</bdi>" in leads
    assert number in leads
    assert "<bdi>עלי &lt;b&gt;</bdi>" in client.get("/admin/").content.decode()
    Lead.objects.filter(pk=message.lead_id).update(name="")
    assert number in client.get("/admin/").content.decode()


def test_team_members_get_no_link_to_what_they_may_not_open() -> None:
    owner, member = make_user(), make_user(role="team")
    device = make_device(owner=owner)
    DeviceShare.objects.create(device=device, user=member)
    (message,) = messages_of(make_batch(owner=owner, devices=[device]))
    page, batch = f"{LIST}{message.pk}/change/", f"{BATCHES}{message.batch_id}/change/"
    lead = f"/admin/leads/lead/{message.lead_id}/change/"
    text = signed_in(member).get(page).content.decode()
    assert f"<bdi>{message.batch}</bdi>" in text
    assert batch not in text
    assert lead not in text  # the lead does not hang on the shared device
    assert f"/admin/devices/device/{device.pk}/change/" in text
    Lead.objects.filter(pk=message.lead_id).update(device=device)
    assert lead in signed_in(member).get(page).content.decode()
    theirs = signed_in(owner).get(page).content.decode()
    assert batch in theirs
    assert lead in theirs


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
