"""What must work of campaigns, rule by rule, for real: messages leave over HTTP and reach the simulator's phones."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import count

import pytest
import time_machine
from django.utils import timezone

from campaigns import answers, guarding, reports, routing, services, trying
from campaigns.models import AnswerCount, Run, RunState, Unassigned, Variant
from campaigns.running import batches_of
from campaigns.variants import bucket_of, ranges, split_limit, within
from devices.gateways.news import Reply
from devices.models import Device
from leads.models import Lead, Segment
from messaging.dispatch.release import release_round
from messaging.dispatch.send import Result
from messaging.inbound import store_replies
from messaging.media.models import MediaFile
from messaging.models import Batch, BatchState, Message
from messaging.services import SendRefused
from tests.api_support import V1, caller, fields_of, problem
from tests.campaigns.support import finish, launched, send_due, states
from tests.factories import make_campaign, make_device, make_leads, make_pool, make_user
from tests.messaging.recount import assert_counters_hold

pytestmark = pytest.mark.django_db(transaction=True)
_events = count(1)


def reply(message: Message, text: str = "Yes please") -> None:
    """The lead writes back, now."""
    said = Reply(f"e{next(_events)}", message.phone, text, timezone.now(), device_id=message.device_id)
    store_replies(gateway="simulator", replies=[said], now=timezone.now())


# -- 16: audience, live count, preview, test send ----------------------------------------------------------------------


def test_feature_16_audience_by_every_filter_is_counted_before_the_launch():
    client = caller()
    pool, (device, _) = make_pool(owner=client.user, devices=2)
    make_leads(3, owner=client.user, niches=["TRAVEL"], status="customer", device=device)
    make_leads(2, owner=client.user, niches=["TRAVEL"], triggers=["vip"])
    make_leads(4, owner=client.user, opted_out_at=timezone.now())
    segment = Segment.objects.create(owner=client.user, name="VIP", rules={"triggers_any": ["vip"]})
    for asked, total, eligible in (
        ({}, 9, 5),
        ({"niches": ["TRAVEL"]}, 5, 5),
        ({"niches": ["TRAVEL"], "status": "customer"}, 3, 3),
        ({"segment": segment.pk}, 2, 2),
        ({"lead_device": device.pk}, 3, 3),
        ({"limit_per_device": 1}, 9, 5),
    ):
        body = client.post(f"{V1}/campaigns/count", {"routing": "pooled", "pool": pool.pk, **asked}).json()
        assert (body["total"], body["eligible"], body["devices"]) == (total, eligible, 2), asked
    assert body["unassigned"] == 3
    stranger = caller().post(f"{V1}/campaigns/count", {"segment": segment.pk})
    assert set(fields_of(problem(stranger, 400, "invalid"))) == {"segment"}


def test_feature_16_preview_with_a_lead_and_a_test_to_a_number(sender, simulator):
    client = caller()
    pool, (device,) = make_pool(owner=client.user, devices=1)
    lead = make_leads(1, owner=client.user)[0]
    Lead.objects.filter(pk=lead.pk).update(name="Aisyah Rahman")
    campaign = make_campaign(owner=client.user, pool=pool, text="Hi {{ first_name or 'friend' }}")
    Variant.objects.create(campaign=campaign, name="A", share=50)
    Variant.objects.create(campaign=campaign, name="B", share=50, text="Dear {{ name }}")
    told = client.get(f"{V1}/campaigns/{campaign.pk}/message?lead={lead.pk}").json()
    assert [(each["variant"], each["text"]) for each in told] == [("A", "Hi Aisyah"), ("B", "Dear Aisyah Rahman")]
    problem(client.get(f"{V1}/campaigns/{campaign.pk}/message?lead=999999999"), 400, "invalid")
    made = client.post(f"{V1}/campaigns/{campaign.pk}/test", {"phone": "012-345 6789", "variant": "B"})
    assert made.status_code == 201, made.content
    send_due(sender)
    (entry,) = simulator.landed(device.credentials["token"])
    assert entry["phone"] == "+60123456789"
    assert Run.objects.count() == 0
    Lead.objects.filter(phone="+60123456789").update(opted_out_at=timezone.now())
    with pytest.raises(SendRefused):
        trying.send_test(campaign=campaign, phone="+60123456789", now=timezone.now())


# -- 17: schedule ------------------------------------------------------------------------------------------------------


def test_feature_17_at_a_time_in_a_zone_runs_then_and_once():
    nine_in_kl = datetime(2026, 12, 7, 1, tzinfo=UTC)
    with time_machine.travel(nine_in_kl - timedelta(days=1), tick=False) as clock:
        owner = make_user()
        pool, _ = make_pool(owner=owner, devices=1)
        make_leads(2, owner=owner)
        campaign = make_campaign(
            owner=owner, pool=pool, schedule="at", scheduled_at=nine_in_kl, time_zone="Asia/Kuala_Lumpur"
        )
        started = [services.start(campaign=campaign, now=timezone.now()) for _ in range(2)]
        assert [each.created for each in started] == [True, False]
        services.tick(now=timezone.now())
        assert Run.objects.get().state == RunState.PENDING
        clock.move_to(nine_in_kl + timedelta(seconds=1))
        for _ in range(3):
            services.tick(now=timezone.now())
        assert (Run.objects.get().state, Message.objects.count()) == (RunState.TRIGGERED, 2)


def test_feature_17_missed_by_more_than_a_quarter_of_an_hour_is_recorded_not_sent():
    at = datetime(2026, 12, 7, 1, tzinfo=UTC)
    with time_machine.travel(at - timedelta(hours=1), tick=False):
        owner = make_user()
        pool, _ = make_pool(owner=owner, devices=1)
        make_leads(2, owner=owner)
        for name in ("late", "in time"):
            campaign = make_campaign(owner=owner, pool=pool, name=name, schedule="at", scheduled_at=at)
            services.start(campaign=campaign, now=timezone.now())
    services.trigger(run_id=Run.objects.get(campaign__name="in time").pk, now=at + timedelta(minutes=14))
    services.tick(now=at + timedelta(minutes=16))
    found = dict(Run.objects.values_list("campaign__name", "state"))
    assert found == {"late": RunState.MISSED, "in time": RunState.TRIGGERED}
    assert "16 minutes late" in Run.objects.get(campaign__name="late").reason


# -- 18: once, pause, resume, cancel, clone ----------------------------------------------------------------------------


def test_feature_18_pause_stops_all_batches_resume_sends_the_rest_cancel_leaves_nothing(sender, simulator):
    owner = make_user()
    pool, _ = make_pool(owner=owner, devices=3)
    make_leads(30, owner=owner)
    campaign = make_campaign(owner=owner, pool=pool)
    for name in "AB":
        Variant.objects.create(campaign=campaign, name=name, share=50, text=f"Text {name}")
    run = launched(campaign)
    assert len(batches_of([run])[run.pk]) == 2
    assert send_due(sender, rounds=2) == 6
    _, released = release_round()
    assert services.pause_campaign(campaign)
    for item in released:  # before the pause: no claim of it succeeds any more
        assert sender.send(message_id=item.message_id, release_no=item.release_no) is Result.GIVEN_BACK
    assert send_due(sender) == 0
    assert (len(released), simulator.summary()["deliveries"]) == (3, 6)
    assert set(Batch.objects.values_list("state", flat=True)) == {BatchState.PAUSED}

    assert services.resume_campaign(campaign, now=timezone.now())
    assert send_due(sender, rounds=1) == 3
    assert services.cancel_campaign(campaign, now=timezone.now())
    assert send_due(sender) == 0
    found = states(finish(run))
    assert found == {"sent": 9, "cancelled": 21}
    assert simulator.summary()["deliveries"] == 9
    assert (run.state, run.reason) == (RunState.FINISHED, "Cancelled.")
    assert_counters_hold()
    clone = services.clone(campaign=campaign)
    assert (clone.state, clone.launched_at, clone.variants.count()) == ("draft", None, 2)


def test_feature_18_resuming_a_campaign_leaves_what_others_paused_alone():
    owner = make_user()
    pool, _ = make_pool(owner=owner, devices=1)
    make_leads(2, owner=owner)
    campaign = make_campaign(owner=owner, pool=pool)
    run = launched(campaign)
    services.pause(run, reason="Paused by itself: two devices were banned.")
    services.pause_campaign(campaign)
    services.resume_campaign(campaign, now=timezone.now())
    assert Batch.objects.get().state == BatchState.PAUSED
    assert services.resume(run, now=timezone.now())


def test_feature_18_a_run_that_fails_fails_every_unsent_message_with_the_reason(sender, simulator):
    owner = make_user()
    pool, _ = make_pool(owner=owner, devices=2)
    make_leads(10, owner=owner)
    campaign = make_campaign(owner=owner, pool=pool)
    for name in "AB":
        Variant.objects.create(campaign=campaign, name=name, share=50, text=name)
    run = launched(campaign)
    send_due(sender, rounds=2)
    assert services.fail(run, reason="The list was wrong.", now=timezone.now())
    assert states(finish(run)) == {"sent": 4, "failed": 6}
    assert (run.state, run.reason) == (RunState.FAILED, "The list was wrong.")
    failed = Message.objects.filter(state="failed").order_by().values_list("error_code", "error_text").distinct()
    assert list(failed) == [("run_failed", "The list was wrong.")]
    assert_counters_hold()


# -- 19: own device or pooled, limits, failing devices, unassigned -----------------------------------------------------


def test_feature_19_pooled_by_turns_with_a_limit_and_the_rest_is_transferable(sender, simulator):
    owner = make_user()
    pool, devices = make_pool(owner=owner, devices=3)
    make_leads(20, owner=owner)
    campaign = make_campaign(owner=owner, pool=pool, limit_per_device=4)
    run = launched(campaign)
    by_device = {part.name: part.counts.total for part in reports.by_device(run)}
    assert by_device == {device.name: 4 for device in devices}
    assert (run.unassigned, Unassigned.objects.count()) == (8, 8)
    services.trigger(run_id=run.pk, now=timezone.now())
    assert Unassigned.objects.count() == 8
    send_due(sender)
    assert finish(run).state == RunState.FINISHED

    Lead.objects.filter(pk=Unassigned.objects.order_by("pk").values("lead")[:1]).update(opted_out_at=timezone.now())
    other = make_device(owner=owner)
    client = caller(owner)
    listed = client.get(f"{V1}/runs/{run.pk}/unassigned").json()["results"]
    assert len(listed) == 8
    some = [row["lead"] for row in listed[:3]]
    answer = client.post(f"{V1}/runs/{run.pk}/assign", {"leads": some, "device": other.pk}).json()
    assert answer["unassigned"] == 5
    answer = client.post(f"{V1}/runs/{run.pk}/assign", {"pool": pool.pk}).json()
    assert answer["unassigned"] == 0
    services.tick(now=timezone.now())
    run.refresh_from_db()
    assert run.state == RunState.TRIGGERED  # it goes on
    send_due(sender)
    assert states(finish(run)) == {"sent": 19}  # one had opted out
    assert run.state == RunState.FINISHED
    assert Message.objects.values("phone").distinct().count() == 19
    assert_counters_hold()


def test_feature_19_a_failing_device_is_left_out_and_own_devices_leave_the_homeless_over(sender, simulator):
    owner = make_user()
    pool, (bad, good) = make_pool(owner=owner, devices=2)
    simulator.add_faults({"fault": "error", "status": 503, "device": bad.credentials["token"]})
    make_leads(12, owner=owner)
    first = launched(make_campaign(owner=owner, pool=pool, name="first", pause_at_percent=None))
    send_due(sender)
    assert routing.failing(devices=[bad.pk, good.pk], now=timezone.now()) == {bad.pk}
    second = launched(make_campaign(owner=owner, pool=pool, name="second"))
    assert [part.id for part in reports.by_device(second)] == [good.pk]
    assert services.preview(second.campaign).excluded == 1
    Device.objects.filter(pk=good.pk).update(state="paused")
    assert services.preview(second.campaign).devices == 1  # better than nobody
    assert first.unassigned == 0

    homes = make_device(owner=owner)
    make_leads(2, owner=owner, device=homes)
    own = launched(make_campaign(owner=owner, name="own"))
    assert (own.unassigned, states(own)) == (12, {"pending": 2})
    assert own.left_out == {"no_device": 12}


# -- 20: content -------------------------------------------------------------------------------------------------------


def test_feature_20_content_with_fallbacks_choices_and_a_greeting_reaches_the_phone(sender, simulator):
    client = caller()
    pool, _ = make_pool(owner=client.user, devices=1)
    Lead.objects.filter(pk=make_leads(1, owner=client.user)[0].pk).update(name="")
    body = {"name": "Hello", "text": "Dear {{ name or 'friend' }}, {tea|tea}?\nBye", "greeting": "ms",
            "routing": "pooled", "pool": pool.pk, "delay_min_seconds": 0, "delay_max_seconds": 0}  # fmt: skip
    made = client.post(f"{V1}/campaigns", body)
    assert made.status_code == 201, made.content
    run_id = client.post(f"{V1}/campaigns/{made.json()['id']}/launch").json()["run"]["id"]
    services.trigger(run_id=run_id, now=timezone.now())
    send_due(sender)
    (text,) = Message.objects.values_list("attempt_set__text", flat=True)
    assert text.startswith("Selamat ")
    assert text.endswith("Dear friend, tea?\nBye")


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"content_type": "image", "text": "Look"}, "media"),
        ({"content_type": "template"}, "template"),
        ({"text": "{{ name"}, "text"),
        ({"content_type": "audio", "text": "Hear"}, "text"),
        ({"variants": [{"name": "A", "share": 50, "text": "{{ x"}]}, "variants.0.text"),
        ({"greeting": "xx"}, "greeting"),
    ],
)
def test_feature_20_a_draft_says_what_is_wrong_with_its_content(change, field):
    answer = caller().post(f"{V1}/campaigns", {"name": "n", "text": "t", **change})
    assert field in fields_of(problem(answer, 400, "invalid"))


def test_feature_20_a_template_may_stand_below_a_picture_and_a_text_may_not():
    me = make_user()
    media = MediaFile.objects.create(
        owner=me, kind="image", name="x.jpg", mime_type="image/jpeg", size_bytes=3, sha256="ab" * 32
    )
    body = {"name": "n", "text": "", "content_type": "template", "media": media.pk,
            "template": {"name": "order_sent", "language": "en", "parameters": ["{{ name }}"]}}  # fmt: skip
    made = caller(me).post(f"{V1}/campaigns", body)
    assert made.status_code == 201, made.content
    answer = caller(me).post(f"{V1}/campaigns", {"name": "n", "text": "", "content_type": "video", "media": media.pk})
    assert "media" in fields_of(problem(answer, 400, "invalid"))


# -- 21: errors, estimates (tests/campaigns/test_estimates.py), expiry -------------------------------------------------


def test_feature_21_too_many_errors_pause_the_run_with_the_reason_and_resuming_forgives(sender, simulator):
    owner = make_user()
    pool, _ = make_pool(owner=owner, devices=2)
    make_leads(30, owner=owner)
    campaign = make_campaign(owner=owner, pool=pool, pause_at_percent=40, pause_min_calls=10)
    for name in "AB":
        Variant.objects.create(campaign=campaign, name=name, share=50, text=name)
    run = launched(campaign)
    simulator.add_faults({"fault": "reject", "text": "Number unknown", "count": 5})
    send_due(sender, rounds=4)
    assert guarding.watch(now=timezone.now()) == 0  # fewer calls than the least
    send_due(sender, rounds=1)
    assert guarding.watch(now=timezone.now() + timedelta(seconds=11)) == 1
    assert set(Batch.objects.values_list("state", flat=True)) == {BatchState.PAUSED}
    shown = caller(owner).get(f"{V1}/runs/{run.pk}").json()
    assert shown["batch_reason"].startswith(
        "Paused by itself: 5 of the latest 10 calls failed (50 %; the limit is 40 %)"
    )
    assert "Number unknown" in shown["batch_reason"]
    assert services.resume(run, now=timezone.now())
    assert guarding.watch(now=timezone.now() + timedelta(seconds=22)) == 0
    send_due(sender)
    assert states(finish(run)) == {"sent": 25, "failed": 5}


def test_feature_21_what_is_not_sent_in_time_expires():
    owner = make_user()
    pool, _ = make_pool(owner=owner, devices=1)
    make_leads(2, owner=owner)
    long_ago = timezone.now() - timedelta(days=3)
    run = launched(make_campaign(owner=owner, pool=pool, expires_after_days=2), now=long_ago)
    assert states(finish(run)) == {"expired": 2}
    services.tick(now=timezone.now())
    finish(run)
    assert run.state == RunState.FINISHED


# -- 22: retry, check-list ---------------------------------------------------------------------------------------------


def test_feature_22_what_failed_is_tried_again_where_that_makes_sense_and_the_run_goes_on(sender, simulator, settings):
    settings.FLOTILLA_RETRY_MINUTES = []
    owner = make_user()
    pool, _ = make_pool(owner=owner, devices=1)
    make_leads(6, owner=owner)
    run = launched(make_campaign(owner=owner, pool=pool))
    simulator.add_faults({"fault": "error", "status": 503, "count": 2}, {"fault": "reject", "count": 1})
    send_due(sender)
    assert states(finish(run)) == {"sent": 3, "failed": 3}
    assert run.state == RunState.FINISHED
    nobody = caller(owner).post(f"{V1}/runs/{run.pk}/retry", {"device": 2**31 - 1}, format="json").json()
    assert nobody == {"retried": 0, "left_alone": {}}
    mine = {"device": Message.objects.filter(state="failed").values_list("device_id", flat=True)[0]}
    answer = caller(owner).post(f"{V1}/runs/{run.pk}/retry", mine, format="json").json()
    assert answer == {"retried": 2, "left_alone": {"rejected_for_good": 1}}
    run.refresh_from_db()
    assert run.state == RunState.TRIGGERED
    send_due(sender)
    assert states(finish(run)) == {"sent": 5, "failed": 1}
    assert run.state == RunState.FINISHED
    assert_counters_hold()


def test_feature_22_the_check_list_names_each_problem():
    client = caller()
    empty, _ = make_pool(owner=client.user, devices=0)
    past = timezone.now() - timedelta(days=1)
    campaign = make_campaign(owner=client.user, pool=empty, schedule="at", scheduled_at=past, limit_per_device=1)
    Variant.objects.create(campaign=campaign, name="A", share=50)
    Variant.objects.create(campaign=campaign, name="B", share=30)
    told = client.get(f"{V1}/campaigns/{campaign.pk}/preview").json()["problems"]
    assert {(each["field"], each["code"]) for each in told} == {
        ("pool", "empty"),
        ("scheduled_at", "past"),
        ("variants", "shares"),
        ("variants", "same_text"),
        ("limit_per_device", "too_small"),
    }
    problem(client.post(f"{V1}/campaigns/{campaign.pk}/launch"), 422, "refused")


# -- 23: calendar, summary; progress, variants and replies -------------------------------------------------------------


def test_feature_23_calendar_and_summary_tell_what_ran_and_what_is_to_come():
    client = caller()
    pool, _ = make_pool(owner=client.user, devices=1)
    make_leads(3, owner=client.user)
    with time_machine.travel(datetime(2026, 12, 7, 12, tzinfo=UTC), tick=False):
        launched(make_campaign(owner=client.user, pool=pool, name="Now"))
        weekly = make_campaign(owner=client.user, pool=pool, name="Weekly", schedule="cron", cron="0 9 * * MON",
                               time_zone="Asia/Kuala_Lumpur")  # fmt: skip
        services.start(campaign=weekly, now=timezone.now())
        days = "first=2026-12-01&last=2026-12-22&time_zone=Asia/Kuala_Lumpur"
        found = client.get(f"{V1}/runs/calendar?{days}").json()
        assert [(entry["name"], entry["state"], entry["at"][:16]) for entry in found] == [
            ("Now", "triggered", "2026-12-07T12:00"),
            ("Weekly", "planned", "2026-12-14T01:00"),
            ("Weekly", "planned", "2026-12-21T01:00"),
        ]
        told = client.get(f"{V1}/campaigns/summary?{days}").json()
        assert (told["campaigns"]["scheduled"], told["runs"]["triggered"], told["messages"]["pending"]) == (2, 1, 3)
        assert client.get(f"{V1}/campaigns/summary?first=2026-12-08&last=2026-12-09").json()["messages"]["total"] == 0
        assert caller().get(f"{V1}/runs/calendar?{days}").json() == []
        bad = client.get(f"{V1}/runs/calendar?first=2026-01-01&last=2026-12-31")
        assert set(fields_of(problem(bad, 400, "invalid"))) == {"last"}


def test_variants_split_by_a_stable_hash_and_are_told_apart_with_their_replies(sender, simulator):
    owner = make_user()
    pool, _ = make_pool(owner=owner, devices=2)
    leads = make_leads(60, owner=owner)
    campaign = make_campaign(owner=owner, pool=pool)
    Variant.objects.create(campaign=campaign, name="A", share=70, text="Text A")
    Variant.objects.create(campaign=campaign, name="B", share=30, text="Text B")
    run = launched(campaign)
    for lead in leads:  # Python and SQL agree on who is in which
        bucket = bucket_of(campaign_id=campaign.pk, lead_id=lead.pk)
        expected = "Text A" if bucket < 7000 else "Text B"
        assert Message.objects.get(lead=lead).batch.content["text"] == expected
    everybody = Lead.objects.filter(owner=owner)
    parts = [within(everybody, campaign_id=campaign.pk, lower=a, upper=b).count() for a, b in ranges([70, 30])]
    assert sum(parts) == 60
    assert min(parts) > 5
    send_due(sender)
    answered = Message.objects.filter(batch__run_variant__name="B")[:3]
    for message in answered:
        reply(message)
        reply(message, "And again")
    for _ in range(3):
        answers.count_new(now=timezone.now())
    told = reports.report(run, now=timezone.now())
    assert (told.counts.total, told.counts.sent, told.replied) == (60, 60, 3)
    assert {part.name: (part.counts.sent, part.replied) for part in told.variants} == {
        "A": (parts[0], 0),
        "B": (parts[1], 3),
    }
    assert sum(part.replied for part in reports.by_device(run)) == 3
    assert sum(AnswerCount.objects.values_list("replied", flat=True)) == 3
    assert told.finish_at is None
    shown = caller(owner).get(f"{V1}/runs/{run.pk}/report").json()
    assert (shown["replied"], shown["variants"][1]["replied"]) == (3, 3)


@pytest.mark.django_db(transaction=False)
def test_a_limit_is_divided_among_variants_without_rest():
    assert split_limit(10, shares=[50, 30, 20]) == [5, 3, 2]
    assert sum(split_limit(7, shares=[34, 33, 33])) == 7
    assert ranges([34, 33, 33])[-1][1] == 10_000
