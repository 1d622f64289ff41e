"""Unknown outcomes: by policy, by look-up, by presumption, by a person; and what races with what."""

from __future__ import annotations

import threading
from datetime import timedelta

import pytest
from django.contrib.admin.models import LogEntry
from django.core.cache import cache
from django.db import connection
from django.utils import timezone

from devices.gateways import registry
from devices.gateways.news import Receipt
from devices.gateways.simulator import SimulatorDriver
from leads.models import Lead
from messaging.checks import gateways_are_known
from messaging.dispatch import recover
from messaging.dispatch.release import release_next
from messaging.look_ups import look_up
from messaging.models import Attempt, Batch, Message, Stream
from messaging.receipts import apply_receipts
from messaging.services import counts_of, wrap_up
from messaging.settling import settle, settle_due, unknowns
from messaging.states import State
from messaging.why import why_not_sent
from tests.api_support import V1, at_once, caller, fields_of, problem
from tests.factories import make_batch, make_device, make_user, messages_of
from tests.messaging.recount import assert_counters_hold
from tests.messaging.test_admin import signed_in
from tests.messaging.test_receipts import again, reference
from tests.messaging.test_recover import claim, lapse, record
from tests.messaging.test_send import release_one, send

pytestmark = pytest.mark.django_db(transaction=True)

LIST = "/admin/messaging/message/"


class Searchable(SimulatorDriver):
    """The simulator as a gateway that can be searched but does not promise to drop repeats."""

    kind = "searchable"
    label = "Searchable"
    id_semantics = "searchable"


class Plain(SimulatorDriver):
    """The simulator as a gateway that promises nothing."""

    kind = "plain"
    label = "Plain"
    id_semantics = "none"


@pytest.fixture(autouse=True)
def gateways(monkeypatch, settings):
    for driver in (Searchable(), Plain()):
        monkeypatch.setitem(registry._BY_KIND, driver.kind, driver)
    settings.FLOTILLA_UNKNOWN_POLICY = {}


def lost(*, gateway: str = "plain", leads: int = 1, owner=None) -> Batch:
    """A batch whose first message a worker claimed and never came back to."""
    owner = owner or make_user()
    device = make_device(owner=owner, gateway=gateway)
    batch = make_batch(owner=owner, devices=[device], leads=leads)
    released = release_next(device_id=device.pk)
    claim(device, released)
    lapse(released.message_id)
    recover.expire_leases()
    assert messages_of(batch)[0].state == State.UNKNOWN
    return batch


def age(batch: Batch, **how_long) -> None:
    """As if the attempts had been longer ago, and the message were due to be looked at."""
    before = timezone.now() - timedelta(**how_long)
    Attempt.objects.filter(message__batch=batch).update(started_at=before, finished_at=before)
    Message.objects.filter(batch=batch, state=State.UNKNOWN).update(due_at=before)


def first(batch: Batch) -> Message:
    return messages_of(batch)[0]


# -- policy ------------------------------------------------------------------------------------------------------------


def test_held_by_default_and_looked_at_once_an_hour():
    batch = lost()
    settle_due()
    message = first(batch)
    assert message.state == State.UNKNOWN
    assert timedelta(minutes=50) < message.due_at - timezone.now() <= timedelta(hours=1)
    assert_counters_hold()


def test_failed_by_policy_says_so(settings):
    settings.FLOTILLA_UNKNOWN_POLICY = {"": "fail"}
    batch = lost()
    settle_due()
    assert (first(batch).state, first(batch).error_code) == (State.FAILED, "unknown_outcome")
    assert_counters_hold()
    wrap_up(now=timezone.now())
    batch.refresh_from_db()
    assert batch.state == "finished"


def test_resent_by_policy_in_the_same_round_under_the_same_id(sender, simulator, settings):
    settings.FLOTILLA_UNKNOWN_POLICY = {"plain": "resend"}
    settings.FLOTILLA_RETRY_MINUTES = [0]
    settings.FLOTILLA_GATEWAY_URLS = {"plain": simulator.url}
    owner = make_user()
    device = make_device(owner=owner, gateway="plain")
    batch = make_batch(owner=owner, devices=[device])
    simulator.add_faults({"fault": "reset", "phase": "before", "device": device.credentials["token"], "count": 1})
    send(sender, release_one(device))
    assert first(batch).state == State.UNKNOWN
    settle_due()
    assert_counters_hold()
    send(sender, release_one(device))
    message = first(batch)
    assert (message.state, message.round, message.attempts) == (State.SENT, 1, 2)
    assert {entry["id"] for entry in simulator.landed(device.credentials["token"])} == {reference(message)}
    assert_counters_hold()


@pytest.mark.parametrize("obstacle", ["opted_out", "batch_ended", "attempts"])
def test_what_could_not_go_out_is_held_instead(settings, obstacle):
    settings.FLOTILLA_UNKNOWN_POLICY = {"": "resend"}
    if obstacle == "attempts":
        settings.FLOTILLA_RETRY_MINUTES = []
    batch = lost()
    if obstacle == "opted_out":
        Lead.objects.update(opted_out_at=timezone.now())
    if obstacle == "batch_ended":
        Batch.objects.update(state="cancelled")
    settle_due()
    assert first(batch).state == State.UNKNOWN


def test_two_ticks_at_once_resend_once(settings):
    settings.FLOTILLA_UNKNOWN_POLICY = {"": "resend"}
    batches = [lost() for _ in range(5)]
    at_once(4, lambda _: settle_due())
    assert {first(batch).state for batch in batches} == {State.PENDING}
    assert_counters_hold()


def test_a_policy_or_a_secret_for_a_gateway_that_is_not_there_is_an_error(settings):
    settings.FLOTILLA_UNKNOWN_POLICY = {"": "hold", "simulatr": "resend"}
    settings.FLOTILLA_WEBHOOK_SECRETS = {"simulator": ("s3cret",), "wabla": ("s3cret",)}
    found = [str(error) for error in gateways_are_known(None)]
    assert ("simulatr" in found[0], "wabla" in found[1], "s3cret" in "".join(found)) == (True, True, False)


# -- presumption -------------------------------------------------------------------------------------------------------


def test_a_batch_waits_for_its_unknown_outcome_and_no_longer_than_a_day():
    batch = lost()
    wrap_up(now=timezone.now())
    batch.refresh_from_db()
    assert batch.state == "running"
    age(batch, hours=25)
    settle_due()
    message = first(batch)
    assert (message.state, message.presumed_at is not None) == (State.UNKNOWN, True)
    assert (counts_of([batch.pk])[batch.pk].unknown, counts_of([batch.pk])[batch.pk].presumed) == (1, 1)
    assert_counters_hold()
    wrap_up(now=timezone.now())
    batch.refresh_from_db()
    assert batch.state == "finished"
    settle_due()
    assert first(batch).presumed_at == message.presumed_at


def test_an_expired_batch_is_finished_once_its_unknown_outcome_is_presumed():
    batch = lost(leads=3)
    Batch.objects.update(expires_at=timezone.now() - timedelta(seconds=1))
    assert wrap_up(now=timezone.now()) == (2, 0)
    assert wrap_up(now=timezone.now()) == (0, 0)
    age(batch, hours=25)
    settle_due()
    assert wrap_up(now=timezone.now()) == (0, 1)
    assert_counters_hold()


def test_a_presumed_outcome_may_still_be_told_by_a_worker_that_was_frozen():
    batch = lost()
    age(batch, hours=25)
    settle_due()
    message = first(batch)

    class Released:
        message_id, release_no = message.pk, message.release_no

    record(message.device, Released, "sent")
    assert (first(batch).state, first(batch).presumed_at) == (State.SENT, None)
    assert_counters_hold()


def test_why_names_the_moment_or_the_policy(settings):
    batch = lost()
    attempt = Attempt.objects.get()
    why = why_not_sent(first(batch), now=timezone.now())
    assert (why.code, why.until) == ("unknown", attempt.finished_at + timedelta(hours=24))
    settings.FLOTILLA_UNKNOWN_POLICY = {"plain": "fail"}
    assert "failed" in why_not_sent(first(batch), now=timezone.now()).text
    settings.FLOTILLA_UNKNOWN_POLICY = {}
    age(batch, hours=25)
    settle_due()
    assert why_not_sent(first(batch), now=timezone.now()).code == "presumed_sent"


# -- look-up -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def doubtful(sender, simulator, settings):
    """Sends one message through the searchable gateway, whose answer is lost before or after it was taken."""
    cache.clear()
    settings.FLOTILLA_GATEWAY_URLS = {"searchable": simulator.url}
    settings.FLOTILLA_RETRY_MINUTES = [0]

    def run(phase: str) -> tuple[Batch, str]:
        owner = make_user()
        device = make_device(owner=owner, gateway="searchable")
        token = device.credentials["token"]
        batch = make_batch(owner=owner, devices=[device])
        simulator.add_faults({"fault": "reset", "phase": phase, "device": token, "count": 1})
        send(sender, release_one(device))
        assert first(batch).state == State.UNKNOWN
        return batch, token

    return run


def test_a_message_that_the_gateway_has_is_sent(doubtful, simulator):
    batch, token = doubtful("after")
    assert look_up(settle_due()) == 0  # a moment first
    age(batch, seconds=20)
    assert look_up(settle_due()) == 1
    message = first(batch)
    assert (message.state, message.external_id[:4]) == (State.SENT, "sim-")
    assert len(simulator.landed(token)) == 1
    assert_counters_hold()


def test_a_message_that_the_gateway_surely_does_not_have_goes_out_again(doubtful, simulator, sender):
    batch, token = doubtful("before")
    age(batch, seconds=20)
    assert (look_up(settle_due()), first(batch).state) == (0, State.UNKNOWN)  # it might still be on its way
    age(batch, minutes=6)
    assert (look_up(settle_due()), first(batch).state) == (1, State.PENDING)
    assert_counters_hold()
    simulator.add_faults({"fault": "reject", "device": token, "count": 1})
    send(sender, release_one(Stream.objects.get().device))
    # Nothing is in doubt any more, so a refusal is a refusal.
    assert (first(batch).state, list(Attempt.objects.values_list("outcome", flat=True))) == (
        State.FAILED,
        ["not_sent", "rejected"],
    )
    assert [entry["delivered"] for entry in simulator.landed(token)] == [False, False]


def test_a_gateway_that_cannot_say_is_asked_again_later(doubtful, simulator):
    batch, token = doubtful("after")
    simulator.add_faults({"fault": "error", "on": "check", "device": token, "count": 1})
    age(batch, minutes=6)
    assert look_up(settle_due()) == 0
    assert timedelta(0) < first(batch).due_at - timezone.now() <= timedelta(seconds=30)
    assert settle_due() == []
    age(batch, minutes=6)
    assert look_up(settle_due()) == 1


def test_of_two_ticks_one_asks(doubtful):
    batch, _ = doubtful("after")
    age(batch, minutes=1)
    assert sorted(len(asked) for asked in at_once(2, lambda _: settle_due())) == [0, 1]


# -- a person ----------------------------------------------------------------------------------------------------------


def test_a_person_settles_by_filter_under_their_name():
    me = make_user()
    old, young, foreign = lost(owner=me), lost(owner=me), lost()
    age(old, hours=3)
    client = caller(me)
    body = {"verdict": "sent", "gateway": "plain", "older_than_hours": 2}
    answer = client.post(f"{V1}/messages/settle", body, HTTP_IDEMPOTENCY_KEY="settle-1")
    assert (answer.status_code, answer.json()) == (200, {"settled": 1, "left_alone": {}, "more": False})
    assert client.post(f"{V1}/messages/settle", body, HTTP_IDEMPOTENCY_KEY="settle-1").json()["settled"] == 1
    assert [first(batch).state for batch in (old, young, foreign)] == [State.SENT, State.UNKNOWN, State.UNKNOWN]
    assert first(old).sent_at < timezone.now() - timedelta(hours=2)
    note = LogEntry.objects.get()
    assert (note.user, note.object_id, "counts as sent" in note.change_message) == (me, str(first(old).pk), True)
    mixed = [first(batch).pk for batch in (old, young, foreign)]
    answer = client.post(f"{V1}/messages/settle", {"verdict": "failed", "messages": mixed}).json()
    assert answer == {"settled": 1, "left_alone": {"not_unknown": 1}, "more": False}
    assert first(young).error_code == "settled_as_failed"
    assert_counters_hold()
    refused = problem(client.post(f"{V1}/messages/settle", {"verdict": "sent"}), 400, "invalid")
    assert fields_of(refused) == {"messages": "required"}
    assert problem(client.post(f"{V1}/messages/settle", {"verdict": "x", "batch": 1}), 400, "invalid")


def test_sending_again_opens_a_finished_batch_and_leaves_alone_who_opted_out():
    me = make_user()
    done, left = lost(owner=me), lost(owner=me)
    for batch in (done, left):
        age(batch, hours=25)
    settle_due()
    wrap_up(now=timezone.now())
    Lead.objects.filter(messages__batch=left).update(opted_out_at=timezone.now())
    ids = unknowns(Message.objects.all(), now=timezone.now()).values_list("pk", flat=True)
    settled = settle(message_ids=ids, verdict="resend", user=me, now=timezone.now())
    assert (settled.settled, settled.left_alone) == (1, {"opted_out": 1})
    done.refresh_from_db()
    assert (done.state, first(done).state, first(done).round) == ("running", State.PENDING, 1)
    assert_counters_hold()
    assert release_next(device_id=first(done).device_id).message_id == first(done).pk


def test_a_person_and_a_receipt_at_once_settle_it_once():
    me = make_user()
    for _ in range(10):
        batch = lost(owner=me)
        message, start = first(batch), threading.Barrier(2)

        def receipt(message=message, start=start) -> None:
            start.wait(10)
            told = Receipt("evt", "delivered", timezone.now(), reference=reference(message))
            apply_receipts(gateway="plain", receipts=[told])
            connection.close()

        thread = threading.Thread(target=receipt)
        thread.start()
        start.wait(10)
        settle(message_ids=[message.pk], verdict="failed", user=me, now=timezone.now())
        thread.join(30)
        assert again(message).state == State.DELIVERED  # before or after: proof of arrival wins
        assert_counters_hold()


def test_the_list_of_messages_asks_before_it_settles():
    me = make_user()
    batch, foreign = lost(owner=me), lost()
    client = signed_in(me)
    chosen = {"action": "settle_as_sent", "_selected_action": [first(batch).pk, first(foreign).pk]}
    page = client.post(LIST, chosen)
    assert b"Count 1 message as sent?" in page.content
    assert first(batch).state == State.UNKNOWN
    client.post(LIST, {**chosen, "confirmed": "yes"})
    assert (first(batch).state, first(foreign).state) == (State.SENT, State.UNKNOWN)
    assert LogEntry.objects.get().user == me
    team = signed_in(make_user(role="team"))
    team.post(LIST, {**chosen, "confirmed": "yes"})
    assert LogEntry.objects.count() == 1
