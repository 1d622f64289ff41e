from __future__ import annotations

from datetime import timedelta

import pytest
from django.contrib.admin.models import LogEntry
from django.test import Client
from django.utils import timezone

from devices.models import DeviceShare
from messaging import failures, squaring
from messaging.models import Attempt, Batch, Message, Stream
from messaging.retrying import retry_failed
from messaging.states import State
from messaging.why import why_not_sent
from tests.api_support import V1, at_once, caller, problem
from tests.factories import make_batch, make_device, make_user, messages_of

pytestmark = pytest.mark.django_db(transaction=True)


def fail(*messages: Message, code: str = "busy") -> None:
    """As the record does it: state and counters together."""
    for message in messages:
        Message.objects.filter(pk=message.pk).update(state=State.FAILED, error_code=code)
    squaring.square(batch_ids={message.batch_id for message in messages})


def failed_long_ago(*messages: Message) -> None:
    fail(*messages)
    failures.notice()
    ids = [message.pk for message in messages]
    Message.objects.filter(pk__in=ids).update(failed_at=timezone.now() - timedelta(days=31))


@pytest.fixture
def batch() -> Batch:
    owner = make_user()
    return make_batch(owner=owner, devices=[make_device(owner=owner)], leads=4)


def test_what_failed_is_noticed_once_and_stamps_only_grow(batch):
    first, second, third, _ = messages_of(batch)
    before = timezone.now()
    fail(first)
    assert sum(at_once(4, lambda _: failures.notice())) == 1
    first.refresh_from_db()
    assert first.failed_at > before
    ahead = timezone.now() + timedelta(hours=1)  # stamped before the clock was set back
    Message.objects.filter(pk=first.pk).update(failed_at=ahead)
    fail(second, third)
    assert failures.notice() == 2
    assert {(found.number, found.code) for found in failures.since(ahead)} == {(2, "busy")}
    assert failures.notice() == 0


def test_failures_are_told_by_batch_and_reason_and_single_messages_together(batch):
    first, second, third, _ = messages_of(batch)
    fail(first, second, code="no_number")
    fail(third)
    for _ in range(2):
        single = make_batch(owner=batch.owner, devices=[first.device], priority=0)
        fail(*messages_of(single))
    failures.notice()
    told = [(found.batch_id, found.batch_name, found.code, found.number) for found in failures.since(batch.created_at)]
    assert sorted(told, key=str) == sorted(
        [(batch.pk, batch.name, "no_number", 2), (batch.pk, batch.name, "busy", 1), (None, "", "busy", 2)], key=str
    )
    last = max(found.latest for found in failures.since(batch.created_at))
    assert failures.since(last) == []
    assert retry_failed(message_ids=[third.pk], now=timezone.now()).retried == 1
    fail(third)
    assert failures.notice() == 1  # it has failed again
    assert [found.number for found in failures.since(last)] == [1]


def test_what_failed_a_month_ago_is_archived_counted_and_never_deleted(batch):
    old, recent, *_ = messages_of(batch)
    failed_long_ago(old)
    fail(recent)
    failures.notice()
    assert sum(at_once(3, lambda _: failures.archive(now=timezone.now()))) == 1
    assert failures.archive(now=timezone.now()) == 0
    old.refresh_from_db()
    assert (old.archived_at is not None, old.state) == (True, State.FAILED)
    assert "archive" in why_not_sent(old, now=timezone.now()).text
    assert squaring.square(batch_ids=[batch.pk], correct=False) == []
    assert Stream.objects.get().failed == 2


def test_archived_messages_are_listed_only_when_asked_for(batch):
    old, recent, *_ = messages_of(batch)
    failed_long_ago(old)
    fail(recent)
    failures.archive(now=timezone.now())
    client = caller(batch.owner)

    def listed(query: str = "") -> set[int]:
        return {row["id"] for row in client.get(f"{V1}/messages?state=failed{query}").json()["results"]}

    assert (listed(), listed("&archived=false"), listed("&archived=true")) == ({recent.pk}, {recent.pk}, {old.pk})
    assert client.get(f"{V1}/messages/{old.pk}").json()["archived_at"] is not None

    admin = Client()
    admin.force_login(batch.owner)

    def shown(**query: str) -> set[int]:
        answer = admin.get("/admin/messaging/message/", {"state__exact": "failed", **query})
        return {message.pk for message in answer.context["cl"].result_list}

    assert (shown(), shown(archived="only"), shown(archived="all")) == ({recent.pk}, {old.pk}, {old.pk, recent.pk})
    assert admin.get(f"/admin/messaging/message/{old.pk}/change/").status_code == 200


def test_an_archived_message_is_retried_only_by_who_insists(batch):
    old, *_ = messages_of(batch)
    failed_long_ago(old)
    failures.archive(now=timezone.now())
    client = caller(batch.owner)
    body = {"messages": [old.pk]}
    assert client.post(f"{V1}/messages/retry", body).json() == {"retried": 0, "left_alone": {"archived": 1}}
    assert client.post(f"{V1}/messages/retry", {**body, "insist": True}).json()["retried"] == 1
    old.refresh_from_db()
    assert (old.state, old.archived_at, old.failed_at, old.round) == (State.PENDING, None, None, 2)


def test_one_failed_message_can_be_deleted_and_the_counters_and_the_log_know(batch):
    message, other, *_ = messages_of(batch)
    Attempt.objects.create(
        message=message, device=message.device, release_no=1, number=1, reference="r", started_at=timezone.now()
    )
    fail(message)
    client = caller(batch.owner)
    problem(client.delete(f"{V1}/messages/{other.pk}"), 422, "not_failed")
    problem(caller().delete(f"{V1}/messages/{message.pk}"), 404, "not_found")
    team = make_user(role="team")
    DeviceShare.objects.create(device=message.device, user=team)
    problem(caller(team).delete(f"{V1}/messages/{message.pk}"), 403, "permission_denied")
    answers = at_once(3, lambda _: caller(batch.owner).delete(f"{V1}/messages/{message.pk}").status_code)
    assert answers.count(204) == 1
    assert set(answers) <= {204, 404, 422}
    stream = Stream.objects.get()
    assert (stream.total, stream.failed) == (3, 0)
    assert squaring.square(batch_ids=[batch.pk], correct=False) == []
    assert Attempt.objects.count() == 0
    entry = LogEntry.objects.get()
    assert (entry.user, entry.object_id, entry.is_deletion()) == (batch.owner, str(message.pk), True)
    assert message.phone not in entry.object_repr + entry.change_message
