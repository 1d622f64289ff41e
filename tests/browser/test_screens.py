"""Home, health, queues and a device's pages as people meet them, at a phone's width and a desk's, dark and light.

axe-core (in ``axe/``, under the MPL 2.0) looks over every page. ``FLOTILLA_SHOTS`` names a folder for pictures of them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.contrib.contenttypes.models import ContentType
from django.utils import timezone
from playwright.sync_api import Page, expect

from campaigns import services as campaigns
from devices.models import Device
from messaging import days
from messaging.dispatch.publish import all_bells
from messaging.models import DayCount, Message, Pulse, Stream, WorkerProcess
from tests.browser.test_admin import DEADLINE_MS, browser, fits, page, sign_in  # noqa: F401 - fixtures
from tests.factories import make_campaign, make_leads, make_pool, make_user

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True), pytest.mark.timeout(400)]


AXE = (Path(__file__).parent / "axe" / "axe.min.js").read_text(encoding="utf-8")


@pytest.fixture(autouse=True)
def _fresh_content_types() -> None:
    """The tests before have emptied the tables, and what is remembered of them has other ids."""
    ContentType.objects.clear_cache()


@pytest.fixture
def quiet(page: Page) -> Iterator[Page]:  # noqa: F811
    """The page, failing its test on anything that a script complains of."""
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text) if message.type == "error" else None)
    yield page
    assert said == []


def busy_fleet(owner: User) -> None:
    """Two weeks of history, a running campaign, some trouble."""
    now = timezone.now()
    later = now + timedelta(hours=1)  # these tests may take long; nobody falls silent meanwhile
    Pulse.objects.create(name="ticks", at=later)
    for name, queues in (("devices@kl-1", all_bells()), ("control@kl-1", ["control"])):
        WorkerProcess.objects.create(
            name=name, host="kl-1", pid=17, queues=queues, threads=8, started_at=now, seen_at=later, last_active_at=now,
            tasks=4211, sent=2318, failed=9, sent_per_minute=41, memory_mb=74,
        )  # fmt: skip
    pool, devices = make_pool(owner=owner, devices=12, delay_min_seconds=10, delay_max_seconds=30, cap_per_day=300)
    for number, device in enumerate(devices, start=1):
        Device.objects.filter(pk=device.pk).update(
            name=f"Kuala Lumpur {number}", last_sent_at=now - timedelta(minutes=7 * number)
        )
        for age in range(14):
            sent = 180 + 13 * ((age * 5 + number) % 11) - (90 if age % 7 in {2, 3} else 0)
            DayCount.objects.create(
                device=device, day=days.today(now) - timedelta(days=age), sent=sent, delivered=int(sent * 0.95),
                read=int(sent * 0.7), replied=int(sent * 0.12), failed=(age * number) % 6,
            )  # fmt: skip
    make_leads(1840, owner=owner)
    for name in ("Raya greetings", "Payment reminder, July"):
        run = campaigns.launch(campaign=make_campaign(owner=owner, pool=pool, name=name), now=now).run
        campaigns.trigger(run_id=run.pk, now=now)
    Stream.objects.filter(batch__name__contains="Raya").update(sent=60, waiting=90, delivered=55, read=30)
    words = ("This number is not on WhatsApp.", "The gateway refused the text: too long.", "No answer within 30 s.")
    for number, message in enumerate(Message.objects.order_by("pk")[:9]):
        Message.objects.filter(pk=message.pk).update(
            state="failed", error_text=words[number % 3], failed_at=now - timedelta(minutes=3 * number + 1)
        )
        Stream.objects.filter(pk=message.stream_id).update(failed=3)
    for message in Message.objects.order_by("-pk")[:4]:
        Message.objects.filter(pk=message.pk).update(state="unknown")
        Stream.objects.filter(pk=message.stream_id).update(unknown=1)
    Device.objects.filter(name="Kuala Lumpur 3").update(
        state="needs_attention", state_reason="It does not answer.", attention_code="unreachable"
    )
    Device.objects.filter(name="Kuala Lumpur 5").update(state="paused")
    Device.objects.update(wake_at=now + timedelta(minutes=2))


def look(page: Page, name: str) -> None:  # noqa: F811
    """What has to be true of every page; and a picture, where one is wanted."""
    assert fits(page), name
    folder = os.environ.get("FLOTILLA_SHOTS")
    if folder:
        width = (page.viewport_size or {"width": 0})["width"]
        page.screenshot(path=str(Path(folder) / f"{name}-{width}.png"), full_page=True)
    page.evaluate(AXE)  # not a script tag: a page's own policy may refuse those
    found = page.evaluate("axe.run({runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa']})")
    serious = [
        (each["id"], [(node["target"], node["failureSummary"]) for node in each["nodes"]])
        for each in found["violations"]
        if each["impact"] in {"serious", "critical"}
    ]
    assert serious == [], name


def test_home_says_how_it_is_and_follows_and_tells_when_contact_is_lost(quiet: Page, live_server: Any) -> None:
    owner = make_user(role="staff", username="anna", password="pw-anna")
    sign_in(quiet, live_server.url, "anna", "pw-anna")
    expect(quiet.locator(".fl-first li")).to_have_count(3, timeout=DEADLINE_MS)
    look(quiet, "home-empty")
    busy_fleet(owner)
    quiet.reload()
    expect(quiet.locator("[data-overall]")).to_have_text("Degraded", timeout=DEADLINE_MS)
    expect(quiet.get_by_text("4 messages nobody knows whether they arrived")).to_be_visible(timeout=DEADLINE_MS)
    expect(quiet.locator("#days-chart canvas")).to_be_visible(timeout=DEADLINE_MS)
    quiet.wait_for_function("Chart.getChart(document.querySelector('#days-chart canvas')) !== undefined")
    look(quiet, "home")
    quiet.evaluate("window.drawn = Chart.getChart(document.querySelector('#days-chart canvas'))")

    # It follows by itself, and the chart is moved, not drawn anew.
    DayCount.objects.filter(day=days.today(timezone.now())).update(sent=1000)
    Stream.objects.filter(unknown=1).update(unknown=0)
    quiet.wait_for_function("window.drawn.data.datasets[4].data[13] === 12000", timeout=DEADLINE_MS)
    expect(quiet.locator("#do-unknown")).to_have_count(0, timeout=DEADLINE_MS)

    quiet.route("**/admin/overview/", lambda route: route.fulfill(status=204, body=""))
    expect(quiet.locator('[data-poll-note="overview"]')).to_contain_text("Contact lost", timeout=DEADLINE_MS)
    quiet.unroute("**/admin/overview/")
    expect(quiet.locator('[data-poll-note="overview"]')).to_be_hidden(timeout=2 * DEADLINE_MS)


def test_what_failed_is_retried_and_deleted_from_the_health_page(quiet: Page, live_server: Any) -> None:
    owner = make_user(role="staff", username="anna", password="pw-anna")
    busy_fleet(owner)
    sign_in(quiet, live_server.url, "anna", "pw-anna")
    quiet.get_by_role("link", name="See why").click()
    expect(quiet.locator("#failed .fl-failed-row")).to_have_count(9, timeout=DEADLINE_MS)
    look(quiet, "health")
    quiet.locator("#failed .fl-failed-row").first.get_by_role("button", name="Retry").click()
    expect(quiet.get_by_text("1 message is sent again.")).to_be_visible(timeout=DEADLINE_MS)
    boxes = quiet.locator("#failed input[type=checkbox]")
    boxes.nth(0).check()
    boxes.nth(1).check()
    quiet.get_by_role("button", name="Archive chosen").click()
    expect(quiet.locator("#failed .fl-failed-row")).to_have_count(6, timeout=DEADLINE_MS)
    quiet.locator("#failed .fl-failed-row").first.get_by_role("button", name="Delete").click()
    expect(quiet.get_by_role("heading", name="Delete this failed message?")).to_be_visible(timeout=DEADLINE_MS)
    look(quiet, "delete-failed")
    quiet.get_by_role("button", name="Delete for good").click()
    expect(quiet.locator("#failed .fl-failed-row")).to_have_count(5, timeout=DEADLINE_MS)
    quiet.locator("#failed").get_by_role("link", name="Retry all").click()
    quiet.get_by_role("button", name="Retry").click()
    expect(quiet.get_by_text("5 messages are sent again.")).to_be_visible(timeout=DEADLINE_MS)
    assert Message.objects.filter(state="failed", archived_at__isnull=True).count() == 0

    quiet.locator("#unknown input[type=checkbox]").first.check()
    quiet.get_by_role("button", name="Count as sent").click()
    quiet.get_by_role("button", name="Count as sent").click()
    expect(quiet.get_by_text("1 settled.")).to_be_visible(timeout=DEADLINE_MS)


def test_a_device_is_tested_and_shown_to_anybody_with_its_link(quiet: Page, live_server: Any) -> None:
    owner = make_user(role="staff", username="anna", password="pw-anna")
    busy_fleet(owner)
    sign_in(quiet, live_server.url, "anna", "pw-anna")
    quiet.goto(f"{live_server.url}/admin/queues/")
    expect(quiet.get_by_role("link", name="Kuala Lumpur 1", exact=True)).to_be_visible(timeout=DEADLINE_MS)
    look(quiet, "queues")
    quiet.goto(f"{live_server.url}/admin/workers/")
    quiet.get_by_label("Device", exact=True).fill("lumpur 5")
    quiet.get_by_role("button", name="Show", exact=True).click()
    expect(quiet.locator("tr[data-device]")).to_have_count(1, timeout=DEADLINE_MS)
    expect(quiet.get_by_role("link", name="Resume Kuala Lumpur 5 …")).to_be_visible(timeout=DEADLINE_MS)
    quiet.goto(f"{live_server.url}/admin/workers/")
    expect(quiet.locator("tr[data-device]")).to_have_count(12, timeout=DEADLINE_MS)
    look(quiet, "workers")
    quiet.goto(f"{live_server.url}/admin/devices/device/")
    look(quiet, "devices")
    device = Device.objects.get(name="Kuala Lumpur 1")
    base = f"{live_server.url}/admin/devices/device/{device.pk}"
    quiet.goto(f"{base}/change/")
    look(quiet, "device")
    quiet.goto(f"{base}/test_device/")
    quiet.fill("#id_phone", "+60123456789")
    look(quiet, "device-test")
    quiet.get_by_role("button", name="Send", exact=True).click()
    expect(quiet.get_by_text("The test goes out now")).to_be_visible(timeout=DEADLINE_MS)
    quiet.goto(f"{base}/status_link/")
    quiet.get_by_role("button", name="Make the link").click()
    address = quiet.locator("code.fl-token").inner_text()
    look(quiet, "status-link")
    quiet.context.clear_cookies()
    quiet.goto(address)
    expect(quiet.get_by_role("heading", name="Kuala Lumpur 1")).to_be_visible(timeout=DEADLINE_MS)
    look(quiet, "status")
