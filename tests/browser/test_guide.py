"""A campaign written step by step: where something is missing, where somebody is led, and what is kept.

Pictures and axe as in :mod:`tests.browser.test_screens`.
"""

from __future__ import annotations

from typing import Any

import pytest
from django.conf import settings
from django.test import Client
from playwright.sync_api import Browser, Page, expect

from campaigns.models import Campaign, Run
from tests.browser.test_admin import DEADLINE_MS, browser, page, sign_in  # noqa: F401 - fixtures
from tests.browser.test_screens import _fresh_content_types, look, quiet  # noqa: F401 - fixtures
from tests.factories import make_device, make_leads, make_user

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True), pytest.mark.timeout(400)]

STEPS = ("who", "what", "when", "pace", "check")


def at(page: Page, key: str) -> None:  # noqa: F811
    """Only this step is shown, and the bar says so."""
    expect(page.locator(f'[data-guide-step="{key}"]')).to_be_visible(timeout=DEADLINE_MS)
    expect(page.locator("[data-guide-step]:visible")).to_have_count(1, timeout=DEADLINE_MS)
    expect(page.locator('[aria-current="step"]')).to_have_attribute("data-guide-to", key, timeout=DEADLINE_MS)


def go(page: Page, key: str) -> None:  # noqa: F811
    page.locator(f'[data-guide-to="{key}"]').click()
    at(page, key)


def state(page: Page, key: str, *, state: str) -> None:  # noqa: F811
    """What the bar says of a step."""
    expect(page.locator(f'[data-guide-to="{key}"]')).to_have_attribute("data-state", state, timeout=DEADLINE_MS)


def test_a_campaign_is_written_step_by_step_and_an_error_opens_its_step(quiet: Page, live_server: Any) -> None:  # noqa: F811
    owner = make_user(role="staff", username="anna", password="pw-anna")
    make_leads(6, owner=owner, device=make_device(owner=owner))
    sign_in(quiet, live_server.url, "anna", "pw-anna")
    quiet.goto(f"{live_server.url}/admin/campaigns/campaign/add/")
    at(quiet, "who")

    # On without a name: nothing is in the way, and the bar remembers it.
    quiet.get_by_role("button", name="Next").click()
    at(quiet, "what")
    expect(quiet.locator("#guide-what")).to_be_focused(timeout=DEADLINE_MS)
    state(quiet, "who", state="todo")
    go(quiet, "check")
    expect(quiet.locator("[data-guide-check]")).to_contain_text("Name: This field is required.", timeout=DEADLINE_MS)
    expect(quiet.locator("[data-guide-check]")).to_contain_text("6 of 6 leads", timeout=DEADLINE_MS)
    expect(quiet.get_by_role("button", name="Save and go to the launch")).to_be_hidden(timeout=DEADLINE_MS)
    look(quiet, "campaign-check-missing")
    quiet.locator('[data-guide-field="name"]').click()
    at(quiet, "who")
    expect(quiet.locator("#id_name")).to_be_focused(timeout=DEADLINE_MS)

    # Enter goes on and saves nothing; a draft is kept where one stands, and may still lack its text.
    quiet.fill("#id_name", "Raya greetings")
    quiet.locator("#id_name").press("Enter")
    at(quiet, "what")
    assert not Campaign.objects.exists()
    quiet.get_by_role("button", name="Save and continue editing").click()
    expect(quiet.get_by_text("was added successfully")).to_be_visible(timeout=DEADLINE_MS)
    at(quiet, "what")
    assert Campaign.objects.get().text == ""

    # What the server refuses is shown where it can be mended, wherever one was.
    quiet.fill("#id_text", "Hello {{ name")
    go(quiet, "pace")
    quiet.get_by_role("button", name="Save and continue editing").click()
    expect(quiet.get_by_text("Please correct the error")).to_be_visible(timeout=DEADLINE_MS)
    at(quiet, "what")
    expect(quiet.locator('[data-guide-step="what"] .errorlist')).to_be_visible(timeout=DEADLINE_MS)
    look(quiet, "campaign-refused")
    quiet.fill("#id_text", "Hello {{ name or 'friend' }}")
    expect(quiet.locator("[data-preview-bubble]")).to_contain_text("Hello Lead", timeout=DEADLINE_MS)

    # The last step follows what is typed, and leads to the launch's own question.
    go(quiet, "when")
    quiet.select_option("#id_schedule", "cron")
    quiet.fill("#id_cron", "0 9 * * MON")
    go(quiet, "check")
    expect(quiet.locator("[data-guide-check]")).to_contain_text("every Monday 09:00", timeout=DEADLINE_MS)
    go(quiet, "when")
    quiet.select_option("#id_schedule", "now")
    go(quiet, "check")
    expect(quiet.locator("[data-guide-check]")).to_contain_text("as soon as it is launched", timeout=DEADLINE_MS)
    for key in STEPS:
        state(quiet, key, state="ready")
    look(quiet, "campaign-check")
    quiet.get_by_role("button", name="Save and go to the launch").click()
    expect(quiet.get_by_role("button", name="Launch to 6 leads")).to_be_visible(timeout=DEADLINE_MS)
    assert not Run.objects.exists()


def test_without_a_script_all_steps_are_there_and_one_button_saves_them(
    browser: Browser,  # noqa: F811
    live_server: Any,
) -> None:
    inside = Client()
    inside.force_login(make_user(role="staff"))
    context = browser.new_context(java_script_enabled=False)
    context.set_default_timeout(DEADLINE_MS)
    session = inside.cookies[settings.SESSION_COOKIE_NAME].value
    context.add_cookies([{"name": settings.SESSION_COOKIE_NAME, "value": session, "url": live_server.url}])
    plain = context.new_page()
    plain.goto(f"{live_server.url}/admin/campaigns/campaign/add/")
    expect(plain.locator("[data-guide-step]:visible")).to_have_count(len(STEPS))
    expect(plain.locator("[data-guide-bar]")).to_be_hidden()
    plain.fill("#id_name", "Raya greetings")
    plain.fill("#id_text", "Hello")
    plain.get_by_role("button", name="Save", exact=True).click()
    expect(plain.get_by_text("was added successfully")).to_be_visible()
    assert Campaign.objects.get().text == "Hello"
    context.close()
