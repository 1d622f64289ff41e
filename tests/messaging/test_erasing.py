"""Erasing a person: what goes, what stays, and that the counts still add up."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from django.contrib.admin.models import LogEntry
from django.db import connection
from django.test import Client
from django.utils import timezone

from leads import services as leads
from leads import uploads
from leads.models import ConsentEvent, Lead, LeadImportProblem, Suppression
from messaging import erasing
from messaging.dispatch.release import release_next
from messaging.models import Attempt, Batch, InboundMessage, Message, Stream
from messaging.services import send_single
from messaging.states import State
from tests.api_support import V1, caller, problem
from tests.factories import make_batch, make_device, make_leads, make_user, messages_of

pytestmark = pytest.mark.django_db(transaction=True)

PHONE = "+60123456789"


def everything() -> str:
    """All text in the tables that hold people and messages."""
    tables = (
        "leads_lead", "leads_consentevent", "leads_suppression", "messaging_batch", "messaging_message",
        "messaging_attempt", "messaging_inboundmessage", "django_admin_log", "leads_leadimportproblem",
    )  # fmt: skip
    with connection.cursor() as cursor:
        cursor.execute(" UNION ALL ".join(f"SELECT t::text FROM {table} t" for table in tables))  # noqa: S608 - the names above
        return "\n".join(row[0] for row in cursor.fetchall())


def test_nothing_of_the_person_is_left_but_the_hash(sender, simulator):
    owner = make_user()
    device = make_device(owner=owner)
    send_single(owner=owner, text="Dear Ada Lovelace", phone=PHONE, now=timezone.now(), device=device)
    Lead.objects.update(name="Ada Lovelace", notes="Ada Lovelace likes tea")
    released = release_next(device_id=device.pk)
    assert released is not None
    sender.send(message_id=released.message_id, release_no=released.release_no)
    batch = make_batch(owner=owner, devices=[device], leads=2)
    waiting = messages_of(batch)[0]
    ada = Lead.objects.get(phone=PHONE)
    Message.objects.filter(pk=waiting.pk).update(lead=ada, phone=PHONE, error_text=f"busy: {PHONE}")
    orphan = send_single(owner=owner, text="Bye Ada Lovelace", phone=PHONE, now=timezone.now(), device=device)
    Message.objects.filter(pk=orphan.pk).update(lead=None)  # as when a lead of this number was deleted before
    for event_id, lead in (("1", ada), ("2", None)):  # a reply of theirs, and one from before they were a lead
        InboundMessage.objects.create(
            gateway="simulator", event_id=event_id, device=device, lead=lead, phone=PHONE, text="I am Ada Lovelace",
            written_at=timezone.now(), received_at=timezone.now(),
        )  # fmt: skip
    LogEntry.objects.log_actions(owner.pk, [ada], 2, "Changed name.", single_object=True)
    assert "Ada Lovelace" in everything()
    assert PHONE in everything()

    done = erasing.erase(lead=ada, by=owner, now=timezone.now())
    assert done == erasing.Erased(messages=3, cancelled=2)
    text = everything()
    for trace in ("Ada", PHONE, PHONE[1:], "likes tea"):
        assert trace not in text
    assert Suppression.objects.get().reason == "erased"
    assert {m.state for m in Message.objects.filter(phone__startswith="erased-")} == {State.SENT, State.CANCELLED}
    assert Attempt.objects.get().text == ""
    assert LogEntry.objects.filter(user=owner, object_repr="Erased person").count() == 2
    for stream in Stream.objects.all():
        states = list(stream.messages.values_list("state", flat=True))
        assert (stream.total, stream.waiting, stream.cancelled, stream.sent) == (
            len(states), states.count("pending"), states.count("cancelled"), states.count("sent"),
        )  # fmt: skip
    assert Batch.objects.get(pk=batch.pk).content == batch.content  # a campaign's text is not theirs

    again, created = leads.upsert_lead(owner=owner, phone=PHONE, region="MY", consent_source="Fair")
    assert created
    assert again.opted_out_at is not None


def test_who_may_erase_over_the_api():
    owner = make_user()
    (lead,) = make_leads(1, owner=owner)
    address = f"{V1}/leads/{lead.pk}/erase"
    problem(caller(role="staff").post(address), 404, "not_found")
    problem(caller(role="team").post(address), 403, "permission_denied")
    problem(caller(role="ops").post(address), 403, "permission_denied")
    assert Lead.objects.count() == 1
    assert set(caller(owner).post(address).json().values()) == {0}
    assert (Lead.objects.count(), ConsentEvent.objects.count(), Suppression.objects.count()) == (0, 0, 1)


def test_the_admin_asks_first():
    owner, stranger = make_user(), make_user()
    (lead,) = make_leads(1, owner=owner)
    client, other = Client(), Client()
    client.force_login(owner)
    other.force_login(stranger)
    address = f"/admin/messaging/message/erase-lead/{lead.pk}/"
    assert other.post(address, {"confirmed": "yes"}).status_code == 404
    assert b"Erase for good" in client.get(address).content
    assert Lead.objects.exists()
    page = client.get(f"/admin/leads/lead/{lead.pk}/change/").content.decode()
    assert "Erase" in page
    assert client.post(address, {"confirmed": "yes"}).status_code == 302
    assert not Lead.objects.exists()


def test_imports_forget_the_person_too(settings):
    owner, other = make_user(), make_user()
    head = "name,phone,email\n"
    file = (
        f"{head}Ada Lovelace,012-345 6789,ada@example.com\n"
        "ADA LOVELACE,12,rejected by name\n"
        "A. L.,٠١٢٣٤٥٦٧٨٩ or 0199,rejected by number\n"
        "Bob Stone,13,stays\n"
    )

    def made(user, **fields):
        asked = {"filename": "a.csv", "region": "MY", "consent_source": "", **fields}
        return leads.create_import(owner=user, file=io.BytesIO(file.encode()), **asked)

    done, draft, waiting, foreign = made(owner), made(owner, draft=True), made(owner), made(other)
    for each in (done, foreign):
        leads.run_import(import_id=each.pk)
    paths = [Path(each.file.path) for each in (done, draft, waiting, foreign)]
    erased = erasing.erase(lead=Lead.objects.get(owner=owner), by=owner, now=timezone.now())
    assert (erased.rows, erased.files, erased.files_later) == (2, 2, 1)
    assert [path.exists() for path in paths] == [False, False, True, True]
    problems = LeadImportProblem.objects.filter(lead_import=done)
    assert [(p.message == "Erased.", p.values.get("name")) for p in problems] == [
        (True, None), (True, None), (False, "Bob Stone"),
    ]  # fmt: skip
    assert LeadImportProblem.objects.filter(lead_import=foreign, message="Erased.").count() == 0
    draft.refresh_from_db()
    assert (draft.state, draft.error) == ("failed", "Somebody was erased, and the file was removed: upload it again.")
    assert uploads.remove_old(now=timezone.now(), keep_days=7) == 0
    leads.run_import(import_id=waiting.pk)  # imported once more, they come out opted out
    assert Lead.objects.get(owner=owner, phone=PHONE).opted_out_at is not None
    assert uploads.remove_old(now=timezone.now(), keep_days=7) == 1
    assert not paths[2].exists()
