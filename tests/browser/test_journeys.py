"""Journeys beside the campaign's (:mod:`tests.browser.test_reports`): a sequence from its first word to a lead on its
way, what somebody answers, and everything stopped and set going again.

What workers and beat do in between is done by the same functions that they call.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone
from playwright.sync_api import Page, expect

from devices.gateways.news import Reply
from leads.models import Lead
from messaging import halting
from messaging.inbound import store_replies
from messaging.models import Message, Pulse
from messaging.services import send_single
from sequences import services as sequences
from sequences.models import Sequence, Step
from tests.browser.test_admin import DEADLINE_MS, browser, page, sign_in  # noqa: F401 - fixtures
from tests.browser.test_reports import hidden_link
from tests.browser.test_screens import _fresh_content_types, look, quiet  # noqa: F401 - fixtures
from tests.factories import make_batch, make_device, make_leads, make_user, messages_of

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True), pytest.mark.timeout(600)]


def add_step(page: Page, *, number: int, text: str, minutes: int) -> None:  # noqa: F811
    """One more of the steps on a sequence's form."""
    page.locator("#steps-group a.add-row").click()
    page.fill(f"#id_steps-{number}-position", str(number + 1))
    page.fill(f"#id_steps-{number}-delay_minutes", str(minutes))
    page.fill(f"#id_steps-{number}-text", text)


def choose_action(page: Page, *, leads: int, action: str) -> None:  # noqa: F811
    """Tick so many of a list, and ask for something to be done with them."""
    boxes = page.locator("input.action-select")
    for number in range(leads):
        boxes.nth(number).check()
    page.locator('select[name="action"]').select_option(label=action)
    page.get_by_role("button", name="Run", exact=True).click()


def test_a_sequence_is_written_activated_and_a_lead_sets_out(quiet: Page, live_server: Any) -> None:  # noqa: F811
    owner = make_user(role="staff", username="anna", password="pw-anna")
    lead = make_leads(1, owner=owner, device=make_device(owner=owner, name="Front desk"))[0]
    sign_in(quiet, live_server.url, "anna", "pw-anna")

    quiet.goto(f"{live_server.url}/admin/sequences/sequence/add/")
    quiet.fill("#id_name", "Welcome")
    add_step(quiet, number=0, text="Hello {{ name }}, good to have you with us.", minutes=0)
    add_step(quiet, number=1, text="Shall we call you?", minutes=24 * 60)
    look(quiet, "sequence-form")
    quiet.get_by_role("button", name="Save and continue editing").click()
    expect(quiet.get_by_text("was added successfully")).to_be_visible(timeout=DEADLINE_MS)
    assert list(Step.objects.order_by("position").values_list("delay_minutes", flat=True)) == [0, 24 * 60]

    # It says what it will do, then does it.
    quiet.goto(f"{live_server.url}{hidden_link(quiet, 'activate_sequence')}")
    look(quiet, "sequence-activate")
    quiet.get_by_role("button", name="Activate", exact=True).click()
    expect(quiet.locator("#sequence-state [data-step]")).to_have_count(2, timeout=DEADLINE_MS)

    quiet.goto(f"{live_server.url}/admin/leads/lead/")
    choose_action(quiet, leads=1, action="Enrol the chosen leads in a sequence")
    quiet.select_option("#id_sequence", label="Welcome")
    look(quiet, "enrol")
    quiet.get_by_role("button", name="Enrol", exact=True).click()
    expect(quiet.get_by_text("1 lead entered “Welcome”.")).to_be_visible(timeout=DEADLINE_MS)

    # Watched on its page: the lead is in it, and its first message waits to be sent.
    quiet.goto(f"{live_server.url}/admin/sequences/sequence/{Sequence.objects.get().pk}/change/")
    expect(quiet.locator('#sequence-state [data-part="Active"]')).to_have_text("1", timeout=DEADLINE_MS)
    sequences.tick(now=timezone.now())
    message = Message.objects.get(lead=lead)
    quiet.goto(f"{live_server.url}/admin/sequences/enrolment/")
    expect(quiet.locator("#result_list tbody tr")).to_contain_text("Welcome", timeout=DEADLINE_MS)
    look(quiet, "enrolments")
    quiet.goto(f"{live_server.url}/admin/messaging/message/{message.pk}/change/")
    expect(quiet.locator(".fl-bubble")).to_contain_text("good to have you with us", timeout=DEADLINE_MS)


def wrote(lead: Lead, *, text: str, event: str) -> None:
    """What a webhook does with a reply."""
    assert lead.device_id is not None
    reply = Reply(event_id=event, device_id=lead.device_id, phone=lead.phone, text=text, at=timezone.now())
    assert store_replies(gateway="simulator", replies=[reply], now=timezone.now())


def test_an_answer_and_a_refusal_are_read_on_the_leads_page(quiet: Page, live_server: Any) -> None:  # noqa: F811
    owner = make_user(role="staff", username="anna", password="pw-anna")
    device = make_device(owner=owner, name="Front desk")
    lead = make_leads(1, owner=owner, device=device)[0]
    waiting = send_single(owner=owner, text="Our doors are open.", lead=lead, device=device, now=timezone.now())
    sign_in(quiet, live_server.url, "anna", "pw-anna")

    wrote(lead, text="Lovely, see you on Saturday!", event="in-1")
    quiet.goto(f"{live_server.url}/admin/leads/lead/{lead.pk}/change/")
    replies = quiet.get_by_role("region", name="Latest replies")
    expect(replies).to_contain_text("see you on Saturday", timeout=DEADLINE_MS)
    expect(quiet.locator("#timeline")).to_contain_text("Message: Pending", timeout=DEADLINE_MS)
    look(quiet, "lead")

    wrote(lead, text="STOP", event="in-2")
    quiet.reload()
    expect(replies.locator("tbody tr")).to_have_count(2, timeout=DEADLINE_MS)
    expect(quiet.locator("#timeline")).to_contain_text("STOP", timeout=DEADLINE_MS)
    expect(quiet.locator('a[href$="/opt_in/"]').first).to_be_attached(timeout=DEADLINE_MS)
    look(quiet, "lead-opted-out")

    # Nothing goes out to them any more, and the message that waited says so.
    quiet.goto(f"{live_server.url}/admin/messaging/message/{waiting.pk}/change/")
    expect(quiet.locator("[data-why]")).to_contain_text("opted out", timeout=DEADLINE_MS)
    assert lead.pk in Lead.objects.filter(opted_out_at__isnull=False).values_list("pk", flat=True)


def test_everything_is_stopped_in_an_emergency_and_goes_on(quiet: Page, live_server: Any) -> None:  # noqa: F811
    boss = make_user(role="admin", username="anna", password="pw-anna")
    now = timezone.now()
    Pulse.objects.create(name="ticks", at=now + timedelta(hours=1))
    (message, *_rest) = messages_of(make_batch(owner=boss, devices=[make_device(owner=boss)], leads=3))
    sign_in(quiet, live_server.url, "anna", "pw-anna")

    quiet.goto(f"{live_server.url}/admin/messaging/halt/")
    look(quiet, "halt")
    quiet.get_by_role("link", name="Stop everything …").click()
    expect(quiet.locator(".fl-facts")).to_contain_text("3", timeout=DEADLINE_MS)
    look(quiet, "halt-question")
    quiet.get_by_label("Why (optional").fill("Wrong price in the text")
    quiet.get_by_role("button", name="Stop everything").click()
    expect(quiet.get_by_text("Everything is stopped.").first).to_be_visible(timeout=DEADLINE_MS)
    halt = halting.current()
    assert halt is not None
    assert halt.reason == "Wrong price in the text"
    look(quiet, "halted")

    quiet.goto(f"{live_server.url}/admin/messaging/message/{message.pk}/change/")
    expect(quiet.locator('[data-why="halted"]')).to_contain_text("Wrong price in the text", timeout=DEADLINE_MS)

    # Home says it to everybody, and leads to the way on.
    quiet.goto(f"{live_server.url}/admin/")
    expect(quiet.get_by_text("Everything is stopped by anna: Wrong price in the text")).to_be_visible(
        timeout=DEADLINE_MS
    )
    look(quiet, "home-halted")
    quiet.locator("#do-halted").click()
    expect(quiet.locator(".fl-facts")).to_contain_text("Wrong price in the text", timeout=DEADLINE_MS)
    quiet.get_by_role("button", name="Go on").click()
    expect(quiet.get_by_text("Messages go out again.")).to_be_visible(timeout=DEADLINE_MS)
    assert halting.current() is None
    quiet.goto(f"{live_server.url}/admin/messaging/message/{message.pk}/change/")
    expect(quiet.locator('[data-why="halted"]')).to_have_count(0, timeout=DEADLINE_MS)
