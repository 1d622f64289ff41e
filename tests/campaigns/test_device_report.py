"""The device report of a run: numbers from counters, the leads behind each of them, and both as files."""

from __future__ import annotations

import csv
import io
import re
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from campaigns.models import Answer, AnswerCount, Run, Variant
from campaigns.running import batches_of
from devices.models import Device
from leads.models import Lead
from messaging.device_report import lines_of, total_of
from messaging.models import Message, Stream
from tests.browsing import signed_in
from tests.campaigns.support import launched
from tests.factories import make_campaign, make_leads, make_pool, make_user

pytestmark = pytest.mark.django_db(transaction=True)


def run_of(owner: User, *, leads: int = 9, devices: int = 3, variants: bool = False) -> Run:
    """A run whose first device has sent two (one was read and answered) and failed one; nothing else has moved."""
    pool, _ = make_pool(owner=owner, devices=devices)
    make_leads(leads, owner=owner)
    campaign = make_campaign(owner=owner, pool=pool, name="Raya greetings")
    if variants:
        Variant.objects.create(campaign=campaign, name="A", share=50)
        Variant.objects.create(campaign=campaign, name="B", share=50, text="Other words")
    run = launched(campaign)
    device = Device.objects.filter(pool=pool).earliest("pk")
    Device.objects.filter(pk=device.pk).update(name=f"=cmd|'/c calc'!A{run.pk}")
    mine = Message.objects.filter(batch__in=batches_of([run])[run.pk], device=device).order_by("pk")
    for message, state in zip(mine, ("read", "sent", "failed"), strict=False):
        Message.objects.filter(pk=message.pk).update(state=state, sent_at=timezone.now())
        counted = {"waiting": -1, **({"failed": 1} if state == "failed" else {"sent": 1})}
        counted |= {"delivered": 1, "read": 1} if state == "read" else {}
        stream = Stream.objects.get(pk=message.stream_id)
        for name, by in counted.items():
            setattr(stream, name, getattr(stream, name) + by)
        stream.save()
    first = mine[0]
    Answer.objects.create(batch=first.batch, lead=first.lead, device=device, answered_at=timezone.now())
    AnswerCount.objects.create(batch=first.batch, device=device, replied=1)
    return run


def address(run: Run, query: str = "") -> str:
    return f"/admin/campaigns/run/{run.pk}/devices/{query}"


def table(answer: Any) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(b"".join(answer.streaming_content).decode("utf-8-sig"))))


def test_every_number_opens_as_many_leads_as_it_says() -> None:
    me = make_user()
    run = run_of(me)
    client = signed_in(me)
    text = client.get(address(run)).content.decode()
    links = re.findall(r'href="([^"]*\?of=[^"]*)"\s+aria-label="[A-Za-z]*:? ?([\d,]+)', text)
    assert len(links) == 9 + 10  # cards, and what is above zero of the devices
    for link, number in links:
        listed = client.get(link.replace("&amp;", "&"))
        assert listed.status_code == 200
        assert len(listed.context["cl"].result_list) == int(number), link
    assert {int(number) for _, number in links} == {0, 1, 2, 3, 6, 9}


def test_lines_are_filtered_sorted_and_of_one_variant() -> None:
    me = make_user()
    run = run_of(me, leads=40, variants=True)
    client = signed_in(me)
    assert len(client.get(address(run)).context["rows"]) == 3
    failing = client.get(address(run, "?status=failed"))
    assert [row["line"].counts.failed for row in failing.context["rows"]] == [1]
    assert [row["line"].replied for row in client.get(address(run, "?sort=replied")).context["rows"]] == [1, 0, 0]
    assert client.get(address(run, "?device=nobody")).context["rows"] == []
    assert "No device fits" in client.get(address(run, "?device=nobody")).content.decode()
    every = [client.get(address(run, f"?part=run-{run.pk}-{batch}")).context["cards"][0] for batch in
             batches_of([run])[run.pk]]  # fmt: skip
    assert len(every) == 2
    assert sum(card["number"] for card in every) == 40
    assert all(len(client.get(card["url"]).context["cl"].result_list) == card["number"] for card in every)
    # What is typed into the address by hand changes nothing else.
    assert client.get(address(run, "?part=run-1-1&sort=password&status=x&page=zz")).status_code == 200


def test_files_hold_the_same_and_no_formula() -> None:
    me = make_user()
    run = run_of(me)
    Lead.objects.filter(messages__batch=run.batch).update(name='=HYPERLINK("http://x","y")')
    client = signed_in(me)
    devices = table(client.get(address(run, "?csv=devices")))
    assert [int(row["total"]) for row in devices] == [3, 3, 3]
    assert sum(int(row["replied"]) for row in devices) == 1
    assert [row["device"][:2] for row in devices if row["device"].startswith("'")] == ["'="]
    leads = table(client.get(address(run, "?csv=leads")))
    assert len(leads) == 9
    assert all(row["name"].startswith("'=") and row["phone"].startswith("'+") for row in leads)
    assert [row["state"] for row in table(client.get(address(run, "?csv=leads&status=failed")))] == ["failed"]
    assert [row["state"] for row in table(client.get(address(run, "?csv=leads&status=sent")))] == ["read", "sent"]
    assert [row["state"] for row in table(client.get(address(run, "?csv=leads&status=replied")))] == ["read"]


def test_the_report_and_its_leads_are_of_those_who_may_see_the_run() -> None:
    run = run_of(make_user())
    stranger = signed_in(make_user())
    assert stranger.get(address(run)).status_code == 404
    assert list(stranger.get(f"/admin/messaging/message/?of=run-{run.pk}").context["cl"].result_list) == []
    assert signed_in(make_user(role="ops")).get(address(run)).status_code in {403, 404}
    mine = run_of(make_user(username="me"))
    listed = signed_in(User.objects.get(username="me")).get(
        f"/admin/messaging/message/?of=run-{mine.pk}-{run.batch_id}"
    )
    assert list(listed.context["cl"].result_list) == []


def test_a_run_of_many_messages_takes_as_many_queries_as_one_of_few() -> None:
    me = make_user()
    client = signed_in(me)
    numbers = []
    for leads, devices in ((2, 1), (120, 12)):
        run = run_of(me, leads=leads, devices=devices)
        client.get(address(run))
        with CaptureQueriesContext(connection) as queries:
            assert client.get(address(run)).status_code == 200
        counting = [q["sql"] for q in queries.captured_queries if 'FROM "messaging_message"' in q["sql"]]
        assert all("IN ('queued', 'sending')" in sql for sql in counting), counting
        numbers.append(len(queries))
    assert numbers[0] == numbers[1] <= 30


def test_the_report_adds_up_to_the_messages_themselves() -> None:
    run = run_of(make_user(), leads=30)
    ids = batches_of([run])[run.pk]
    whole = total_of(lines_of(ids)).counts
    rows = Message.objects.filter(batch__in=ids)
    assert whole.total == rows.count()
    assert whole.sent == rows.filter(state__in=["sent", "delivered", "read"]).count()
    assert (whole.failed, whole.pending) == (rows.filter(state="failed").count(), rows.filter(state="pending").count())


def test_a_run_without_messages_says_what_comes() -> None:
    me = make_user()
    campaign = make_campaign(owner=me)
    run = Run.objects.create(campaign=campaign, occurrence="once", planned_at=timezone.now())
    text = signed_in(me).get(address(run)).content.decode()
    assert "No device has messages of it yet" in text
