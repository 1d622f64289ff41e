"""Home, health, queues and the pages of a device: what they show, to whom, and what their buttons do."""

from __future__ import annotations

import json
import re
from collections import Counter
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.utils import timezone

from campaigns import services as campaigns
from campaigns.models import Run
from config.attention import findings, overall
from devices.models import Device, DeviceShare, DeviceState, StatusLink
from leads.models import Lead
from messaging import days, halting, health
from messaging.health import Level
from messaging.models import Attempt, Batch, DayCount, InboundMessage, Message, Stream
from sequences import services as sequences
from sequences.entry import enrol
from sequences.models import EntrySource, Sequence, Step
from tests.browsing import signed_in
from tests.config.crew import at_work
from tests.factories import make_batch, make_campaign, make_device, make_leads, make_pool, make_user, messages_of

pytestmark = pytest.mark.django_db

PAGES = ("/admin/", "/admin/overview/", "/admin/health/", "/admin/health/state/", "/admin/queues/",
         "/admin/queues/state/", "/admin/workers/", "/admin/workers/state/", "/admin/devices/device/")  # fmt: skip


def fail(message: Message, **fields: Any) -> Message:
    """As the dispatch leaves a message that has failed for good."""
    fields = {"state": "failed", "error_text": "Not on WhatsApp.", "failed_at": timezone.now(), **fields}
    Message.objects.filter(pk=message.pk).update(**fields)
    stream = Stream.objects.get(pk=message.stream_id)
    Stream.objects.filter(pk=stream.pk).update(waiting=stream.waiting - 1, failed=stream.failed + 1)
    return message


def codes(user: User, *, failed: int = 0) -> dict[str, Level]:
    states: dict[str, int] = {}
    for state in Device.objects.visible_to(user).values_list("state", flat=True):
        states[state] = states.get(state, 0) + 1
    numbers = health.gather(now=timezone.now())
    found = findings(user=user, numbers=numbers, halt=halting.current(), states=states, failed=failed)
    assert overall(found) is max((each.level for each in found), key=lambda level: level.rank, default=Level.HEALTHY)
    return {each.code: each.level for each in found}


def test_what_needs_attention_is_named_with_its_level_and_belongs_to_those_who_see_it() -> None:
    me, other = make_user(), make_user()
    assert codes(me) == {"no_device": Level.DEGRADED, "ticks_silent": Level.WARNING}
    at_work()
    assert codes(me) == {"no_device": Level.DEGRADED}
    device = make_device(owner=me)
    assert codes(me) == {}
    batch = make_batch(owner=me, devices=[device], leads=3)
    Device.objects.filter(pk=device.pk).update(wake_at=timezone.now() - timedelta(seconds=60))
    assert codes(me) == {"release_late": Level.WARNING}
    Device.objects.filter(pk=device.pk).update(wake_at=timezone.now() - timedelta(minutes=10))
    assert codes(me) == {"release_late": Level.CRITICAL}
    halting.halt(now=timezone.now(), reason="Audit")
    assert codes(me) == {"halted": Level.WARNING}  # nothing has to move now
    halting.resume(now=timezone.now())
    Device.objects.filter(pk=device.pk).update(wake_at=None)
    first, second, _third = messages_of(batch)
    Message.objects.filter(pk=first.pk).update(state="unknown")
    Stream.objects.filter(pk=first.stream_id).update(waiting=2, unknown=1)
    Message.objects.filter(pk=second.pk).update(state="queued", lane=0, queued_at=timezone.now() - timedelta(minutes=6))
    Device.objects.filter(pk=device.pk).update(state=DeviceState.NEEDS_ATTENTION, attention_code="unreachable")
    make_device(owner=me, state="unpaired")
    assert codes(me, failed=2) == {
        "unclaimed": Level.CRITICAL, "none_connected": Level.WARNING, "devices_attention": Level.WARNING,
        "unpaired": Level.DEGRADED, "unknown": Level.DEGRADED, "failed": Level.DEGRADED,
    }  # fmt: skip
    make_device(owner=other)
    assert codes(other) == {"unclaimed": Level.CRITICAL}  # the installation's; devices and messages are mine


def test_buttons_of_what_needs_attention_lead_where_something_can_be_done() -> None:
    at_work()
    me = make_user(role="admin")
    device = make_device(owner=me, state="needs_attention", attention_code="unreachable")
    make_device(owner=me, state="unpaired")
    (message,) = messages_of(make_batch(owner=me, devices=[device]))
    Message.objects.filter(pk=message.pk).update(state="unknown")
    Stream.objects.filter(pk=message.stream_id).update(waiting=0, unknown=1, is_open=False)
    halting.halt(now=timezone.now(), by=me, reason="Audit")
    client = signed_in(me)
    html = client.get("/admin/overview/").json()["html"]
    links = dict(re.findall(r'class="fl-button" id="(do-[\w-]+)" href="([^"]+)"', html))
    assert set(links) == {"do-halted", "do-none_connected", "do-devices_attention", "do-unpaired", "do-unknown"}
    for link in links.values():
        assert client.get(link.replace("&amp;", "&")).status_code == 200
    assert "Reconnect all devices?" in client.get(links["do-devices_attention"]).content.decode()


def test_a_run_that_paused_itself_and_when_a_running_one_ends_stand_on_home() -> None:
    me = make_user()
    pool, _devices = make_pool(owner=me, devices=2, delay_min_seconds=10, delay_max_seconds=10)
    make_leads(20, owner=me)
    run = campaigns.launch(campaign=make_campaign(owner=me, pool=pool, name="Raya"), now=timezone.now()).run
    run = campaigns.trigger(run_id=run.pk, now=timezone.now())
    client = signed_in(me)
    assert "done about" in client.get("/admin/overview/").json()["html"]
    Batch.objects.filter(pk=run.batch_id).update(state="paused", reason="Two devices were banned.")
    html = client.get("/admin/overview/").json()["html"]
    assert "Two devices were banned." in html
    assert f'href="/admin/campaigns/run/{run.pk}/resume_run"' in html.replace('resume_run/"', 'resume_run"')


def test_the_chart_is_drawn_from_the_days_that_one_may_see() -> None:
    me, other = make_user(), make_user()
    today = days.today(timezone.now())
    DayCount.objects.create(device=make_device(owner=me), day=today, sent=1234, delivered=1000, failed=7)
    DayCount.objects.create(device=make_device(owner=other), day=today, sent=99_999)
    page = signed_in(me).get("/admin/")
    data = json.loads(page.context["cards"]["chart"]["json"])
    last = {series["label"]: series["data"][-1] for series in data["datasets"]}
    assert last == {"Failed": 7, "Replied": 0, "Read": 0, "Delivered": 1000, "Sent": 1234}
    assert len(data["labels"]) == 14
    assert "In 14 days: 1,234 sent, 1,000 delivered" in page.content.decode()
    assert "99,999" not in page.content.decode()


def test_first_steps_are_told_until_a_campaign_runs() -> None:
    me = make_user()
    client = signed_in(me)
    assert [step["done"] for step in client.get("/admin/").context["cards"]["steps"]] == [False, False, False]
    make_leads(1, owner=me, device=make_device(owner=me))
    assert [step["done"] for step in client.get("/admin/").context["cards"]["steps"]] == [True, True, False]
    campaigns.launch(campaign=make_campaign(owner=me), now=timezone.now())
    assert client.get("/admin/").context["cards"]["steps"] == []
    assert client.get("/admin/health/").context["failed"] == []


def test_failed_messages_are_retried_one_some_or_all_archived_and_deleted_by_those_who_may() -> None:
    me, other, member = make_user(), make_user(), make_user(role="team")
    device = make_device(owner=me)
    DeviceShare.objects.create(device=device, user=member)
    rows = [fail(message) for message in messages_of(make_batch(owner=me, devices=[device], leads=7))]
    (foreign,) = (fail(m) for m in messages_of(make_batch(owner=other, devices=[make_device(owner=other)])))
    client, url = signed_in(me), "/admin/health/failed/"

    def state(message: Message) -> str:
        return Message.objects.get(pk=message.pk).state

    client.post(url, {"do": f"retry:{rows[0].pk}", "chosen": [rows[1].pk]})  # its own button, whatever is ticked
    assert [state(row) for row in rows[:2]] == ["pending", "failed"]
    client.post(url, {"do": "retry", "chosen": [rows[1].pk, rows[2].pk, foreign.pk]})
    assert [state(row) for row in (rows[1], rows[2], foreign)] == ["pending", "pending", "failed"]
    client.post(url, {"do": "archive", "chosen": [rows[3].pk, foreign.pk]})
    assert Message.objects.get(pk=rows[3].pk).archived_at is not None
    assert Message.objects.get(pk=foreign.pk).archived_at is None
    question = client.post(url, {"do": f"delete:{rows[4].pk}"})
    assert "Delete this failed message?" in question.content.decode()
    assert state(rows[4]) == "failed"
    client.post(url, {"do": f"delete:{rows[4].pk}", "confirmed": "yes"})
    assert not Message.objects.filter(pk=rows[4].pk).exists()
    client.post(url, {"do": f"delete:{foreign.pk}", "confirmed": "yes"})
    client.post(url, {"do": "retry", "chosen": ["1e9", "", "-1", "٣"]})
    assert state(foreign) == "failed"

    assert "Send 2 messages again?" in client.get("/admin/health/retry-all/").content.decode()
    client.post("/admin/health/retry-all/", {"confirmed": "yes"})
    assert [state(row) for row in (rows[3], rows[5], rows[6], foreign)] == ["failed", "pending", "pending", "failed"]

    looks = signed_in(member)
    fail(rows[5])
    assert 'name="do"' not in looks.get("/admin/health/").content.decode()
    assert looks.post(url, {"do": f"retry:{rows[5].pk}"}).status_code == 403
    assert looks.get("/admin/health/retry-all/").status_code == 403
    assert client.get(url).status_code == 405


def test_pages_open_for_their_roles_only_and_say_nothing_of_others() -> None:
    owner = make_user()
    device = make_device(owner=owner, name="Very private")
    (message,) = messages_of(make_batch(owner=owner, devices=[device]))
    for role, status in {"admin": 200, "staff": 200, "team": 200, "ops": 200, "nobody": 403}.items():
        client = signed_in(make_user(role=role))
        for address in PAGES[2:-1]:
            answer = client.get(address)
            assert answer.status_code == status, (role, address)
            if role in {"staff", "team"}:
                assert "Very private" not in answer.content.decode()
            if role == "ops":
                assert message.phone not in answer.content.decode()
    at_work()
    assert "Very private" in signed_in(owner).get("/admin/queues/").content.decode()
    text = signed_in(owner).get("/admin/workers/").content.decode()
    assert all(words in text for words in ("Very private", "all@here", "1,234"))
    assert Client().get("/admin/health/").status_code == 302


def test_the_list_of_devices_shows_what_was_sent_beside_the_cap() -> None:
    me = make_user()
    capped, free = make_device(owner=me, cap_per_day=300), make_device(owner=me)
    for age, message in zip((1, 5, 30), messages_of(make_batch(owner=me, devices=[capped], leads=3)), strict=True):
        started = timezone.now() - timedelta(hours=age)
        Attempt.objects.create(
            message=message, device=capped, release_no=1, number=1, reference="r", started_at=started
        )
    DayCount.objects.create(device=free, day=days.today(timezone.now()), sent=4321)
    DayCount.objects.create(device=free, day=days.today(timezone.now()) - timedelta(days=1), sent=9)
    text = signed_in(me).get("/admin/devices/device/").content.decode()
    assert ">2 / 300</span>" in text
    assert "4,321" in text


def test_a_device_is_refreshed_logged_out_and_tested_from_its_page() -> None:
    me, other = make_user(), make_user()
    device = make_device(owner=me)
    base = f"/admin/devices/device/{device.pk}"
    client = signed_in(me)
    page = client.get(f"{base}/change/").content.decode()
    assert all(f"{base}/{name}/" in page for name in ("refresh_device", "pause_device", "status_link", "test_device"))
    assert "log_out_device" not in page  # the simulator links no phone
    assert "Refresh" in client.get(f"{base}/refresh_device/").content.decode()
    client.post(f"{base}/refresh_device/", {"confirmed": "yes"})
    assert Device.objects.get(pk=device.pk).refresh_asked_at is not None
    gowa = make_device(owner=me, gateway="gowa", base_url="https://gowa.example", credentials={"username": "u"})
    answer = client.get(f"/admin/devices/device/{gowa.pk}/log_out_device/")
    assert answer.headers["Location"] == f"/admin/devices/device/{gowa.pk}/pairing/log-out/"

    answer = client.post(f"{base}/test_device/", {"phone": "12", "text": "Hi"})
    assert "errorlist" in answer.content.decode() or "12" in answer.content.decode()
    assert Message.objects.count() == 0
    answer = client.post(f"{base}/test_device/", {"phone": "+60123456789", "text": "Hi"})
    message = Message.objects.get()
    assert answer.headers["Location"] == f"/admin/messaging/message/{message.pk}/change/"
    assert (message.device_id, message.batch.priority, message.batch.owner) == (device.pk, 0, me)
    for name in ("test_device", "refresh_device", "status_link"):
        assert signed_in(other).get(f"{base}/{name}/").status_code in {302, 403, 404}
        assert signed_in(other).post(f"{base}/{name}/", {"confirmed": "yes", "phone": "+60123456780"}).status_code in {
            302, 403, 404,
        }  # fmt: skip
    assert Message.objects.count() == 1
    assert StatusLink.objects.count() == 0


def test_a_status_link_shows_one_device_to_anybody_until_it_is_replaced_or_revoked() -> None:
    me = make_user()
    device = make_device(owner=me, name="Front desk", phone="+60129999999")
    (message,) = messages_of(make_batch(owner=me, devices=[device], text="Secret words"))
    DayCount.objects.create(device=device, day=days.today(timezone.now()), sent=1500)
    client, url = signed_in(me), f"/admin/devices/device/{device.pk}/status_link/"
    assert "public status link" in client.get(url).content.decode()
    assert not StatusLink.objects.exists()

    def make() -> str:
        text = client.post(url, {"confirmed": "yes"}).content.decode()
        found = re.search(r"http://testserver(/status/[\w-]{43})", text)
        assert found
        return found[1]

    first = make()
    assert StatusLink.objects.get().digest not in first
    anybody = Client()
    answer = anybody.get(first)
    text = answer.content.decode()
    assert all(words in text for words in ("Front desk", "Connected", "1,500"))
    assert not any(words in text for words in (device.phone, message.phone, "Secret words", me.username))
    assert (answer["Referrer-Policy"], answer["X-Robots-Tag"]) == ("no-referrer", "noindex, nofollow")
    assert "no-store" in answer["Cache-Control"]
    assert anybody.post(first).status_code == 405
    second = make()
    assert (anybody.get(first).status_code, anybody.get(second).status_code) == (404, 200)
    client.post(url, {"confirmed": "yes", "revoke": "yes"})
    for address in (second, "/status/x", f"/status/{'a' * 43}", "/status/%00"):
        assert anybody.get(address).status_code == 404


def pages_of_rows(owner: User, *, run: Run) -> list[str]:
    """The pages of one campaign, run, batch, message, device, lead and sequence, and the parts of them that move."""
    message = Message.objects.filter(batch=Run.objects.get(pk=run.pk).batch).earliest("pk")
    sequence = Sequence.objects.create(owner=owner, name="Welcome")
    for position in range(1, 11):
        Step.objects.create(sequence=sequence, position=position, text=f"Step {position}")
    sequences.activate(sequence=sequence, by=owner, now=timezone.now())
    enrol(sequence=sequence, leads=Lead.objects.all(), source=EntrySource.HAND, now=timezone.now() - timedelta(days=9))
    sequences.tick(now=timezone.now())
    return [
        "/admin/campaigns/campaign/calendar/",
        f"/admin/campaigns/campaign/{run.campaign_id}/change/",
        *(f"/admin/campaigns/run/{run.pk}/{part}/" for part in ("change", "progress", "devices")),
        *(f"/admin/messaging/batch/{message.batch_id}/{part}/" for part in ("change", "progress")),
        *(f"/admin/messaging/message/{message.pk}/{part}/" for part in ("change", "life")),
        f"/admin/messaging/message/?of=run-{run.pk}",
        f"/admin/devices/device/{message.device_id}/change/",
        f"/admin/leads/lead/{message.lead_id}/change/",
        f"/admin/leads/lead/{message.lead_id}/timeline/",
        *(f"/admin/sequences/sequence/{sequence.pk}/{part}/" for part in ("change", "progress", "report")),
    ]


def test_every_page_keeps_to_thirty_queries_and_asks_nothing_again_and_again(
    django_assert_max_num_queries: Any,
) -> None:
    boss = make_user(role="admin")
    pool, devices = make_pool(owner=boss, devices=20, cap_per_day=100)
    make_leads(60, owner=boss)
    for _ in range(8):
        run = campaigns.launch(campaign=make_campaign(owner=boss, pool=pool), now=timezone.now()).run
        campaigns.trigger(run_id=run.pk, now=timezone.now())
    for message in Message.objects.order_by("pk")[:40]:
        fail(message)
    Message.objects.filter(pk__in=Message.objects.order_by("-pk")[:15]).update(state="unknown")
    Device.objects.filter(pk__in=[device.pk for device in devices[:3]]).update(
        state="needs_attention", attention_code="unreachable"
    )
    client = signed_in(boss)
    for address in (*PAGES, *pages_of_rows(boss, run=run)):
        with django_assert_max_num_queries(30) as seen:
            assert client.get(address).status_code == 200, address
        again = Counter(query["sql"] for query in seen.captured_queries).most_common(1)
        assert again[0][1] <= 4, (address, again)


def test_enrolments_and_replies_are_found_by_their_lead() -> None:
    me, other = make_user(), make_user()
    device, now = make_device(owner=me), timezone.now()
    leads = make_leads(2, owner=me, device=device)
    for lead, name in zip(leads, ("Aisyah Rahman", "Budi"), strict=True):
        Lead.objects.filter(pk=lead.pk).update(name=name)
        InboundMessage.objects.create(
            gateway="simulator", event_id=str(lead.pk), device=device, lead=lead, phone=lead.phone, text="Hello",
            written_at=now, received_at=now,
        )  # fmt: skip
    sequence = Sequence.objects.create(owner=me, name="Welcome")
    Step.objects.create(sequence=sequence, position=1, text="Hello")
    sequences.activate(sequence=sequence, by=me, now=now)
    enrol(sequence=sequence, leads=Lead.objects.all(), source=EntrySource.HAND, now=now)
    for address in ("/admin/sequences/enrolment/", "/admin/messaging/inboundmessage/"):
        for asked, found in (("rahman", leads[:1]), (leads[1].phone, leads[1:]), ("nobody", []), ("", leads)):
            listed = signed_in(me).get(address, {"q": asked}).context["cl"].result_list
            assert {row.lead_id for row in listed} == {lead.pk for lead in found}, (address, asked)
        assert not signed_in(other).get(address, {"q": "rahman"}).context["cl"].result_list


def test_admin_pages_go_by_the_clock_that_the_browser_names() -> None:
    me = make_user()
    make_device(owner=me, last_sent_at=timezone.now())
    client = signed_in(me)
    device = Device.objects.get()
    address = f"/admin/devices/device/{device.pk}/change/"
    assert "UTC" in client.get(address).content.decode()
    client.cookies["flotilla_zone"] = "Asia/Kathmandu"
    assert "+0545" in client.get(address).content.decode()
    client.cookies["flotilla_zone"] = "../../etc/passwd"
    assert client.get(address).status_code == 200
    assert timezone.get_current_timezone_name() == "UTC"
