"""Stopping everything and retrying, from the admin."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import User
from django.utils import timezone

from messaging import halting
from messaging.models import Attempt, Batch, Message, Stream
from messaging.states import State
from tests.browsing import signed_in
from tests.factories import make_batch, make_device, make_user, messages_of

pytestmark = pytest.mark.django_db

LIST = "/admin/messaging/message/"
HALTS = "/admin/messaging/halt/"
YES = {"confirmed": "yes"}


def failed_batch(owner: User, *, outcomes: tuple[str, ...]) -> Batch:
    """A batch whose messages have failed, each with this outcome of its last attempt."""
    batch = make_batch(owner=owner, devices=[make_device(owner=owner)], leads=len(outcomes))
    for message, outcome in zip(messages_of(batch), outcomes, strict=True):
        Attempt.objects.create(
            message=message, device=message.device, release_no=1, number=1, started_at=timezone.now(), outcome=outcome
        )
    Message.objects.filter(batch=batch).update(state=State.FAILED, error_text="No such number.")
    Stream.objects.filter(batch=batch).update(waiting=0, is_open=False, failed=len(outcomes))
    return batch


def text_of(answer: Any) -> str:
    return " ".join(answer.content.decode().split())


# -- STOP ALL ----------------------------------------------------------------------------------------------------------


def test_an_admin_stops_everything_and_goes_on_having_seen_the_counts() -> None:
    admin = make_user(role="admin")
    make_batch(owner=admin, devices=[make_device(owner=admin)], leads=3)
    client = signed_in(admin)
    assert "Stop everything …" in text_of(client.get(HALTS))
    question = text_of(client.get(f"{HALTS}stop/"))
    assert '<dt><bdi>Messages that wait</bdi></dt><dd dir="auto">3</dd>' in question
    assert halting.current() is None  # asking stops nothing
    client.post(f"{HALTS}stop/", {**YES, "reason": "Wrong price"})
    halt = halting.current()
    assert (halt.reason, halt.started_by) == ("Wrong price", admin)
    assert "Everything is stopped" in text_of(client.get("/admin/"))
    assert "Wrong price" in text_of(client.get("/admin/"))
    assert "Messages that start to move" in text_of(client.get(f"{HALTS}resume/"))
    assert halting.current() is not None
    client.post(f"{HALTS}resume/", YES)
    assert halting.current() is None
    assert list(LogEntry.objects.order_by("pk").values_list("user", flat=True)) == [admin.pk, admin.pk]


def test_operators_stop_but_do_not_go_on_and_nobody_else_does_either() -> None:
    ops = signed_in(make_user(role="ops"))
    assert ops.post(f"{HALTS}stop/", YES).status_code == 302
    assert halting.current() is not None
    assert ops.post(f"{HALTS}resume/", YES).status_code == 403
    assert halting.current() is not None
    for role in ("staff", "team"):
        client = signed_in(make_user(role=role))
        assert client.get(HALTS).status_code == 403
        assert client.post(f"{HALTS}stop/", YES).status_code == 403
        assert client.post(f"{HALTS}resume/", YES).status_code == 403
        assert "Everything is stopped" in text_of(client.get("/admin/"))
        assert "halt-resume" not in text_of(client.get("/admin/"))


# -- Retry -------------------------------------------------------------------------------------------------------------


def test_the_chosen_messages_are_retried_and_refusals_left_alone() -> None:
    owner = make_user()
    temporary, refused = messages_of(failed_batch(owner, outcomes=("temporary", "rejected")))
    client = signed_in(owner)
    chosen = {"action": "retry_messages", "_selected_action": [temporary.pk, refused.pk]}
    question = text_of(client.post(LIST, chosen))
    assert "Left alone: they were refused by the gateway for good" in question
    assert Message.objects.filter(state=State.FAILED).count() == 2
    answer = client.post(LIST, {**chosen, **YES}, follow=True)
    assert "1 message is sent again." in text_of(answer)
    assert dict(Message.objects.values_list("pk", "state")) == {temporary.pk: "pending", refused.pk: "failed"}


def test_one_may_insist_on_one_message_after_reading_why_it_failed() -> None:
    owner = make_user()
    (refused,) = messages_of(failed_batch(owner, outcomes=("rejected",)))
    client = signed_in(owner)
    page = client.get(f"{LIST}{refused.pk}/change/")
    assert f"{LIST}{refused.pk}/retry_message" in text_of(page)
    assert "It failed. No such number." in text_of(page)
    question = text_of(client.get(f"{LIST}{refused.pk}/retry_message/", follow=True))
    assert "No such number." in question
    assert "The gateway refused it for good." in question
    client.post(f"{LIST}{refused.pk}/retry_message/", YES)
    refused.refresh_from_db()
    assert (refused.state, refused.round) == (State.PENDING, 2)
    assert f"{LIST}{refused.pk}/retry_message" not in text_of(client.get(f"{LIST}{refused.pk}/change/"))


def test_everything_of_a_batch_that_failed_is_retried() -> None:
    owner = make_user()
    batch = failed_batch(owner, outcomes=("temporary", "temporary", "rejected"))
    client = signed_in(owner)
    assert "Retry failed" in text_of(client.get(f"/admin/messaging/batch/{batch.pk}/change/"))
    client.post(f"/admin/messaging/batch/{batch.pk}/retry_batch/", YES)
    stream = Stream.objects.get(batch=batch)
    assert (stream.waiting, stream.failed, stream.is_open) == (2, 1, True)
    assert LogEntry.objects.get().change_message == "2 failed messages retried."


def test_nobody_retries_what_they_may_only_look_at_or_not_see() -> None:
    (message,) = messages_of(failed_batch(make_user(), outcomes=("temporary",)))
    for role in ("staff", "team", "ops"):
        client = signed_in(make_user(role=role))
        assert client.post(f"{LIST}{message.pk}/retry_message/", YES).status_code in {302, 403, 404}
        client.post(LIST, {"action": "retry_messages", "_selected_action": [message.pk], **YES})
    message.refresh_from_db()
    assert message.state == State.FAILED
