from __future__ import annotations

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.utils import timezone

from leads.models import Lead, LeadImport
from leads.services import run_import
from tests.api_support import V1, at_once, broker_down, caller, fields_of, problem, published
from tests.factories import make_device, make_leads, make_user

pytestmark = pytest.mark.django_db

CSV = """name,phone,niche,target_status,trigger
Ada,+60 12-345 6789,coffee,prospect,welcome
Ada again,0123456789,tea,customer,
Nobody,12,coffee,prospect,
Letters,call me,coffee,prospect,
"""


def ids(answer) -> list[int]:
    assert answer.status_code == 200, answer.content
    return [row["id"] for row in answer.json()["results"]]


def test_a_number_in_any_form_becomes_one_form():
    client = caller()
    answer = client.post(f"{V1}/leads", {"phone": "012-345 6789", "name": "Ada", "niches": ["coffee", "coffee"]})
    assert answer.status_code == 201
    body = answer.json()
    assert (body["phone"], body["niches"], body["status"]) == ("+60123456789", ["coffee"], "prospect")
    assert answer["Location"].endswith(f"/api/v1/leads/{body['id']}")
    assert client.post(f"{V1}/leads", {"phone": "0812-3456-789", "region": "id"}).json()["phone"] == "+628123456789"


@pytest.mark.parametrize(
    ("body", "fields"),
    [
        ({}, {"phone": "required"}),
        ({"phone": "12"}, {"phone"}),
        ({"phone": "call me"}, {"phone"}),
        ({"phone": "0123456789", "region": "XX"}, {"region": "bad_region"}),
        ({"phone": "0123456789", "status": "friend"}, {"status": "invalid_choice"}),
        ({"phone": "0123456789", "custom": [1]}, {"custom": "not_a_dict"}),
    ],
)
def test_what_is_wrong_with_a_lead_is_said_at_its_field(body, fields):
    found = fields_of(problem(caller().post(f"{V1}/leads", body), 400, "invalid"))
    assert found == fields if isinstance(fields, dict) else set(found) == fields
    assert Lead.objects.count() == 0


def test_posting_a_number_again_merges_and_takes_nothing_away():
    client = caller()
    first = client.post(
        f"{V1}/leads", {"phone": "+60123456789", "name": "Ada", "niches": ["coffee"], "consent_source": "form"}
    )
    again = client.post(f"{V1}/leads", {"phone": "0123456789", "name": "Other", "niches": ["tea"], "notes": "new"})
    assert (first.status_code, again.status_code) == (201, 200)
    body = again.json()
    assert body["id"] == first.json()["id"]
    assert (body["name"], body["notes"], sorted(body["niches"])) == ("Ada", "new", ["coffee", "tea"])
    assert body["consent_source"] == "form"
    assert body["consent_at"]


@pytest.mark.django_db(transaction=True)
def test_one_number_posted_by_many_at_once_is_one_lead():
    user = make_user()
    clients = [caller(user) for _ in range(8)]
    answers = at_once(
        8, lambda index: clients[index].post(f"{V1}/leads", {"phone": "+60123456789", "niches": [f"tag {index}"]})
    )
    assert sorted(answer.status_code for answer in answers) == [200] * 7 + [201]
    assert len(Lead.objects.get(owner=user).niches) == 8


def test_editing_writes_what_was_named():
    client = caller()
    lead = make_leads(1, owner=client.user, consent_at=None, consent_source="", niches=["coffee"])[0]
    before = lead.updated_at
    answer = client.patch(
        f"{V1}/leads/{lead.pk}", {"name": "Eve", "phone": "013-345 6789", "consent_source": "by phone"}
    )
    assert answer.status_code == 200
    lead.refresh_from_db()
    assert (lead.name, lead.phone, lead.niches) == ("Eve", "+60133456789", ["coffee"])
    assert lead.consent_at is not None
    assert lead.updated_at > before
    other = make_leads(1, owner=client.user)[0]
    body = problem(client.patch(f"{V1}/leads/{lead.pk}", {"phone": other.phone}), 400, "invalid")
    assert fields_of(body) == {"phone": "unique_together"}


def test_an_opt_out_is_neither_written_nor_forgotten_here():
    client = caller()
    lead = make_leads(1, owner=client.user, opted_out_at=timezone.now())[0]
    assert client.patch(f"{V1}/leads/{lead.pk}", {"opted_out_at": None}).json()["opted_out_at"] is not None
    assert client.delete(f"{V1}/leads/{lead.pk}").status_code == 200
    again = client.post(f"{V1}/leads", {"phone": lead.phone, "consent_source": "shop"})
    assert again.status_code == 201
    assert again.json()["opted_out_at"] is not None


def test_filters():
    client = caller()
    device = make_device(owner=client.user)
    a = make_leads(1, owner=client.user, niches=["coffee", "tea"], status="customer", device=device)[0]
    b = make_leads(1, owner=client.user, triggers=["welcome"], opted_out_at=timezone.now())[0]
    for query, expected in (
        ("niche=coffee", [a]), ("niche=cof", []), ("niche=Coffee", []), ("trigger=welcome", [b]),
        ("status=customer", [a]),
        (f"phone={a.phone.replace('+', '%2B')}", [a]), (f"phone={a.phone}", [a]), (f"phone={a.phone[3:]}", [a]),
        ("phone=nonsense", []), (f"device={device.pk}", [a]), ("opted_out=true", [b]), ("opted_out=false", [a]),
        ("niche=tea&status=prospect", []),
    ):  # fmt: skip
        assert ids(client.get(f"{V1}/leads?{query}")) == [lead.pk for lead in expected], query


# -- imports -----------------------------------------------------------------------------------------------------------


def upload(client, content: str = CSV, **fields):
    file = SimpleUploadedFile("people.csv", content.encode(), content_type="text/csv")
    return client.post(f"{V1}/leads/imports", {"file": file, "region": "MY", **fields}, format="multipart")


def test_a_file_is_taken_read_and_told_about():
    client = caller()
    device = make_device(owner=client.user)
    answer = upload(client, consent_source="Fair", device=device.pk)
    assert answer.status_code == 202
    body = answer.json()
    assert (body["state"], body["filename"], body["device"], body["reasons"]) == (
        "waiting",
        "people.csv",
        device.pk,
        [],
    )
    assert answer["Location"].endswith(f"/api/v1/leads/imports/{body['id']}")

    run_import(import_id=body["id"])
    done = client.get(f"{V1}/leads/imports/{body['id']}").json()
    assert {name: done[name] for name in ("state", "rows_done", "rows_total", "accepted", "merged", "rejected")} == {
        "state": "finished", "rows_done": 4, "rows_total": 4, "accepted": 1, "merged": 1, "rejected": 2,
    }  # fmt: skip
    assert sum(reason["count"] for reason in done["reasons"]) == 2
    assert all(reason["examples"][0]["message"] for reason in done["reasons"])
    problems = client.get(f"{V1}/leads/imports/{body['id']}/problems").json()["results"]
    assert [row["row_number"] for row in problems] == [4, 5]
    assert problems[0]["values"]["phone"] == "12"
    lead = Lead.objects.get(owner=client.user)
    assert (lead.phone, lead.device, lead.consent_source) == ("+60123456789", device, "Fair")
    LeadImport.objects.get().file.delete()


def test_problems_come_in_the_order_of_the_file_page_by_page():
    client = caller()
    rows = "\n".join(f"Name {n},{n}" for n in range(30))
    made = upload(client, f"name,phone\n{rows}\n").json()
    run_import(import_id=made["id"])
    address, seen = f"{V1}/leads/imports/{made['id']}/problems?page_size=7", []
    while address:
        page = client.get(address).json()
        seen += [row["row_number"] for row in page["results"]]
        address = page["next"]
    assert seen == list(range(2, 32))
    LeadImport.objects.get().file.delete()


def test_an_upload_without_what_it_needs_says_so():
    client = caller()
    body = problem(client.post(f"{V1}/leads/imports", {"region": "XX"}, format="multipart"), 400, "invalid")
    assert fields_of(body) == {"file": "required", "region": "bad_region"}
    problem(client.post(f"{V1}/leads/imports", {"file": "text"}, format="json"), 415, "unsupported_media_type")
    body = problem(upload(client, ""), 400, "invalid")
    assert fields_of(body) == {"file": "empty"}
    theirs = make_device(owner=make_user())
    assert fields_of(problem(upload(client, device=theirs.pk), 400, "invalid")) == {"device": "does_not_exist"}
    assert LeadImport.objects.count() == 0


@pytest.mark.django_db(transaction=True)
def test_a_file_is_handed_to_a_worker_once_however_often_it_is_posted():
    published()
    client = caller()
    for _ in range(2):
        file = SimpleUploadedFile("people.csv", CSV.encode(), content_type="text/csv")
        answer = client.post(
            f"{V1}/leads/imports", {"file": file}, format="multipart", headers={"Idempotency-Key": "file-1"}
        )
        assert answer.status_code == 202
    assert published() == [("leads.run_import", {"import_id": answer.json()["id"]})]
    LeadImport.objects.get().file.delete()


@pytest.mark.django_db(transaction=True)
def test_a_file_is_accepted_while_the_broker_is_down():
    client = caller()
    with broker_down():
        answers = [upload(client), upload(client, CSV + "Eve,+60123456780,,,\n")]
    assert [answer.status_code for answer in answers] == [202, 202]
    assert [lead_import.state for lead_import in LeadImport.objects.all()] == [LeadImport.State.WAITING] * 2
    assert published() == []
    for lead_import in LeadImport.objects.all():
        lead_import.file.delete()
