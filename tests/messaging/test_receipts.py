"""Receipts: forward only, in any order, however often, and never about another round."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from itertools import count, product

import pytest
from django.db import connection
from django.utils import timezone
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from devices.gateways import registry
from devices.gateways.news import Receipt
from messaging.dispatch import recover
from messaging.dispatch.release import release_next
from messaging.models import Attempt, Message, Stream, WaitingReceipt
from messaging.receipts import apply_receipts, match_waiting
from messaging.retrying import retry_failed
from messaging.states import TRANSITIONS, State
from tests.factories import make_batch, make_device, make_user, messages_of
from tests.messaging.recount import assert_counters_hold
from tests.messaging.test_recover import claim, lapse, record

pytestmark = pytest.mark.django_db(transaction=True)

_events = count(1)


def reference(message: Message) -> str:
    return f"{message.pk}-{message.round}-{message.uid.hex[:12]}"


def receipt(message: Message, status: str, **fields) -> Receipt:
    known = {"event_id": f"evt-{next(_events)}", "at": timezone.now(), "reference": reference(message), **fields}
    return Receipt(status=status, **known)


def tell(*receipts: Receipt) -> tuple[int, int]:
    done = apply_receipts(gateway="simulator", receipts=receipts)
    return done.moved, done.waiting


def claimed(*, leads: int = 1) -> tuple[Message, object, object]:
    """A message that a worker has claimed; its device and release."""
    owner = make_user()
    device = make_device(owner=owner)
    batch = make_batch(owner=owner, devices=[device], leads=leads)
    released = release_next(device_id=device.pk)
    claim(device, released)
    return messages_of(batch)[0], device, released


def sent() -> Message:
    message, device, released = claimed()
    record(device, released, "sent")
    return again(message)


def unknown() -> Message:
    message, device, released = claimed()
    record(device, released, "unknown")
    return again(message)


def again(message: Message) -> Message:
    return Message.objects.get(pk=message.pk)


def test_a_burst_of_three_moves_a_message_to_read_with_its_times():
    message = sent()
    at = timezone.now()
    assert tell(*[receipt(message, status, at=at) for status in ("delivered", "sent", "read")]) == (1, 0)
    message = again(message)
    assert message.state == State.READ
    assert message.sent_at <= message.delivered_at <= message.read_at <= timezone.now()
    assert_counters_hold()


def test_times_are_kept_within_reason():
    message = sent()
    tell(receipt(message, "delivered", at=datetime(2001, 1, 1, tzinfo=UTC)))
    tell(receipt(message, "read", at=timezone.now() + timedelta(days=400)))
    message = again(message)
    assert message.created_at <= message.sent_at <= message.delivered_at <= message.read_at <= timezone.now()


def test_delivered_after_read_changes_nothing():
    message = sent()
    assert tell(receipt(message, "read")) == (1, 0)
    before = again(message)
    assert tell(receipt(message, "delivered")) == (0, 0)
    assert (again(message).state, again(message).delivered_at) == (State.READ, before.delivered_at)
    assert_counters_hold()


def test_a_bounce_after_sent_fails_the_message_with_the_reason():
    message = sent()
    assert tell(receipt(message, "failed", code="blocked", text="They blocked us.")) == (1, 0)
    message = again(message)
    assert (message.state, message.error_code, message.error_text) == (State.FAILED, "blocked", "They blocked us.")
    assert_counters_hold()


@pytest.mark.parametrize(
    ("status", "state"),
    [("sent", State.SENT), ("delivered", State.DELIVERED), ("read", State.READ), ("failed", State.FAILED)],
)
def test_a_receipt_settles_an_unknown_also_when_it_was_presumed(status, state):
    for presumed in (False, True):
        message = unknown()
        if presumed:
            Message.objects.filter(pk=message.pk).update(presumed_at=timezone.now())
            Stream.objects.filter(pk=message.stream_id).update(presumed=1)
        assert tell(receipt(message, status)) == (1, 0)
        assert (again(message).state, again(message).presumed_at) == (state, None)
        assert_counters_hold()


def test_a_receipt_after_the_lease_ran_out_settles_and_the_frozen_worker_may_still_tell(monkeypatch):
    monkeypatch.setattr(type(registry.driver_for("simulator")), "id_semantics", "none")
    message, device, released = claimed()
    lapse(message.pk)
    recover.expire_leases()
    assert again(message).state == State.UNKNOWN
    tell(receipt(message, "delivered"))
    record(device, released, "sent")
    assert again(message).state == State.DELIVERED
    assert_counters_hold()


def test_a_receipt_before_the_record_waits_for_it():
    message, device, released = claimed()
    event = receipt(message, "delivered")
    assert tell(event) == (0, 1)
    assert tell(event) == (0, 0)  # told twice, kept once
    assert match_waiting().moved == 0  # not its time
    WaitingReceipt.objects.update(try_at=timezone.now())
    assert (match_waiting().waiting, again(message).state) == (1, State.SENDING)
    record(device, released, "sent")
    WaitingReceipt.objects.update(try_at=timezone.now())
    assert (match_waiting().moved, again(message).state) == (1, State.DELIVERED)
    assert not WaitingReceipt.objects.exists()
    assert_counters_hold()


def test_a_gateways_own_id_is_enough_once_it_is_learned():
    message = sent()
    event = receipt(message, "delivered", reference="", external_id="wamid.1")
    assert tell(event) == (0, 1)
    Message.objects.filter(pk=message.pk).update(external_id="wamid.1")
    WaitingReceipt.objects.update(try_at=timezone.now())
    assert match_waiting().moved == 1
    assert again(message).state == State.DELIVERED
    other = make_device(owner=make_user())
    assert tell(receipt(message, "read", reference="", external_id="wamid.1", device_id=other.pk)) == (0, 1)
    assert tell(receipt(message, "read", reference="", external_id="wamid.1")) == (1, 0)


def test_what_nobody_claims_is_tried_more_and_more_rarely_and_then_dropped():
    message = sent()
    tell(receipt(message, "read", reference="", external_id="never seen"))
    WaitingReceipt.objects.update(try_at=timezone.now(), received_at=timezone.now() - timedelta(minutes=3))
    match_waiting()
    (waiting,) = WaitingReceipt.objects.all()
    assert timedelta(minutes=2) < waiting.try_at - timezone.now() < timedelta(minutes=4)
    WaitingReceipt.objects.update(try_at=timezone.now(), received_at=timezone.now() - timedelta(days=3))
    match_waiting()
    assert not WaitingReceipt.objects.exists()


def test_an_earlier_round_another_message_and_another_gateway_disturb_nothing():
    message = sent()
    old = reference(message)
    tell(receipt(message, "failed"))
    retry_failed(message_ids=[message.pk], now=timezone.now())
    for event in (
        receipt(message, "delivered", reference=old),
        receipt(message, "delivered", reference=f"{message.pk}-2-{'0' * 12}"),
        receipt(message, "delivered", reference="999999999-1-aaaaaaaaaaaa"),
    ):
        assert tell(event) == (0, 0)
    assert apply_receipts(gateway="other", receipts=[receipt(again(message), "delivered")]).moved == 0
    assert (again(message).state, again(message).round) == (State.PENDING, 2)
    assert_counters_hold()


def test_proof_of_arrival_stops_an_attempt_that_is_still_ahead():
    message, device, released = claimed()
    record(device, released, "pending")  # as after a line cut where repeats are dropped
    assert tell(receipt(message, "failed")) == (0, 1)  # another attempt follows: nothing is decided yet
    assert tell(receipt(message, "delivered")) == (1, 0)
    assert again(message).state == State.DELIVERED
    assert release_next(device_id=device.pk) is None
    assert_counters_hold()


def test_a_failure_of_another_attempt_says_nothing_about_this_one():
    message = sent()
    Message.objects.filter(pk=message.pk).update(external_id="second")
    assert tell(receipt(message, "failed", external_id="first")) == (0, 0)
    assert tell(receipt(message, "failed", external_id="second")) == (1, 0)


def test_what_is_cancelled_or_expired_stays_so():
    for state in (State.CANCELLED, State.EXPIRED):
        message = sent()
        Message.objects.filter(pk=message.pk).update(state=state)
        Stream.objects.filter(pk=message.stream_id).update(sent=0, **{state.value: 1})
        assert tell(receipt(message, "delivered")) == (0, 0)
        assert again(message).state == state


def test_receipts_move_exactly_what_the_table_of_transitions_says():
    """Every state against every receipt."""
    events = {"sent": "left", "delivered": "delivered", "read": "read", "failed": "bounced"}
    owner = make_user()
    batch = make_batch(owner=owner, devices=[make_device(owner=owner, lanes=50)], leads=len(State) * len(events))
    messages = iter(messages_of(batch))
    for lane, (source, status) in enumerate(product(State, events)):
        message = next(messages)
        Message.objects.filter(pk=message.pk).update(state=source, lane=lane)
        tell(receipt(message, status))
        targets = {t.target for t in TRANSITIONS if (t.event, t.source) == (events[status], source)}
        assert {again(message).state} == (targets or {source}), (source, status)


def test_the_same_receipts_at_once_count_once():
    message = sent()
    start, moved = threading.Barrier(8), []
    events = [receipt(message, status) for status in ("delivered", "read")]

    def run(index: int) -> None:
        start.wait(10)
        moved.append(tell(events[index % 2])[0])
        connection.close()

    threads = [threading.Thread(target=run, args=(index,)) for index in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert (len(moved), sum(moved) in {1, 2}) == (8, True)
    assert again(message).state == State.READ
    assert_counters_hold()


def test_receipts_of_many_streams_at_once_do_not_block_one_another_for_ever():
    messages = [sent() for _ in range(6)]
    start = threading.Barrier(4)
    errors: list[BaseException] = []

    def run(index: int) -> None:
        try:
            start.wait(10)
            order = messages if index % 2 else messages[::-1]
            for status in ("delivered", "read"):
                tell(*[receipt(message, status) for message in order])
        except BaseException as error:  # noqa: BLE001 - told to the main thread
            errors.append(error)
        finally:
            connection.close()

    threads = [threading.Thread(target=run, args=(index,)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert errors == []
    assert {again(message).state for message in messages} == {State.READ}
    assert_counters_hold()


STATUSES = st.sampled_from(["sent", "delivered", "read", "failed"])


def expected(start: str, told: set[str]) -> str:
    if "read" in told:
        return "read"
    if "delivered" in told:
        return "delivered"
    if "failed" in told:
        return "failed"
    return "sent" if told else start


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    start=st.sampled_from(["sent", "unknown", "presumed", "pending", "sending"]),
    told=st.lists(st.lists(STATUSES, min_size=1, max_size=3), max_size=6),
)
def test_any_order_with_any_repeats_ends_alike_and_is_counted_right(start, told):
    """However the news is cut into requests; ``sending`` and ``pending`` get theirs once the record is there."""
    message, device, released = claimed()
    if start != "sending":
        record(device, released, "unknown" if start == "presumed" else start)
    if start == "presumed":
        Message.objects.filter(pk=message.pk).update(presumed_at=timezone.now())
        Stream.objects.filter(pk=message.stream_id).update(presumed=1)
    for request in told:
        tell(*[receipt(message, status) for status in request])
        assert_counters_hold()
    if start == "sending":
        record(device, released, "sent")
    elif again(message).state == State.PENDING:
        resent = release_next(device_id=device.pk)
        Message.objects.filter(pk=message.pk).update(attempts=0)  # claim() expects a first attempt
        Attempt.objects.filter(message=message).delete()
        claim(device, resent)
        record(device, resent, "sent")
    WaitingReceipt.objects.update(try_at=timezone.now())
    match_waiting()
    known = "unknown" if start == "presumed" else start if start == "unknown" else "sent"
    assert again(message).state == expected(known, {status for request in told for status in request})
    assert_counters_hold()
    Message.objects.all().delete()
    Stream.objects.all().delete()
