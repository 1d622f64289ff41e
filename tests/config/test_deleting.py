"""Deleting devices and leads: what goes and what stays is said before and after, and nothing goes by halves."""

from __future__ import annotations

import pytest
from django.contrib.admin.models import LogEntry
from django.test import Client
from django.utils import timezone

from config import deleting
from config.audit_models import AuditEntry
from devices.models import Device
from leads import services as leads
from leads.models import Lead
from messaging.media import attaching
from messaging.media.models import MediaFile
from messaging.media.store import keep
from messaging.models import Attempt, Batch, InboundMessage, Message, Stream
from messaging.removing import RemovalRefused
from messaging.services import send_single
from sequences import editing
from sequences.models import Enrolment, Sequence, Step
from tests.api_support import V1, at_once, caller, problem
from tests.factories import make_batch, make_campaign, make_device, make_leads, make_user, messages_of
from tests.messaging.recount import assert_counters_hold

pytestmark = pytest.mark.django_db(transaction=True)


def reply(device, lead):
    now = timezone.now()
    InboundMessage.objects.create(
        gateway="simulator", event_id=f"r{lead.pk}", device=device, lead=lead, phone=lead.phone, text="Hi",
        written_at=now, received_at=now,
    )  # fmt: skip


def test_a_device_goes_with_its_messages_and_only_when_their_number_was_said():
    client = caller()
    device, other = make_device(owner=client.user), make_device(owner=client.user)
    shared = make_batch(owner=client.user, devices=[device, other], leads=4)
    own, gone = make_leads(2, owner=client.user, device=device)
    send_single(owner=client.user, text="Hi", lead=own, device=device, now=timezone.now())
    here = Message.objects.filter(device=device).first()
    there = Message.objects.filter(device=other).first()
    # messages that moved from one to the other
    for message, through in ((here, device), (here, other), (there, device)):
        Attempt.objects.create(
            message=message, device=through, release_no=through.pk, number=1, reference="r", started_at=timezone.now()
        )
    reply(device, own)
    address = f"{V1}/devices/{device.pk}"
    told = {"leads": 2, "messages": 3, "waiting": 3, "replies": 1}
    assert client.delete(f"{address}?dry_run=true").json() == {**told, "dry_run": True}
    for query, code in (("", "has_messages"), ("?expect=2", "changed")):
        body = problem(client.delete(f"{address}{query}"), 422, code)
        assert "3 messages" in body["detail"]
        assert "expect=3" in body["detail"]
    problem(client.delete(f"{address}?leads=perhaps"), 400, "invalid")
    problem(caller().delete(f"{address}?expect=3"), 404, "not_found")
    assert Message.objects.count() == 5

    answer = client.delete(f"{address}?expect=3")
    assert (answer.status_code, answer.json()) == (200, {**told, "dry_run": False})
    assert list(Device.objects.all()) == [other]
    assert set(Message.objects.values_list("device", flat=True)) == {other.pk}
    assert not Attempt.objects.exists()
    assert not InboundMessage.objects.exists()
    assert list(Batch.objects.all()) == [shared]  # the single message's batch went with it
    assert set(Lead.objects.filter(pk__in=[own.pk, gone.pk]).values_list("device", flat=True)) == {None}
    assert_counters_hold()
    assert "3 messages" in LogEntry.objects.get(object_id=str(device.pk)).change_message


def test_its_leads_go_along_if_that_is_wanted_and_who_refused_stays_suppressed():
    client = caller()
    device = make_device(owner=client.user)
    refused, willing = make_leads(2, owner=client.user, device=device)
    Lead.objects.filter(pk=refused.pk).update(opted_out_at=timezone.now())
    (foreign,) = make_leads(1, owner=client.user)
    assert client.delete(f"{V1}/devices/{device.pk}?leads=delete").json()["leads"] == 2
    assert list(Lead.objects.all()) == [foreign]
    for phone, is_out in ((refused.phone, True), (willing.phone, False)):
        again, _created = leads.upsert_lead(owner=client.user, phone=phone, region="MY")
        assert (again.opted_out_at is not None) is is_out


def test_a_device_stays_while_something_leaves_it_or_a_campaign_names_it():
    owner = make_user()
    device = make_device(owner=owner)
    (message,) = messages_of(make_batch(owner=owner, devices=[device]))
    Message.objects.filter(pk=message.pk).update(state="sending", lane=0, lease_until=timezone.now())

    def code() -> str:
        with pytest.raises(RemovalRefused) as refused:
            deleting.delete_device(device=device, expect=1, with_leads=False, by=owner, now=timezone.now())
        return refused.value.code

    assert code() == "in_flight"
    Message.objects.filter(pk=message.pk).update(state="pending", lane=None)
    Batch.objects.update(filled_at=None)
    assert code() == "in_preparation"
    campaign = make_campaign(owner=owner, lead_device=device)
    assert code() == "chosen"
    campaign.delete()
    Batch.objects.update(filled_at=timezone.now())
    assert (Message.objects.count(), Stream.objects.count()) == (1, 1)
    # however many ask at once, it goes once
    clients = [caller(owner) for _ in range(4)]
    answers = at_once(4, lambda index: clients[index].delete(f"{V1}/devices/{device.pk}?expect=1").status_code)
    assert answers.count(200) == 1
    assert set(answers) <= {200, 404, 422}


def test_a_lead_says_what_goes_and_what_stays():
    client = caller()
    device = make_device(owner=client.user)
    (lead,) = make_leads(1, owner=client.user, device=device)
    send_single(owner=client.user, text="Hi", lead=lead, device=device, now=timezone.now())
    reply(device, lead)
    Enrolment.objects.create(sequence=Sequence.objects.create(owner=client.user, name="Welcome"), lead=lead)
    client.patch(f"{V1}/leads/{lead.pk}", {"name": "Ada"})
    told = {"messages": 1, "waiting": 1, "replies": 1, "enrolments": 1, "consent": 1, "changes": 1}
    assert client.delete(f"{V1}/leads/{lead.pk}?dry_run=1").json() == {**told, "dry_run": True}
    assert client.delete(f"{V1}/leads/{lead.pk}").json() == {**told, "dry_run": False}
    assert not Lead.objects.exists()
    assert (Message.objects.count(), InboundMessage.objects.count(), Enrolment.objects.count()) == (1, 1, 0)


def test_the_pages_warn_with_the_counts_and_delete():
    owner = make_user()
    browser = Client()
    browser.force_login(owner)
    device = make_device(owner=owner, name="Front")
    (lead,) = make_leads(1, owner=owner, device=device)
    send_single(owner=owner, text="Hi", lead=lead, device=device, now=timezone.now())
    address = f"/admin/devices/device/{device.pk}/delete/"
    page = browser.get(address).content.decode()
    assert "Messages that are deleted" in page
    assert "Reports lose what this device has sent" in page
    browser.post(address, {"confirmed": "yes", "leads": "keep", "expect": "0"})
    assert Device.objects.exists()  # the number has changed since
    browser.post(address, {"confirmed": "yes", "leads": "keep", "expect": "1"})
    assert not Device.objects.exists()
    address = f"/admin/leads/lead/{lead.pk}/delete/"
    assert "Places in sequences" in browser.get(address).content.decode()
    assert Lead.objects.exists()
    browser.post(address, {"confirmed": "yes"})
    assert not Lead.objects.exists()
    team = Client()
    team.force_login(make_user(role="team"))
    assert team.get(f"/admin/devices/device/{make_device(owner=owner).pk}/delete/").status_code in {302, 403, 404}


@pytest.fixture
def files(settings, tmp_path):
    """Where attachments are stored."""
    settings.MEDIA_ROOT = tmp_path
    attaching.forget()
    yield tmp_path
    attaching.forget()


def test_a_file_goes_once_nobody_means_to_send_it_and_its_bytes_with_the_last_row(files):
    client = caller()
    mine = keep(owner=client.user, data=b"%PDF-1.7 price list", name="prices.pdf")
    theirs = keep(owner=make_user(), data=b"%PDF-1.7 price list", name="list.pdf")
    address = f"{V1}/media/{mine.pk}"
    problem(caller().delete(address), 404, "not_found")

    campaign = make_campaign(owner=client.user, content_type="document", media=mine)
    assert "The campaign" in problem(client.delete(address), 422, "in_use")["detail"]
    campaign.delete()
    sequence = Sequence.objects.create(owner=client.user, name="Welcome")
    step = Step.objects.create(sequence=sequence, position=1, content_type="document", media=mine)
    assert "Step 1 of the sequence" in problem(client.delete(address), 422, "in_use")["detail"]
    sequence.version = editing.make_version(sequence, by=client.user, now=timezone.now())
    sequence.save()
    step.delete()
    assert "in force" in problem(client.delete(address), 422, "in_use")["detail"]
    sequence.version = editing.make_version(sequence, by=client.user, now=timezone.now())
    sequence.save()
    batch = make_batch(owner=client.user, devices=[make_device(owner=client.user)], leads=1)
    Batch.objects.filter(pk=batch.pk).update(content={"type": "document", "media": mine.pk})
    assert "wait to be sent" in problem(client.delete(address), 422, "in_use")["detail"]
    assert mine.path.exists()
    Stream.objects.filter(batch=batch).update(is_open=False)

    assert client.delete(address).status_code == 204
    assert theirs.path.read_bytes() == b"%PDF-1.7 price list"
    problem(client.get(address), 404, "not_found")
    (entry,) = AuditEntry.objects.filter(table="messaging_mediafile", event="delete")
    assert (entry.user, entry.object_id, entry.before["name"]) == (client.user, str(mine.pk), "prices.pdf")
    browser = Client()
    browser.force_login(theirs.owner)
    page = f"/admin/messaging/mediafile/{theirs.pk}/delete/"
    assert "What was sent with it stays sent" in browser.get(page).content.decode()
    browser.post(page, {"confirmed": "yes"})
    assert not MediaFile.objects.exists()
    assert not theirs.path.exists()


def test_a_file_that_comes_while_the_same_one_goes_keeps_its_bytes(files):
    owner, other = make_user(), make_user()
    first = keep(owner=owner, data=b"%PDF-1.7 x", name="x.pdf")

    def turn(number: int) -> None:
        if number:
            keep(owner=other, data=b"%PDF-1.7 x", name="x.pdf")
        else:
            for media in MediaFile.objects.filter(owner=owner):
                deleting.delete_media(media=media, by=owner)

    for _ in range(5):
        keep(owner=owner, data=b"%PDF-1.7 x", name="x.pdf")
        at_once(2, turn)
        assert first.path.read_bytes() == b"%PDF-1.7 x"
        for media in MediaFile.objects.all():
            deleting.delete_media(media=media, by=owner)
        assert not first.path.exists()
