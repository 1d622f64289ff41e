"""The admin as people meet it: a real browser, a real server, scripts and all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest
from django.utils import timezone
from playwright.sync_api import Browser, Page, expect, sync_playwright

from campaigns import services
from campaigns.models import Run
from config.stack.browser import find_chromium
from devices.admin_forms import drivers, input_name
from devices.models import Device
from leads.models import Lead
from messaging.models import Batch
from tests.factories import make_batch, make_campaign, make_device, make_leads, make_pool, make_user, messages_of

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]

DEADLINE_MS = 60_000


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium. Playwright's loop runs in this thread for as long as it lives, and the ORM has to put up with that."""
    path = find_chromium()
    if path is None:
        pytest.skip("no Chromium on this machine: make test-browser installs it")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DJANGO_ALLOW_ASYNC_UNSAFE", "true")
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(
                executable_path=path, args=["--no-sandbox"] if os.geteuid() == 0 else []
            )
            yield browser
            browser.close()


@pytest.fixture(params=[(375, "dark"), (1920, "light")], ids=["phone-dark", "desktop-light"])
def page(request: pytest.FixtureRequest, browser: Browser) -> Iterator[Page]:
    """A page that fails its test on any error of a script."""
    width, scheme = request.param
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    context.set_default_timeout(DEADLINE_MS)
    page = context.new_page()
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    yield page
    context.close()
    assert errors == []


def sign_in(page: Page, address: str, username: str, password: str) -> None:
    page.goto(f"{address}/admin/")
    page.fill("#id_username", username)
    page.fill("#id_password", password)
    page.locator("#id_password").press("Enter")
    expect(page.locator("#overview")).to_be_visible(timeout=DEADLINE_MS)


def fits(page: Page) -> bool:
    """Whether nothing sticks out sideways."""
    return bool(page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"))


def test_log_in_open_a_campaign_launch_it_and_watch(page: Page, live_server: Any) -> None:
    owner = make_user(role="staff", username="anna", password="pw-anna")
    pool, _devices = make_pool(owner=owner, devices=2)
    make_leads(5, owner=owner)
    make_campaign(owner=owner, pool=pool, name="Raya greetings")
    sign_in(page, live_server.url, "anna", "pw-anna")
    assert fits(page)

    page.goto(f"{live_server.url}/admin/campaigns/campaign/")
    assert fits(page)
    page.get_by_role("link", name="Raya greetings").first.click()
    page.locator('[data-guide-to="what"]').click()
    expect(page.locator("#id_text")).to_be_visible(timeout=DEADLINE_MS)
    assert fits(page)
    launch = page.locator('a[href$="/launch_campaign/"]').first
    page.goto(f"{live_server.url}{launch.get_attribute('href')}")
    expect(page.get_by_text("5 of 5 leads that match")).to_be_visible(timeout=DEADLINE_MS)
    assert not Run.objects.exists()

    page.get_by_role("button", name="Launch to 5 leads").click()
    expect(page.locator("#run-state")).to_contain_text("Starting", timeout=DEADLINE_MS)
    run = Run.objects.get()

    # What a worker does after a launch; the page must notice by itself.
    services.trigger(run_id=run.pk, now=timezone.now())
    expect(page.locator('#run-state [data-part="Pending"]')).to_have_text("5", timeout=DEADLINE_MS)
    assert fits(page)

    page.get_by_role("link", name="Pause", exact=True).click()
    page.get_by_role("button", name="Pause", exact=True).click()
    expect(page.locator("#run-state")).to_contain_text("Paused", timeout=DEADLINE_MS)
    assert list(Batch.objects.values_list("state", flat=True)) == ["paused"]


def test_the_device_form_asks_for_the_credentials_of_the_chosen_gateway_and_never_shows_them(
    page: Page, live_server: Any
) -> None:
    make_user(role="staff", username="anna", password="pw-anna")
    sign_in(page, live_server.url, "anna", "pw-anna")
    page.goto(f"{live_server.url}/admin/devices/device/add/")
    for chosen in drivers():
        page.select_option("#id_gateway", chosen.kind)
        for driver in drivers():
            for field in driver.credential_fields:
                shown = page.locator(f"#id_{input_name(driver, field)}")
                expect(shown).to_be_visible(visible=driver is chosen, timeout=DEADLINE_MS)
    page.select_option("#id_gateway", "simulator")
    page.fill("#id_name", "Kuala Lumpur 1")
    page.fill("#id_credential_simulator_token", "sim-very-secret")
    page.get_by_role("button", name="Save and continue editing").click()
    expect(page.get_by_text("Stored. Leave empty to keep it.")).to_be_visible(timeout=DEADLINE_MS)
    assert page.locator("#id_credential_simulator_token").input_value() == ""
    assert "sim-very-secret" not in page.content()
    assert Device.objects.get().credentials == {"token": "sim-very-secret"}


PLUS_IS_LEFT = """number => {
    const text = number.firstChild, at = index => {
        const range = document.createRange();
        range.setStart(text, index);
        range.setEnd(text, index + 1);
        return range.getBoundingClientRect();
    };
    return at(0).right <= at(1).left + 0.5 && at(1).left < at(text.length - 1).left;
}"""


def test_the_plus_of_a_number_stays_on_its_left_beside_a_name_that_runs_from_right_to_left(
    page: Page, live_server: Any
) -> None:
    owner = make_user(role="staff", username="anna", password="pw-anna")
    (message,) = messages_of(make_batch(owner=owner, devices=[make_device(owner=owner, name="מכשיר 1")]))
    Lead.objects.filter(pk=message.lead_id).update(name="עלי כהן")
    sign_in(page, live_server.url, "anna", "pw-anna")
    for address in ("messaging/message/", f"messaging/message/{message.pk}/change/", "leads/lead/"):
        page.goto(f"{live_server.url}/admin/{address}")
        number = page.locator(".fl-phone").first
        expect(number).to_have_text(message.phone, timeout=DEADLINE_MS)
        assert number.evaluate(PLUS_IS_LEFT), address
        assert fits(page), address


def test_no_page_asks_for_anything_that_is_not_there(page: Page, live_server: Any) -> None:
    make_user(role="staff", username="anna", password="pw-anna")
    missing: list[str] = []
    page.on("response", lambda answer: missing.append(answer.url) if answer.status >= 400 else None)
    page.goto(f"{live_server.url}/admin/login/")
    page.wait_for_load_state("networkidle")
    sign_in(page, live_server.url, "anna", "pw-anna")
    page.goto(f"{live_server.url}/api/docs")
    expect(page.locator(".opblock").first).to_be_visible(timeout=DEADLINE_MS)
    assert missing == []


def test_pages_that_say_no_keep_the_frame_and_lead_home(page: Page, live_server: Any) -> None:
    make_user(role="team", username="mei", password="pw-mei")
    page.goto(f"{live_server.url}/nowhere")
    expect(page.get_by_role("link", name="Log in")).to_be_visible(timeout=DEADLINE_MS)
    assert fits(page)
    sign_in(page, live_server.url, "mei", "pw-mei")
    for address, words in (("devices/pool/", "This page is not open to you"), ("nothing/", "There is nothing here")):
        page.goto(f"{live_server.url}/admin/{address}")
        expect(page.get_by_role("heading", name=words)).to_be_visible(timeout=DEADLINE_MS)
        assert fits(page)
        page.locator("#content").get_by_role("link", name="Home").click()
        expect(page.locator("#overview")).to_be_visible(timeout=DEADLINE_MS)
