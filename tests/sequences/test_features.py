"""What sequences promise, rule by rule: weeks in seconds, the real tick, dispatch and simulator."""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta

import pytest
from django.core.exceptions import ValidationError

from devices.models import Device, DeviceState
from leads import optout
from leads.models import ConsentEvent, Lead
from messaging.models import Message
from messaging.states import State
from sequences import editing, entry, exits, progress, services, tallies
from sequences.models import Enrolment, EntrySource, Sequence
from tests.factories import make_device, make_leads, make_user
from tests.sequences.world import MONDAY, World

HOUR, DAY = 60, 24 * 60


def one_lead(world: World, **fields):
    """An owner, a device and a lead of it."""
    owner = make_user()
    device = make_device(owner=owner)
    return owner, device, make_leads(1, owner=owner, device=device, **fields)[0]


def state_of(lead: Lead) -> tuple[str, str]:
    enrolment = Enrolment.objects.get(lead=lead)
    return enrolment.state, enrolment.code


# -- 24: delays, hours, trigger, chaining ------------------------------------------------------------------------------


def test_feature_24_delays_count_from_the_actual_send_of_the_step_before(world):
    owner, device, lead = one_lead(world, triggers=["new"])
    world.sequence(owner, {"delay_minutes": 5}, {"delay_minutes": 2 * DAY}, {"delay_minutes": DAY}, trigger="new")
    Device.objects.filter(pk=device.pk).update(state=DeviceState.PAUSED)
    world.live(hours=30)
    Device.objects.filter(pk=device.pk).update(state=DeviceState.ACTIVE)
    world.live(days=4)
    (_, first), (_, second), (_, third) = world.heard_by(lead)
    assert first >= MONDAY + timedelta(hours=30)
    assert timedelta(0) <= second - first - timedelta(days=2) < timedelta(minutes=1)
    assert timedelta(0) <= third - second - timedelta(days=1) < timedelta(minutes=1)


def test_feature_24_hours_and_weekdays_by_the_sequences_or_the_leads_clock(world):
    owner, device, lead = one_lead(world, triggers=["new"])  # a Malaysian number: UTC+8
    hours = {"window_start": time(9), "window_end": time(12)}
    world.sequence(
        owner, {"delay_minutes": 0, **hours}, {"delay_minutes": DAY, **hours, "weekdays": [5]}, trigger="new"
    )
    berlin = make_leads(1, owner=owner, device=device)[0]
    elsewhere = world.sequence(owner, {"delay_minutes": 0, **hours}, time_zone="Europe/Berlin")
    world.enrol(elsewhere, berlin)
    world.live(days=6)
    by_own = [at for _, at in world.heard_by(lead)]
    assert [(at.isoweekday(), at.hour) for at in by_own] == [(2, 1), (5, 1)]  # Tuesday and Friday, 09:00 in Malaysia
    assert world.heard_by(berlin)[0][1].date() == MONDAY.date()


def test_feature_24_chains_to_the_next_sequence_and_guards_against_rings(world):
    owner, _, lead = one_lead(world)
    last = world.sequence(owner, {"text": "hot"})
    middle = world.sequence(owner, {"text": "warm"}, next_sequence=last)
    first = world.sequence(owner, {"text": "cold"}, next_sequence=middle)
    last.next_sequence = first
    with pytest.raises(ValidationError, match="leads back"):
        last.full_clean()
    # two people who save at once may still make a ring, and with re-entry nothing else would stop it
    Sequence.objects.update(re_entry=True)
    Sequence.objects.filter(pk=last.pk).update(next_sequence=first)
    world.enrol(first, lead)
    world.live(days=3)
    assert world.texts(lead) == ["cold", "warm", "hot"]
    assert set(Enrolment.objects.values_list("state", flat=True)) == {"completed"}


# -- 25: entry, once, pausing and removing one -------------------------------------------------------------------------


def test_feature_25_enters_by_tag_once_and_only_those_who_may_be_written_to(world):
    owner, device, early = one_lead(world, triggers=["new"])
    without_consent = make_leads(1, owner=owner, device=device, triggers=["new"], consent_at=None)[0]
    make_leads(1, owner=make_user(), triggers=["new"])
    sequence = world.sequence(owner, {}, trigger="new")
    world.live(hours=2)
    late = make_leads(1, owner=owner, device=device)[0]
    world.live(days=2)
    late.triggers = ["other", "new"]
    late.save()
    world.live(days=2)
    assert set(sequence.enrolments.values_list("lead_id", flat=True)) == {early.pk, late.pk}
    assert [world.texts(lead) for lead in (early, late, without_consent)] == [["step 1"], ["step 1"], []]


def test_feature_25_enters_by_hand_with_reasons_for_those_left_out(world):
    owner, device, lead = one_lead(world)
    refused = make_leads(1, owner=owner, device=device, opted_out_at=world.now)[0]
    silent = make_leads(1, owner=owner, device=device, consent_at=None)[0]
    draft = world.sequence(owner, {}, active=False)
    with pytest.raises(entry.EntryRefused, match="draft"):
        world.enrol(draft, lead)
    sequence = world.sequence(owner, {})
    assert len(world.enrol(sequence, lead, refused, silent).enrolments) == 1
    assert world.enrol(sequence, lead, refused, silent).left_out == {
        "opted_out": 1, "no_consent": 1, "there_already": 1,
    }  # fmt: skip


def test_feature_25_enters_again_only_where_that_is_allowed(world):
    owner, _, lead = one_lead(world, triggers=["again"])
    once = world.sequence(owner, {"text": "once"}, trigger="again")
    world.live(days=1)
    again = world.sequence(owner, {"text": "again"}, trigger="again", re_entry=True)
    world.live(days=2)
    lead.refresh_from_db()
    assert lead.triggers == []
    lead.triggers = ["again"]
    lead.save()
    world.live(days=2)
    assert world.texts(lead) == ["once", "again", "again"]
    assert again.enrolments.get().turn == 2
    assert once.enrolments.get().turn == 1


def test_feature_25_one_lead_is_paused_resumed_and_removed(world):
    owner, device, lead = one_lead(world)
    other = make_leads(1, owner=owner, device=device)[0]
    sequence = world.sequence(owner, {}, {}, {}, late_hours=1000)
    world.enrol(sequence, lead, other)
    world.live(minutes=90)
    one = Enrolment.objects.get(lead=lead).pk
    assert exits.pause(enrolment_ids=[one]) == 1
    world.live(days=2)
    assert (len(world.texts(lead)), len(world.texts(other))) == (1, 3)
    assert exits.resume(enrolment_ids=[one], now=world.now) == 1
    world.live(minutes=30)
    assert world.texts(lead) == ["step 1", "step 2"]  # one overdue step, and the next counts from it
    assert exits.remove(enrolment_ids=[one], now=world.now) == 1
    world.live(days=2)
    assert world.texts(lead) == ["step 1", "step 2"]
    assert state_of(lead) == ("exited", "removed")


@pytest.mark.parametrize("how", ["remove", "pause", "goal"])
def test_feature_25_27_what_waits_is_taken_back(world, how):
    owner, device, lead = one_lead(world)
    sequence = world.sequence(owner, {"delay_minutes": 0}, goal="bought")
    make_device(owner=owner)
    Device.objects.filter(pk=device.pk).update(held_until=world.now + timedelta(hours=5), wake_at=None)
    world.enrol(sequence, lead)
    world.work()
    message = Message.objects.get(lead=lead)
    assert message.state == State.PENDING
    enrolment = Enrolment.objects.get(lead=lead)
    match how:
        case "remove":
            exits.remove(enrolment_ids=[enrolment.pk], now=world.now)
        case "pause":
            exits.pause(enrolment_ids=[enrolment.pk])
        case "goal":
            lead.triggers = ["bought"]
            lead.save()
    world.live(hours=6)
    message.refresh_from_db()
    assert message.state == State.CANCELLED
    assert world.texts(lead) == []
    if how == "pause":
        exits.resume(enrolment_ids=[enrolment.pk], now=world.now)
        world.live(hours=1)
        assert world.texts(lead) == ["step 1"]
    assert tallies.recount(sequence=sequence) == []


# -- 26: the lead's own device -----------------------------------------------------------------------------------------


def test_feature_26_own_device_and_the_enrolment_pauses_and_resumes_by_itself(world):
    owner, device, lead = one_lead(world)
    other = make_device(owner=owner)
    neighbour = make_leads(1, owner=owner, device=other)[0]
    homeless = make_leads(1, owner=owner)[0]
    sequence = world.sequence(owner, {}, {})
    world.enrol(sequence, lead, neighbour, homeless)
    Device.objects.filter(pk=device.pk).update(state=DeviceState.NEEDS_ATTENTION)
    world.live(hours=3)
    assert state_of(lead) == state_of(homeless) == ("paused", "device")
    assert len(world.texts(neighbour)) == 2
    Device.objects.filter(pk=device.pk).update(state=DeviceState.ACTIVE)
    Lead.objects.filter(pk=homeless.pk).update(device=other)
    world.live(minutes=10)
    assert world.texts(lead) == world.texts(homeless) == ["step 1"]  # one overdue step each
    assert state_of(lead)[0] == "active"
    world.live(hours=2)
    assert world.texts(lead) == ["step 1", "step 2"]
    used = set(Message.objects.filter(lead=lead).values_list("device_id", flat=True))
    assert used == {device.pk}


def test_feature_26_a_device_that_fails_while_the_step_waits_pauses_too(world):
    owner, device, lead = one_lead(world)
    sequence = world.sequence(owner, {"delay_minutes": 0}, late_hours=10)
    Device.objects.filter(pk=device.pk).update(held_until=world.now + timedelta(hours=1), wake_at=None)
    world.enrol(sequence, lead)
    world.work()
    Device.objects.filter(pk=device.pk).update(state=DeviceState.PAUSED)
    world.live(minutes=30)
    assert state_of(lead) == ("paused", "device")
    Device.objects.filter(pk=device.pk).update(state=DeviceState.ACTIVE)
    world.live(hours=2)
    assert state_of(lead) == ("completed", "")
    assert world.texts(lead) == ["step 1"]


def test_feature_26_steps_that_are_too_late_are_skipped_and_one_overdue_goes_out(world):
    owner, _, lead = one_lead(world)
    sequence = world.sequence(owner, *({"delay_minutes": DAY} for _ in range(6)), late_hours=36, exit_on_reply=False)
    world.enrol(sequence, lead)
    world.live(hours=25)
    assert services.pause(sequence=sequence)
    world.live(days=3, hours=12)  # step 2 was due on day 2, step 3 would have been on day 3, step 4 on day 4
    assert services.resume(sequence=sequence, now=world.now)
    world.work()
    assert world.texts(lead) == ["step 1", "step 4"]  # the two before it were more than 36 hours late
    sent = world.heard_by(lead)[-1][1]
    world.live(days=1, hours=1)
    assert len(world.texts(lead)) == 3
    assert timedelta(0) <= world.heard_by(lead)[-1][1] - sent - timedelta(days=1) < timedelta(minutes=1)


def test_feature_26_everything_switched_off_for_a_while_makes_no_burst(world):
    owner, _, lead = one_lead(world)
    sequence = world.sequence(owner, {}, {}, {}, late_hours=100)
    world.enrol(sequence, lead)
    world.jump(hours=50)
    world.work()
    assert world.texts(lead) == ["step 1"]
    world.live(minutes=61)
    assert world.texts(lead) == ["step 1", "step 2"]


# -- 27: exits ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["reply", "opted_out", "goal"])
def test_feature_27_leaves_on_reply_refusal_and_goal(world, how):
    owner, _, lead = one_lead(world)
    sequence = world.sequence(owner, {}, {}, goal="bought")
    world.enrol(sequence, lead)
    world.live(minutes=90)
    match how:
        case "reply":
            world.reply(lead)
        case "opted_out":
            optout.opt_out(lead=lead, channel=ConsentEvent.Channel.API, now=world.now)
        case "goal":
            lead.triggers = ["bought"]
            lead.save()
    world.work()
    assert state_of(lead) == ("exited", how)  # at once, not when the next step is due
    world.live(days=2)
    assert world.texts(lead) == ["step 1"]
    (found,) = progress.of([sequence], now=world.now).values()
    assert (found.exited, found.exits, found.percent) == (1, {how: 1}, 100.0)


def test_feature_27_a_reply_leads_on_or_is_waited_for_or_is_no_matter(world):
    owner, device, eager = one_lead(world)
    silent, chatty = make_leads(2, owner=owner, device=device)
    question = {"on_reply": "go", "reply_goes_to": 3, "wait_minutes": DAY, "text": "shall we talk?"}
    sequence = world.sequence(
        owner, question, {"text": "never mind", "ends": True}, {"text": "great", "on_reply": "ignore"}, {"text": "bye"}
    )  # fmt: skip
    world.enrol(sequence, eager, silent, chatty)
    world.live(hours=2)
    for lead in (eager, chatty):
        world.reply(lead, "Yes please")
    world.live(minutes=61)
    assert world.texts(eager) == ["shall we talk?", "great"]
    world.reply(chatty, "and another thing")
    world.live(days=3)
    assert world.texts(eager) == world.texts(chatty) == ["shall we talk?", "great", "bye"]
    (_, asked), (text, at) = world.heard_by(silent)
    assert text == "never mind"
    assert timedelta(hours=25) <= at - asked < timedelta(hours=25, minutes=2)


def test_feature_27_a_step_that_failed_stops_the_lead_or_does_not_and_is_sent_again(world):
    owner, device, lead = one_lead(world)
    going = make_leads(1, owner=owner, device=device)[0]
    stopping = world.sequence(owner, {}, {})
    passing = world.sequence(owner, {}, {}, on_failure="go_on")
    world.simulator.add_faults({"fault": "error", "status": 503, "phase": "before"})
    world.enrol(stopping, lead)
    world.enrol(passing, going)
    world.live(hours=8)
    world.simulator.reset()
    world.live(hours=12)
    assert state_of(lead) == ("failed", "failed")
    assert state_of(going)[0] == "completed"
    assert world.texts(going) == ["step 2"]
    key = stopping.steps.get(position=1).pk
    assert {step.position: step.failed for step in progress.by_step(stopping)} == {1: 1, 2: 0}
    assert exits.retry_failed(sequence=stopping, key=key, device_id=0, now=world.now).retried == 0
    assert exits.retry_failed(sequence=stopping, key=key, device_id=lead.device_id, now=world.now).retried == 1
    world.live(hours=3)
    assert world.texts(lead) == ["step 1", "step 2"]
    assert state_of(lead)[0] == "completed"


# -- 28: editing -------------------------------------------------------------------------------------------------------


def test_feature_28_an_edit_is_previewed_then_applied_and_reaches_those_still_in(world):
    owner, device, ahead = one_lead(world)
    waiting, done = make_leads(2, owner=owner, device=device)
    sequence = world.sequence(owner, {"delay_minutes": 0}, {"delay_minutes": DAY})
    world.enrol(sequence, done)
    world.live(days=2)
    world.enrol(sequence, ahead)
    world.live(hours=1)
    Device.objects.filter(pk=device.pk).update(held_until=world.now + timedelta(hours=2), wake_at=None)
    world.enrol(sequence, waiting)
    world.work()
    steps = list(sequence.steps.order_by("position"))
    steps[0].text, steps[1].position = "new words", 3
    for step in steps:
        step.save()
    sequence.steps.create(position=2, text="put in", delay_minutes=DAY)
    world.live(minutes=30)
    assert world.texts(ahead) == ["step 1"]  # a draft changes nothing
    seen = editing.preview(sequence)
    assert seen.live == 2
    assert {(c.kind, c.position): (c.ahead, c.waiting) for c in seen.changes} == {
        ("text", 1): (1, 1), ("added", 2): (2, 0), ("moved", 3): (2, 0),
    }  # fmt: skip
    version = editing.apply(sequence=sequence, digest=seen.digest, by=owner, now=world.now)
    assert version is not None
    assert version.number == 2
    assert editing.apply(sequence=sequence, digest=seen.digest, by=owner, now=world.now) is None
    world.live(days=6)
    assert world.texts(done) == ["step 1", "step 2"]
    assert world.texts(ahead) == ["step 1", "put in", "step 2"]
    assert world.texts(waiting) == ["new words", "put in", "step 2"]
    contents = sequence.batches.order_by("key", "revision").values_list("batch__content__text", "batch__streams__total")
    assert list(contents) == [("step 1", 2), ("new words", 1), ("step 2", 3), ("put in", 2)]


def test_feature_28_a_step_is_taken_out_and_a_draft_that_changed_is_not_applied(world):
    owner, device, lead = one_lead(world)
    sequence = world.sequence(owner, {"delay_minutes": 0}, {}, {"text": "last"})
    Device.objects.filter(pk=device.pk).update(held_until=world.now + timedelta(hours=2), wake_at=None)
    world.enrol(sequence, lead)
    world.work()
    sequence.steps.get(position=1).delete()
    seen = editing.preview(sequence)
    assert [(c.kind, c.ahead, c.waiting) for c in seen.changes] == [("removed", 1, 1)]
    extra = sequence.steps.create(position=9, text="{{ broken", delay_minutes=1)
    with pytest.raises(editing.DraftChanged):
        editing.apply(sequence=sequence, digest=seen.digest, by=owner, now=world.now)
    bad = editing.preview(sequence)
    assert [problem.field for problem in bad.problems] == ["steps.9.text"]
    with pytest.raises(editing.NotReady):
        editing.apply(sequence=sequence, digest=bad.digest, by=owner, now=world.now)
    extra.delete()
    assert editing.apply(sequence=sequence, digest=seen.digest, by=owner, now=world.now) is not None
    world.live(days=1)
    assert world.texts(lead) == ["step 2", "last"]


# -- 29: progress ------------------------------------------------------------------------------------------------------


def test_feature_29_progress_from_counters_that_a_recount_confirms(world):
    owner, device, _ = one_lead(world)
    other = make_device(owner=owner)
    leads = [*make_leads(6, owner=owner, device=device), *make_leads(4, owner=owner, device=other)]
    sequence = world.sequence(owner, {}, {"delay_minutes": DAY})
    world.enrol(sequence, *leads)
    world.live(hours=2)
    world.reply(leads[0])
    leads[1].delete()
    world.work()
    (found,) = progress.of([sequence], now=world.now).values()
    assert (found.total, found.active, found.exited, found.completed) == (9, 8, 1, 0)
    assert found.percent == pytest.approx(100 / 9)
    assert found.ends_at is not None
    assert timedelta(hours=20) < found.ends_at - world.now <= timedelta(days=1)
    first, second = progress.by_step(sequence)
    assert (first.ahead, first.replied, first.messages.sent) == (0, 1, 10)
    assert (second.ahead, second.messages.total) == (8, 0)
    assert {(d.device_id, d.total, d.sent) for d in progress.by_device(sequence)} == {
        (device.pk, 6, 6),
        (other.pk, 4, 4),
    }
    world.live(days=2)
    (found,) = progress.of([sequence], now=world.now).values()
    assert (found.total, found.completed, found.percent, found.ends_at) == (9, 8, 100.0, None)
    assert tallies.recount(sequence=sequence) == []
    tallies.LINES, before = 0, tallies.LINES
    assert tallies.squash()
    tallies.LINES = before
    assert tallies.recount(sequence=sequence) == []
    Enrolment.objects.filter(pk=Enrolment.objects.first().pk).update(code="x")  # any move is counted, even this
    assert tallies.recount(sequence=sequence) == []


def test_feature_29_batches_are_one_per_content_not_one_per_tick(world):
    owner, device, _ = one_lead(world)
    sequence = world.sequence(owner, {}, {})
    for _ in range(5):
        world.enrol(sequence, *make_leads(2, owner=owner, device=device))
        world.live(days=9)  # past the expiry of ordinary batches
    assert sequence.batches.count() == 2
    assert set(Enrolment.objects.values_list("state", flat=True)) == {"completed"}
    assert Message.objects.filter(state=State.SENT).count() == 20


def test_source_of_entry_is_kept(world):
    owner, _, lead = one_lead(world, triggers=["new"])
    sequence = world.sequence(owner, {}, trigger="new")
    world.work()
    assert sequence.enrolments.get(lead=lead).source == EntrySource.TAG
    assert sequence.enrolments.get(lead=lead).enrolled_at == datetime(2027, 3, 1, 9, 0, tzinfo=UTC)
