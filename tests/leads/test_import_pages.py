"""Drafts and exports as people and programs meet them: over the admin and over the API."""

from __future__ import annotations

import csv
import io
from typing import Any

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile

from devices.models import DeviceShare
from leads.models import Lead, LeadImport
from leads.services import run_import
from tests.api_support import V1, caller, fields_of, problem, published
from tests.browsing import signed_in
from tests.factories import make_device, make_leads, make_user

pytestmark = pytest.mark.django_db

IMPORTS = "/admin/leads/leadimport/"
FILE = "Who,Ring me\nAli,0123456789\nBad,12\n=1+1,0133456789\n"
MAPPING = ["name", "phone"]


def upload(client: Any, content: str = FILE, **fields: Any) -> Any:
    file = SimpleUploadedFile("people.csv", content.encode(), content_type="text/csv")
    return client.post(f"{V1}/leads/imports", {"file": file, **fields}, format="multipart")


def rows_of(answer: Any) -> list[list[str]]:
    assert answer.status_code == 200
    assert answer["Content-Type"].startswith("text/csv")
    assert "attachment" in answer["Content-Disposition"]
    return list(csv.reader(io.StringIO(b"".join(answer.streaming_content).decode("utf-8-sig"), newline="")))


# -- API ---------------------------------------------------------------------------------------------------------------


@pytest.mark.django_db(transaction=True)
def test_a_draft_over_the_api_from_upload_to_leads() -> None:
    published()
    client = caller()
    made = upload(client, draft=True, duplicates="overwrite").json()
    assert (made["state"], made["duplicates"]) == ("draft", "overwrite")
    assert published() == []
    address = f"{V1}/leads/imports/{made['id']}"
    seen = client.get(f"{address}/preview").json()
    assert "No column is called" in seen["problem"]
    seen = client.post(f"{address}/preview", {"mapping": MAPPING, "region": "my"}).json()
    assert [column["field"] for column in seen["columns"]] == MAPPING
    assert [(row["outcome"], row["phone"]) for row in seen["rows"]] == [
        ("new", "+60123456789"), ("rejected", ""), ("new", "+60133456789"),
    ]  # fmt: skip
    assert seen["rows"][1]["message"]
    wrong = client.post(f"{address}/confirm", {"mapping": ["name"]})
    assert fields_of(problem(wrong, 400, "invalid")) == {"mapping": "mapping_invalid"}
    theirs = make_device(owner=make_user())
    wrong = client.post(f"{address}/confirm", {"mapping": MAPPING, "device": theirs.pk})
    assert fields_of(problem(wrong, 400, "invalid")) == {"device": "does_not_exist"}

    answer = client.post(f"{address}/confirm", {"mapping": MAPPING, "dry_run": True})
    assert (answer.status_code, answer.json()["state"], answer.json()["dry_run"]) == (202, "waiting", True)
    assert published() == [("leads.run_import", {"import_id": made["id"]})]
    problem(client.post(f"{address}/confirm", {}), 409, "import_not_a_draft")
    run_import(import_id=made["id"])
    assert client.get(address).json()["accepted"] == 2
    assert not Lead.objects.exists()
    assert client.post(f"{address}/confirm", {"consent_source": "fair"}).json()["mapping"] == MAPPING
    run_import(import_id=made["id"])
    assert {lead.name: lead.consent_source for lead in Lead.objects.all()} == {"Ali": "fair", "=1+1": "fair"}
    rows = rows_of(client.get(f"{address}/problems.csv", headers={"Accept": "text/csv"}))
    assert rows[0] == ["row", "problem", "field", "Who", "Ring me"]
    assert (rows[1][0], rows[1][3:]) == ("3", ["Bad", "12"])


def test_a_mapping_may_come_with_the_file() -> None:
    client = caller()
    made = upload(client, mapping=MAPPING).json()
    run_import(import_id=made["id"])
    assert Lead.objects.filter(owner=client.user).count() == 2


def test_an_export_is_filtered_scoped_and_imports_again() -> None:
    client, other = caller(), caller()
    (mine,) = make_leads(1, owner=client.user, niches=["coffee"], custom={"city": "Ipoh"})
    make_leads(2, owner=client.user)
    make_leads(1, owner=other.user, niches=["coffee"])
    rows = rows_of(client.get(f"{V1}/leads/export?niche=coffee"))
    assert len(rows) == 2
    assert rows[1][:3] == [mine.name, f"'{mine.phone}", "coffee"]
    assert len(rows_of(client.get(f"{V1}/leads/export", headers={"Accept": "text/csv"}))) == 4
    assert len(rows_of(client.get(f"{V1}/leads/export?phone=nonsense"))) == 1
    assert len(rows_of(caller(role="admin").get(f"{V1}/leads/export"))) == 5
    assert fields_of(problem(client.get(f"{V1}/leads/export?status=friend"), 400, "invalid")) == {
        "status": "invalid_choice"
    }
    team, device = caller(role="team"), make_device(owner=client.user)
    DeviceShare.objects.create(device=device, user=team.user)
    Lead.objects.filter(pk=mine.pk).update(device=device)
    assert [row[0] for row in rows_of(team.get(f"{V1}/leads/export"))[1:]] == [mine.name]
    assert len(rows_of(caller(role="ops").get(f"{V1}/leads/export"))) == 1


# -- Admin -------------------------------------------------------------------------------------------------------------


def test_a_draft_in_the_admin_from_upload_to_leads() -> None:
    me = make_user()
    client = signed_in(me)
    file = SimpleUploadedFile("people.csv", FILE.encode(), content_type="text/csv")
    answer = client.post(f"{IMPORTS}add/", {"file": file, "region": "MY", "consent_source": "Fair", "draft": "1"})
    lead_import = LeadImport.objects.get()
    address = f"{IMPORTS}{lead_import.pk}/draft/"
    assert client.get(answer.url).url == address
    page = client.get(address)
    assert page.context["form"].initial["consent_source"] == "Fair"
    assert "No column is called" in page.content.decode()
    given = {"region": "MY", "consent_source": "Fair", "duplicates": "skip", "column_0": "name", "column_1": "phone"}
    looked = client.post(address, {**given, "look": "1"}).content.decode()
    assert looked.count('data-outcome="new"') == 2
    assert looked.count('data-outcome="rejected"') == 1
    twice = client.post(address, {**given, "column_0": "phone", "import": "1"})
    assert "choose one of them" in twice.content.decode()

    assert client.post(address, {**given, "dry_run": "1"}).url == answer.url
    run_import(import_id=lead_import.pk)
    assert not Lead.objects.exists()
    shown = client.get(answer.url).content.decode()
    assert "nothing written" in shown
    assert f'href="{address}"' in shown
    client.post(address, {**given, "import": "1"})
    run_import(import_id=lead_import.pk)
    assert set(Lead.objects.values_list("name", flat=True)) == {"Ali", "=1+1"}
    assert client.get(address).url == answer.url  # it is done
    stranger, member = signed_in(make_user()), signed_in(make_user(role="team"))
    assert (stranger.get(address).status_code, member.get(address).status_code) == (404, 403)


def test_the_admin_exports_what_is_ticked_or_everything_that_the_filter_lets_through() -> None:
    me = make_user()
    leads = make_leads(3, owner=me, niches=["property"])
    make_leads(2, owner=me)
    make_leads(1, owner=make_user(), niches=["property"])
    client = signed_in(me)
    ticked = {"action": "export_csv", "_selected_action": [leads[0].pk]}
    assert len(rows_of(client.post("/admin/leads/lead/", ticked))) == 2
    every = {**ticked, "select_across": "1"}
    rows = rows_of(client.post("/admin/leads/lead/?niches=property", every))
    assert sorted(row[0] for row in rows[1:]) == sorted(lead.name for lead in leads)
