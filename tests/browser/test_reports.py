"""The way from nothing to a finished campaign, its report and one message's life; and a sequence from steps to report.

Both at a phone's width in the dark and at a desk's in the light, without one error on the console. Pictures and axe as
in :mod:`tests.browser.test_screens`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from django.utils import timezone
from playwright.sync_api import Page, expect

from campaigns import services as campaigns
from campaigns.models import Run
from devices.models import Device
from leads.models import Lead, LeadImport
from leads.services import run_import
from messaging.models import Attempt, InboundMessage, Message, Stream
from messaging.services import wrap_up
from sequences import services as sequences
from sequences.models import Sequence, Step, StepBatch
from tests.browser.test_admin import DEADLINE_MS, browser, page, sign_in  # noqa: F401 - fixtures
from tests.browser.test_screens import _fresh_content_types, look, quiet  # noqa: F401 - fixtures
from tests.factories import make_batch, make_campaign, make_pool, make_user

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True), pytest.mark.timeout(600)]


def went_out(run: Run) -> Message:
    """What workers and gateways do: all but one message is sent, most are read, one fails. Returns that one."""
    now = timezone.now()
    rows = list(Message.objects.filter(batch=run.batch).order_by("pk"))
    failed = rows[0]
    for number, message in enumerate(rows):
        bad = message == failed
        state = "failed" if bad else ("read", "delivered", "sent")[number % 3]
        Attempt.objects.create(
            message=message, device=message.device, release_no=1, number=1, reference="r", started_at=now,
            finished_at=now, text=f"Hello {message.lead.name if message.lead else ''}, our doors are open again.",
            outcome="rejected" if bad else "accepted", error_text="This number is not on WhatsApp." if bad else "",
        )  # fmt: skip
        Message.objects.filter(pk=message.pk).update(
            state=state, attempts=1, release_no=1, queued_at=now, sent_at=None if bad else now,
            delivered_at=now if state in {"read", "delivered"} else None, read_at=now if state == "read" else None,
            failed_at=now if bad else None, error_text="This number is not on WhatsApp." if bad else "",
        )  # fmt: skip
        stream = Stream.objects.get(pk=message.stream_id)
        stream.waiting -= 1
        stream.failed += bad
        stream.sent += not bad
        stream.delivered += state in {"read", "delivered"}
        stream.read += state == "read"
        stream.is_open = stream.waiting > 0
        stream.save()
    return failed


def hidden_link(page: Page, action: str) -> str:  # noqa: F811
    """Where a button leads that may stand in a menu."""
    return page.locator(f'a[href$="/{action}/"]').first.get_attribute("href") or ""


def add_device(page: Page) -> None:  # noqa: F811
    """The first of the first steps."""
    page.locator("#step-1").click()
    page.fill("#id_name", "Kuala Lumpur 1")
    page.select_option("#id_gateway", "simulator")
    page.fill("#id_credential_simulator_token", "sim-1")
    page.get_by_role("button", name="Save and continue editing").click()
    expect(page.get_by_text("was added successfully")).to_be_visible(timeout=DEADLINE_MS)


def import_leads(page: Page, address: str) -> None:  # noqa: F811
    """From a file that is looked at first; a worker takes it in."""
    page.goto(f"{address}/admin/leads/leadimport/add/")
    content = "name,phone\n" + "".join(f"Lead {n},+6012345670{n}\n" for n in range(6))
    file = {"name": "people.csv", "mimeType": "text/csv", "buffer": content.encode()}
    page.set_input_files("input[type=file]", file)
    page.fill("#id_consent_source", "Sign-up form")
    page.select_option("#id_device", label="Kuala Lumpur 1")
    page.get_by_role("button", name="Preview first").click()
    expect(page.locator("tr[data-outcome]")).to_have_count(6, timeout=DEADLINE_MS)
    page.get_by_role("button", name="Import", exact=True).click()
    expect(page.locator("#import-state")).to_be_visible(timeout=DEADLINE_MS)
    run_import(import_id=LeadImport.objects.get().pk)
    assert Lead.objects.filter(device__name="Kuala Lumpur 1", consent_at__isnull=False).count() == 6


def write_campaign(page: Page, address: str) -> None:  # noqa: F811
    """Its audience is counted and its message shown while it is written."""
    page.goto(f"{address}/admin/campaigns/campaign/add/")
    page.fill("#id_name", "Raya greetings")
    expect(page.locator("[data-count]")).to_contain_text("6 of 6 leads", timeout=DEADLINE_MS)
    page.locator('[data-guide-to="what"]').click()
    page.fill("#id_text", "Hello {{ name or 'friend' }}, our doors are open again.")
    expect(page.locator("[data-preview-bubble]")).to_contain_text("our doors are open", timeout=DEADLINE_MS)
    look(page, "campaign-form")
    page.get_by_role("button", name="Save and continue editing").click()
    expect(page.get_by_text("was added successfully")).to_be_visible(timeout=DEADLINE_MS)


def test_from_nothing_to_a_finished_campaign_and_a_retried_failure(
    quiet: Page,  # noqa: F811
    live_server: Any,
) -> None:
    make_user(role="staff", username="anna", password="pw-anna")
    sign_in(quiet, live_server.url, "anna", "pw-anna")

    add_device(quiet)
    import_leads(quiet, live_server.url)
    write_campaign(quiet, live_server.url)

    # Launched, watched, finished.
    quiet.goto(f"{live_server.url}{hidden_link(quiet, 'launch_campaign')}")
    look(quiet, "launch")
    quiet.get_by_role("button", name="Launch to 6 leads").click()
    expect(quiet.locator("#run-state")).to_contain_text("Starting", timeout=DEADLINE_MS)
    run = Run.objects.get()
    campaigns.trigger(run_id=run.pk, now=timezone.now())
    expect(quiet.locator('#run-state [data-part="Pending"]')).to_have_text("6", timeout=DEADLINE_MS)
    failed = went_out(Run.objects.get())
    expect(quiet.locator('#run-state [data-part="Sent"]')).to_have_text("5", timeout=DEADLINE_MS)
    wrap_up(now=timezone.now())
    campaigns.tick(now=timezone.now())
    expect(quiet.locator("#run-state")).to_contain_text("Finished", timeout=DEADLINE_MS)
    look(quiet, "run")

    # The report, and the lead behind its one failure.
    quiet.locator("#run-report").click()
    expect(quiet.locator('[data-card="failed"]')).to_have_text("1", timeout=DEADLINE_MS)
    look(quiet, "device-report-small")
    quiet.get_by_role("link", name="Failed: 1. Open the leads.").click()
    expect(quiet.locator("#result_list tbody tr")).to_have_count(1, timeout=DEADLINE_MS)
    look(quiet, "messages")

    # Why it failed, and once more.
    quiet.goto(f"{live_server.url}/admin/messaging/message/{failed.pk}/change/")
    expect(quiet.locator('[data-why="failed"]')).to_contain_text("not on WhatsApp", timeout=DEADLINE_MS)
    look(quiet, "message-failed")
    quiet.goto(f"{live_server.url}{hidden_link(quiet, 'retry_message')}")
    quiet.get_by_role("button", name="Retry").click()
    expect(quiet.get_by_text("1 message is sent again.")).to_be_visible(timeout=DEADLINE_MS)
    expect(quiet.locator("#message-state")).to_contain_text("Why not sent yet?", timeout=DEADLINE_MS)
    Device.objects.update(state="paused", state_reason="Its battery is low.")
    expect(quiet.locator('[data-why="device_paused"]')).to_contain_text("battery is low", timeout=DEADLINE_MS)


def test_a_fleets_report_is_filtered_and_a_message_tells_its_life(quiet: Page, live_server: Any) -> None:  # noqa: F811
    owner = make_user(role="staff", username="anna", password="pw-anna")
    pool, devices = make_pool(owner=owner, devices=14)
    for number, device in enumerate(devices, start=1):
        Device.objects.filter(pk=device.pk).update(name=f"Kuala Lumpur {number}")
    Lead.objects.bulk_create(
        Lead(owner=owner, name=f"Nur Aisyah {n}", phone=f"+60123456{n:03d}", consent_at=timezone.now(),
             consent_source="form")
        for n in range(280)
    )  # fmt: skip
    campaign = make_campaign(owner=owner, pool=pool, name="Raya greetings")
    run = campaigns.launch(campaign=campaign, now=timezone.now()).run
    campaigns.trigger(run_id=run.pk, now=timezone.now())
    streams = Stream.objects.filter(batch=Run.objects.get().batch)
    streams.update(sent=12, waiting=5, delivered=11, read=8, failed=2, unknown=1)
    sign_in(quiet, live_server.url, "anna", "pw-anna")
    quiet.goto(f"{live_server.url}/admin/campaigns/run/{run.pk}/devices/")
    expect(quiet.locator("tbody tr[data-device]")).to_have_count(14, timeout=DEADLINE_MS)
    look(quiet, "device-report")
    quiet.get_by_label("Device", exact=True).fill("lumpur 14")
    quiet.get_by_role("button", name="Show").click()
    expect(quiet.locator("tbody tr[data-device]")).to_have_count(1, timeout=DEADLINE_MS)
    with quiet.expect_download() as file:
        quiet.get_by_role("link", name="Devices as CSV").click()
    assert "Kuala Lumpur 14" in Path(file.value.path()).read_text(encoding="utf-8")

    message = Message.objects.latest("pk")
    now = timezone.now()
    common = {"message": message, "device": message.device, "started_at": now, "finished_at": now, "reference": "r"}
    text = "Hello Nur Aisyah, our doors are open again. Reply STOP and we will not write again."
    Attempt.objects.create(
        **common, release_no=1, number=1, text=text, outcome="temporary", error_text="No answer within 30 s."
    )
    Attempt.objects.create(**common, release_no=2, number=2, text=text, outcome="accepted")
    Message.objects.filter(pk=message.pk).update(
        state="read", attempts=2, queued_at=now, sent_at=now, delivered_at=now, read_at=now
    )
    InboundMessage.objects.create(
        gateway="simulator", event_id="in-1", device=message.device, lead=message.lead, phone=message.phone,
        text="Lovely, see you on Saturday!", written_at=now, received_at=timezone.now(),
    )  # fmt: skip
    quiet.goto(f"{live_server.url}/admin/messaging/message/{message.pk}/change/")
    expect(quiet.get_by_text("Lovely, see you on Saturday!")).to_be_visible(timeout=DEADLINE_MS)
    look(quiet, "message")


def test_a_sequence_is_a_line_of_steps_with_their_numbers(quiet: Page, live_server: Any) -> None:  # noqa: F811
    owner = make_user(role="staff", username="anna", password="pw-anna")
    _, devices = make_pool(owner=owner, devices=3)
    sequence = Sequence.objects.create(owner=owner, name="Welcome", trigger="new")
    for position, (text, minutes) in enumerate(
        (("Hello {{ first_name or 'there' }}, good to have you with us.", 5),
         ("Have you seen what is new? {Reply|Write back} and we tell you more.", 1440),
         ("Last call: our offer ends on Sunday.", 2 * 1440)), start=1,
    ):  # fmt: skip
        Step.objects.create(sequence=sequence, position=position, text=text, delay_minutes=minutes)
    sequences.activate(sequence=sequence, by=owner, now=timezone.now())
    for key, leads in zip(sequence.steps.order_by("position").values_list("pk", flat=True), (9, 6, 2), strict=True):
        batch = make_batch(owner=owner, devices=devices, leads=leads)
        StepBatch.objects.create(sequence=sequence, key=key, revision=1, turn=1, batch=batch)
        Stream.objects.filter(batch=batch).update(waiting=0, sent=1, read=1, failed=1, total=2)
    sign_in(quiet, live_server.url, "anna", "pw-anna")
    quiet.goto(f"{live_server.url}/admin/sequences/sequence/{sequence.pk}/change/")
    expect(quiet.locator("#sequence-state [data-step]")).to_have_count(3, timeout=DEADLINE_MS)
    look(quiet, "sequence")
    quiet.get_by_role("link", name="Report of step 2").click()
    expect(quiet.locator('[data-card="total"]')).to_have_text("6", timeout=DEADLINE_MS)
    quiet.locator('select[name="part"]').select_option(label="3. Last call: our offer ends on Sunday.")
    quiet.get_by_role("button", name="Show").click()
    expect(quiet.locator("#report-whole")).to_contain_text("Last call", timeout=DEADLINE_MS)
    look(quiet, "sequence-report")
