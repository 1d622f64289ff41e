"""Everything of one person in one file: what is in it, what is not, and who gets it."""

from __future__ import annotations

import csv
import io
import json
import zipfile

import pytest
from django.contrib.admin.models import LogEntry
from django.core.management import CommandError, call_command
from django.test import Client
from django.utils import timezone

from leads.models import ConsentEvent, Lead
from messaging.dispatch.release import release_next
from messaging.models import InboundMessage, Message
from messaging.services import send_single
from tests.api_support import V1, caller
from tests.factories import make_batch, make_device, make_user

pytestmark = pytest.mark.django_db(transaction=True)

PHONE = "+60123456789"


def opened(data: bytes) -> tuple[dict, list[list[str]]]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert sorted(archive.namelist()) == ["lead.json", "messages.csv"]
        lines = csv.reader(io.StringIO(archive.read("messages.csv").decode("utf-8-sig")))
        return json.loads(archive.read("lead.json")), list(lines)


def test_a_persons_data_is_handed_out_whole_and_to_nobody_else(sender, simulator, tmp_path):
    owner, stranger = make_user(username="keeper"), make_user()
    device = make_device(owner=owner, name="shop")
    send_single(owner=owner, text="Dear Ada, =1+1", phone=PHONE, now=timezone.now(), device=device)
    released = release_next(device_id=device.pk)
    sender.send(message_id=released.message_id, release_no=released.release_no)
    ada = Lead.objects.get(phone=PHONE)
    token = caller(owner)
    assert token.patch(f"{V1}/leads/{ada.pk}", {"name": "Ada", "notes": "likes tea"}).status_code == 200
    ConsentEvent.objects.create(
        lead=ada, kind="given", channel="api", source="the counter", happened_at=timezone.now()
    )  # fmt: skip
    orphan = send_single(owner=owner, text="Before", phone=PHONE, now=timezone.now(), device=device)
    Message.objects.filter(pk=orphan.pk).update(lead=None)  # as when the lead was deleted and came back
    for event_id, lead, phone in (("1", ada, PHONE), ("2", None, PHONE), ("3", None, "+60129999999")):
        InboundMessage.objects.create(
            gateway="simulator", event_id=event_id, device=device, lead=lead, phone=phone, text=f"reply {event_id}",
            written_at=timezone.now(), received_at=timezone.now(),
        )  # fmt: skip
    make_batch(owner=owner, devices=[device], leads=2)  # other people

    answer = token.post(f"{V1}/leads/{ada.pk}/export")
    assert answer.status_code == 200
    assert answer["Content-Disposition"] == f'attachment; filename="lead-{ada.pk}.zip"'
    known, lines = opened(answer.content)
    assert (known["lead"]["phone"], known["lead"]["name"], known["lead"]["notes"]) == (PHONE, "Ada", "likes tea")
    assert [(m["state"], [a["text"] for a in m["attempts"]]) for m in known["messages"]] == [
        ("sent", ["Dear Ada, =1+1"]),
        ("pending", []),
    ]
    assert [reply["text"] for reply in known["replies"]] == ["reply 1", "reply 2"]
    assert [event["source"] for event in known["consent"]] == ["the counter"]
    assert any(change["values"].get("name") == ["", "Ada"] for change in known["changes"])
    assert device.credentials["token"] not in json.dumps(known)
    assert [line[1] for line in lines[1:]].count("in") == 2
    assert {"Dear Ada, =1+1", "reply 1"} <= {line[4] for line in lines}
    (entry,) = LogEntry.objects.filter(change_message__contains="Exported everything")
    assert (entry.user_id, entry.object_id) == (owner.pk, str(ada.pk))

    assert caller(stranger).post(f"{V1}/leads/{ada.pk}/export").status_code == 404
    browser = Client()
    browser.force_login(owner)
    address = f"/admin/leads/lead/{ada.pk}/everything.zip"
    assert address in browser.get(f"/admin/leads/lead/{ada.pk}/change/").content.decode()
    assert opened(browser.get(address).content)[0]["replies"] == known["replies"]
    browser.force_login(stranger)
    assert browser.get(address).status_code in {302, 404}

    call_command("export_lead", PHONE, into=tmp_path)
    path = tmp_path / f"lead-{ada.pk}.zip"
    assert opened(path.read_bytes())[0]["messages"] == known["messages"]
    assert path.stat().st_mode & 0o777 == 0o600
    with pytest.raises(CommandError, match="exists"):
        call_command("export_lead", PHONE, into=tmp_path)
    Lead.objects.create(owner=stranger, phone=PHONE)
    with pytest.raises(CommandError, match="--owner"):
        call_command("export_lead", PHONE, into=tmp_path)
    with pytest.raises(CommandError, match="Nobody"):
        call_command("export_lead", "+60120000001", into=tmp_path)
