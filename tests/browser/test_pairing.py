"""Linking a device to a phone, as a person does it."""

from __future__ import annotations

from typing import Any

import pytest
from playwright.sync_api import Page, expect

from devices.gateways import registry
from devices.models import Device, DeviceState
from tests.browser.test_admin import DEADLINE_MS, browser, fits, page, sign_in  # noqa: F401 - fixtures
from tests.devices.pairing_support import PairableDriver, gateway
from tests.factories import make_device, make_user

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]


def test_scan_the_code_and_the_page_says_linked(page: Page, live_server: Any) -> None:  # noqa: F811
    registry.register(PairableDriver())
    try:
        with gateway() as (url, phone):
            owner = make_user(role="staff", username="anna", password="pw-anna")
            device = make_device(
                owner=owner,
                name="Sales 1",
                gateway="pairable",
                base_url=url,
                credentials={},
                state=DeviceState.UNPAIRED,
            )
            sign_in(page, live_server.url, "anna", "pw-anna")
            page.goto(f"{live_server.url}/admin/devices/device/{device.pk}/pairing/")
            assert fits(page)

            page.fill("#pairing-phone", "+628110000001")
            page.get_by_role("button", name="Get a code").click()
            expect(page.locator("#pair-code")).to_have_text("ABCD-EFGH", timeout=DEADLINE_MS)
            expect(page.locator("[data-countdown]")).to_contain_text(" s", timeout=DEADLINE_MS)
            assert fits(page)
            page.get_by_role("link", name="Stop", exact=True).click()
            page.get_by_role("button", name="Stop linking").click()
            expect(page.locator("#pairing-end")).to_have_text("Stopped.", timeout=DEADLINE_MS)

            page.get_by_role("button", name="Show a QR code").click()
            code = page.locator("svg.fl-qr")
            expect(code).to_be_visible(timeout=DEADLINE_MS)
            assert fits(page)
            # While nothing changes, the page asks again and again and the picture is never drawn anew.
            with page.expect_response("**/pairing/state/"):
                pass
            code.evaluate("picture => { picture.dataset.same = 'yes' }")
            for _ in range(2):
                with page.expect_response("**/pairing/state/"):
                    pass
            expect(page.locator("svg.fl-qr[data-same=yes]")).to_be_visible()
            phone.qr = "2@another,code"
            expect(page.locator("svg.fl-qr[data-same=yes]")).to_have_count(0, timeout=DEADLINE_MS)

            phone.status = "connected"
            expect(page.locator("#pairing-end")).to_contain_text("+628110000001", timeout=DEADLINE_MS)
            assert Device.objects.get().state == DeviceState.ACTIVE
            assert fits(page)

            page.get_by_role("link", name="Log out").click()
            expect(page.get_by_text("sends nothing until it is linked again")).to_be_visible(timeout=DEADLINE_MS)
            assert fits(page)
    finally:
        del registry._BY_KIND["pairable"]
