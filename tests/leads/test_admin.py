"""Leads and imports in the admin."""

from __future__ import annotations

import csv
import io
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client
from django.utils import timezone

from devices.models import DeviceShare
from leads import services
from leads.models import Lead, LeadImport
from tests.browsing import signed_in
from tests.factories import make_device, make_leads, make_user

pytestmark = pytest.mark.django_db

LIST = "/admin/leads/lead/"
ADD = "/admin/leads/lead/add/"
IMPORTS = "/admin/leads/leadimport/"
FILE = "name,phone,niche,target_status,trigger\nAina,012-345 6789,property,prospect,new\nBad,12,,,\n=1+1,x,,,\n"


def form_data(**changes: Any) -> dict[str, Any]:
    return {
        "phone": "012-345 6789",
        "name": "Aina",
        "status": "prospect",
        "device": "",
        "niches": "property, car loans",
        "triggers": "",
        "consent_at_0": "",
        "consent_at_1": "",
        "consent_source": "",
        "opted_out_at_0": "",
        "opted_out_at_1": "",
        "notes": "",
        "custom": "{}",
        "initial-custom": "{}",
        "initial-niches": "",
        "initial-triggers": "",
        **changes,
    }


def named(name: str, *, owner: User, **fields: Any) -> Lead:
    (lead,) = make_leads(1, owner=owner, **fields)
    Lead.objects.filter(pk=lead.pk).update(name=name)
    return lead


def test_everybody_sees_their_own_leads_and_team_those_of_shared_devices() -> None:
    staff, member, device = make_user(role="staff"), make_user(role="team"), make_device(owner=make_user())
    mine = named("Mine", owner=staff)
    DeviceShare.objects.create(device=device, user=member)
    shared = named("Shared", owner=device.owner, device=device)
    assert [lead.pk for lead in signed_in(staff).get(LIST).context["cl"].result_list] == [mine.pk]
    assert [lead.pk for lead in signed_in(member).get(LIST).context["cl"].result_list] == [shared.pk]
    assert len(signed_in(make_user(role="admin")).get(LIST).context["cl"].result_list) == 2
    assert signed_in(make_user(role="ops")).get(LIST).status_code == 403
    assert signed_in(member).get(IMPORTS).status_code == 403
    assert signed_in(member).post(ADD, form_data()).status_code == 403


def test_a_number_becomes_e164_and_tags_a_list() -> None:
    me = make_user(role="staff")
    signed_in(me).post(ADD, form_data())
    lead = Lead.objects.get()
    assert (lead.owner, lead.phone, lead.niches) == (me, "+60123456789", ["property", "car loans"])
    answer = signed_in(me).post(ADD, form_data(phone="+60 12-345 6789"))
    assert answer.status_code == 200  # one lead per owner and number, whatever it is written like
    assert Lead.objects.count() == 1


def test_a_bad_number_and_consent_without_a_source_are_said_at_their_fields() -> None:
    client = signed_in(make_user(role="staff"))
    assert "phone" in client.post(ADD, form_data(phone="abc")).context["adminform"].form.errors
    answer = client.post(ADD, form_data(consent_at_0="2026-05-01", consent_at_1="10:00"))
    assert "consent_source" in answer.context["adminform"].form.errors


def test_an_opt_out_that_arrives_while_the_form_is_open_stays() -> None:
    me = make_user(role="staff")
    (lead,) = make_leads(1, owner=me)
    client = signed_in(me)
    client.get(f"{LIST}{lead.pk}/change/")
    moment = timezone.now()
    Lead.objects.filter(pk=lead.pk).update(opted_out_at=moment)
    consent = timezone.localtime(lead.consent_at)
    client.post(
        f"{LIST}{lead.pk}/change/",
        form_data(
            phone=lead.phone,
            name="Renamed",
            consent_at_0=consent.strftime("%Y-%m-%d"),
            consent_at_1=consent.strftime("%H:%M:%S"),
            consent_source="test",
        ),
    )
    lead.refresh_from_db()
    assert (lead.name, lead.opted_out_at) == ("Renamed", moment)


def test_search_finds_a_number_in_any_spelling_and_part_of_a_name() -> None:
    me = make_user(role="staff")
    Lead.objects.create(owner=me, phone="+60123456789", name="Aina binti Ali")
    make_leads(3, owner=me)
    client = signed_in(me)
    for term in ("0123456789", "+60 12-345 6789", "binti"):
        assert [lead.name for lead in client.get(LIST, {"q": term}).context["cl"].result_list] == ["Aina binti Ali"]


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ({"niches": "property"}, ["A"]),
        ({"niches": "prop"}, []),
        ({"triggers": "new"}, ["B"]),
        ({"opted_out": "yes"}, ["B"]),
        ({"consent": "no"}, ["C"]),
        ({"status__exact": "customer"}, ["C"]),
    ],
)
def test_filters(query: dict[str, str], names: list[str]) -> None:
    me = make_user(role="staff")
    named("A", owner=me, niches=["property"])
    named("B", owner=me, triggers=["new"], opted_out_at=timezone.now())
    named("C", owner=me, consent_at=None, status="customer")
    found = signed_in(me).get(LIST, query)
    assert [lead.name for lead in found.context["cl"].result_list] == names


def test_the_list_costs_the_same_however_many_leads(django_assert_max_num_queries: Any) -> None:
    me = make_user(role="admin")
    make_leads(60, owner=me, device=make_device(owner=me))
    client = signed_in(me)
    with django_assert_max_num_queries(12):
        assert len(client.get(LIST).context["cl"].result_list) == 50


# -- Imports -----------------------------------------------------------------------------------------------------------


def hand_in(client: Client, content: str = FILE, **changes: Any) -> Any:
    file = SimpleUploadedFile("leads.csv", content.encode(), content_type="text/csv")
    return client.post(f"{IMPORTS}add/", {"file": file, "region": "MY", "consent_source": "Fair", **changes})


def test_an_import_from_the_form_to_the_downloaded_problems(django_capture_on_commit_callbacks: Any) -> None:
    me = make_user(role="staff")
    client = signed_in(me)
    assert "CSV or .xlsx" in client.get(f"{IMPORTS}add/").content.decode()
    with django_capture_on_commit_callbacks() as after_commit:
        answer = hand_in(client)
    lead_import = LeadImport.objects.get()
    assert answer.url == f"{IMPORTS}{lead_import.pk}/change/"
    assert len(after_commit) == 1
    assert client.get(f"{IMPORTS}{lead_import.pk}/progress/").json()["done"] is False

    services.run_import(import_id=lead_import.pk)
    news = client.get(f"{IMPORTS}{lead_import.pk}/progress/").json()
    assert news["done"] is True
    assert 'data-count="accepted">1<' in news["html"]
    assert 'data-count="rejected">2<' in news["html"]
    assert "poll.js" in client.get(answer.url).content.decode()
    assert Lead.objects.get().consent_source == "Fair"

    download = client.get(f"{IMPORTS}{lead_import.pk}/problems.csv")
    assert "attachment" in download["Content-Disposition"]
    rows = list(csv.reader(io.StringIO(b"".join(download).decode("utf-8-sig"))))
    assert rows[0][:3] == ["row", "problem", "field"]
    assert [row[0] for row in rows[1:]] == ["3", "4"]
    assert "'=1+1" in rows[2]
    assert not any(cell.startswith("=") for row in rows for cell in row)


def test_a_file_that_cannot_be_read_says_why_on_its_page() -> None:
    me = make_user(role="staff")
    client = signed_in(me)
    answer = hand_in(client, "just\nwords\n")
    lead_import = LeadImport.objects.get()
    services.run_import(import_id=lead_import.pk)
    lead_import.refresh_from_db()
    assert lead_import.error
    assert lead_import.error.split(":")[0] in client.get(answer.url).content.decode()


def test_imports_are_private_and_need_the_right_to_change() -> None:
    owner, stranger = make_user(role="staff"), make_user(role="staff")
    hand_in(signed_in(owner))
    lead_import = LeadImport.objects.get()
    for address in ("change/", "progress/", "problems.csv"):
        assert signed_in(stranger).get(f"{IMPORTS}{lead_import.pk}/{address}").status_code == 404
    assert hand_in(signed_in(make_user(role="team"))).status_code == 403
    device = make_device(owner=stranger)
    assert "device" in hand_in(signed_in(owner), device=str(device.pk)).context["form"].errors
    assert LeadImport.objects.count() == 1


@pytest.mark.parametrize("value", ["=1", "+1", "-1", "@x", "\t=1", "\r=1", " =1", "＝1"])
def test_formulas_are_neutralised(value: str) -> None:
    from leads.cells import guarded

    assert guarded(value) == f"'{value}"
    assert guarded("plain") == "plain"
