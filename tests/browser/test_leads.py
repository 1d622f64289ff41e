"""Pages of leads in a real browser: the segment's live count, an import with its preview, a merge, a deletion."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.contenttypes.models import ContentType
from django.utils import timezone
from playwright.sync_api import Page, expect

from leads.models import Lead, LeadImport, Segment
from messaging.services import send_single
from tests.browser.test_admin import DEADLINE_MS, browser, fits, page, sign_in  # noqa: F401 - fixtures
from tests.factories import make_device, make_leads, make_user

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]


@pytest.fixture(autouse=True)
def _fresh_content_types() -> None:
    """The tests before have emptied the tables, and what is remembered of them has other ids."""
    ContentType.objects.clear_cache()


def test_a_segment_counts_while_one_types(page: Page, live_server: Any) -> None:  # noqa: F811
    owner = make_user(role="staff", username="anna", password="pw-anna")
    make_leads(3, owner=owner, niches=["TEA"])
    device = make_device(owner=owner, name="Front desk")
    make_leads(1, owner=owner, device=device)
    sign_in(page, live_server.url, "anna", "pw-anna")
    page.goto(f"{live_server.url}/admin/leads/segment/add/")
    count = page.locator("output[data-count]")
    expect(count).to_have_text("4 leads", timeout=DEADLINE_MS)
    page.fill("#id_niches_any", "TEA, COFFEE")
    expect(count).to_have_text("3 leads", timeout=DEADLINE_MS)
    page.fill("#id_created_from", "yesterday")
    expect(count).to_contain_text("2026-01-31", timeout=DEADLINE_MS)  # what to write instead
    page.fill("#id_created_from", "7")
    expect(count).to_have_text("3 leads", timeout=DEADLINE_MS)
    page.fill("#id_niches_any", "")
    # the device is chosen in a box of select2's, which tells jQuery only
    page.locator("#id_device + .select2").click()
    page.locator(".select2-results__option", has_text="Front desk").click()
    expect(count).to_have_text("1 lead", timeout=DEADLINE_MS)
    assert fits(page)
    page.fill("#id_name", "Tea")
    page.get_by_role("button", name="Save and continue editing").click()
    expect(count).to_have_text("1 lead", timeout=DEADLINE_MS)
    page.wait_for_load_state("networkidle")  # the tables are emptied next
    assert Segment.objects.get().rules == {"device": device.pk, "created_from": {"days_ago": 7}}


def test_an_import_is_previewed_mapped_and_confirmed(page: Page, live_server: Any) -> None:  # noqa: F811
    make_user(role="staff", username="anna", password="pw-anna")
    sign_in(page, live_server.url, "anna", "pw-anna")
    page.goto(f"{live_server.url}/admin/leads/leadimport/add/")
    assert fits(page)
    content = b"Wer;Mobile;Ort\nAda;012-345 6789;Ipoh\nBob;12;Melaka\n"
    page.set_input_files("input[type=file]", {"name": "fair.csv", "mimeType": "text/csv", "buffer": content})
    page.get_by_role("button", name="Preview first").click()
    expect(page.get_by_role("heading", name="Import of fair.csv")).to_be_visible(timeout=DEADLINE_MS)
    expect(page.locator("tr[data-outcome]")).to_have_count(2, timeout=DEADLINE_MS)
    assert fits(page)
    page.select_option("#id_column_0", "name")
    page.get_by_role("button", name="Look again").click()
    expect(page.locator("tr[data-outcome]").first).to_contain_text("Ada", timeout=DEADLINE_MS)
    page.get_by_role("button", name="Import", exact=True).click()
    expect(page.locator("#import-state")).to_be_visible(timeout=DEADLINE_MS)
    found = LeadImport.objects.get()
    assert (found.state, found.mapping[:2]) == ("waiting", ["name", "phone"])


def test_two_leads_become_one_and_a_device_goes_after_its_counts_were_seen(page: Page, live_server: Any) -> None:  # noqa: F811
    owner = make_user(role="staff", username="anna", password="pw-anna")
    device = make_device(owner=owner, name="Front desk")
    first, second = make_leads(2, owner=owner, device=device)
    send_single(owner=owner, text="Hi", lead=second, device=device, now=timezone.now())
    sign_in(page, live_server.url, "anna", "pw-anna")
    page.goto(f"{live_server.url}/admin/merge-leads/{first.pk}/{second.pk}/")
    expect(page.get_by_text(f"What comes over if {first.pk} stays")).to_be_visible(timeout=DEADLINE_MS)
    assert fits(page)
    page.get_by_role("button", name="Merge for good").click()
    expect(page.get_by_text("Merged into")).to_be_visible(timeout=DEADLINE_MS)
    assert list(Lead.objects.all()) == [first]
    page.goto(f"{live_server.url}/admin/devices/device/{device.pk}/delete/")
    expect(page.get_by_role("heading", name="Delete Front desk?")).to_be_visible(timeout=DEADLINE_MS)
    assert fits(page)
    page.get_by_role("button", name="Delete for good").click()
    expect(page.get_by_text("is deleted, with 1 message")).to_be_visible(timeout=DEADLINE_MS)
    first.refresh_from_db()
    assert first.device is None
