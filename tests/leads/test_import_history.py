"""What an import leaves in the history of those it touches: changes, consent, and where they came from."""

from __future__ import annotations

import io
from datetime import UTC, datetime
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone

from leads import consent, services
from leads.models import Lead, LeadChange, LeadImport
from sequences.models import Enrolment, Sequence
from tests.api_support import V1, caller
from tests.factories import make_device, make_user

pytestmark = pytest.mark.django_db(transaction=True)


def take(owner: Any, text: str, **fields: Any) -> LeadImport:
    asked = {"filename": "fair.csv", "region": "MY", "consent_source": "", **fields}
    lead_import = services.create_import(owner=owner, file=io.BytesIO(text.encode()), **asked)
    return services.run_import(import_id=lead_import.pk)


def agreed(lead: Lead) -> list[tuple[str, str]]:
    return [(entry.source, entry.channel.value) for entry in consent.history(lead)]


def test_what_an_import_changes_is_told_with_before_and_after_and_only_that():
    owner = make_user()
    device = make_device(owner=owner)
    first = take(owner, "name,phone,niche,notes,city\nAda,0123456789,TEA,,Ipoh\nBob,0123456780,,,\n")
    assert not LeadChange.objects.exists()  # that they came is on the lead alone
    assert set(Lead.objects.values_list("first_import", flat=True)) == {first.pk}
    text = f"name,phone,niche,status,notes,city\nX,0123456789,COFFEE,customer,{'n' * 1500},Melaka\nBob,0123456780,,,,\n"
    again = take(owner, text, device=device, filename="again.csv")
    take(owner, text, device=device)  # nothing new
    ada, bob = Lead.objects.order_by("pk")
    changes = {change.lead_id: change for change in LeadChange.objects.all()}
    assert set(changes) == {ada.pk, bob.pk}
    change = changes[ada.pk]
    assert (change.kind, change.channel, change.note, change.by) == ("edited", "import", "again.csv", owner)
    assert change.values == {
        "status": ["prospect", "customer"],
        "niches": [["TEA"], ["TEA", "COFFEE"]],
        "notes": ["", "n" * 1000],
        "device": [None, device.pk],
    }
    assert changes[bob.pk].values == {"device": [None, device.pk]}
    take(owner, "name,phone,city\nAda L,0123456789,Melaka\n", duplicates="overwrite", filename="third.csv")
    assert LeadChange.objects.get(note="third.csv").values == {
        "name": ["Ada", "Ada L"], "custom": [{"city": "Ipoh"}, {"city": "Melaka"}],
    }  # fmt: skip
    assert again.merged == 2


def test_consent_that_stands_in_a_row_is_never_lost():
    owner = make_user()
    head = "phone,consent_source,consent_at\n"
    take(owner, f"{head}0123456789,Counter,2025-01-02T10:00:00+00:00\n0123456780,,\n")
    ada, bob = Lead.objects.order_by("pk")
    assert agreed(ada) == [("Counter", "record")]
    row = f"{head}0123456789,Fair,2025-05-06T10:00:00+00:00\n0123456780,Phone,\n"
    for _ in range(2):  # made again it tells nothing new
        take(owner, row, consent_source="Whole file")
        ada.refresh_from_db()
        bob.refresh_from_db()
        assert agreed(ada) == [("Fair", "import"), ("Counter", "record")]
        assert agreed(bob) == [("Phone", "record")]
    assert (ada.consent_source, bob.consent_source) == ("Counter", "Phone")
    take(owner, f"{head}0123456789,Fair,2025-07-08T10:00:00+00:00\n", duplicates="overwrite")
    ada.refresh_from_db()
    assert ada.consent_at == datetime(2025, 7, 8, 10, tzinfo=UTC)
    assert agreed(ada) == [("Fair", "import"), ("Fair", "import"), ("Counter", "record")]


def test_imports_and_sequences_stand_in_the_history_of_a_lead():
    client = caller()
    file = take(client.user, "name,phone\nAda,0123456789\n", consent_source="Shop")
    take(client.user, "phone,niche\n0123456789,TEA\n", filename="tags.csv")
    lead = Lead.objects.get()
    sequence = Sequence.objects.create(owner=client.user, name="Welcome")
    place = Enrolment.objects.create(sequence=sequence, lead=lead, state="exited", reason="They replied")
    Enrolment.objects.filter(pk=place.pk).update(finished_at=timezone.now())
    entries: list[dict[str, Any]] = []
    cursor = ""
    while True:
        page = client.get(f"{V1}/leads/{lead.pk}/history", {"page_size": 1, "cursor": cursor}).json()
        entries += page["entries"]
        if not (cursor := page["older"]):
            break
    told = [(entry["kind"], entry["title"], entry["text"], entry["where"]) for entry in entries]
    assert told[:3] == [
        ("left", "Sequence: Exited", "Welcome: They replied", ""),
        ("enrolled", "Entered a sequence", "Welcome", ""),
        ("change", "Edited", "niches: – → TEA; tags.csv", "Import"),
    ]
    assert sorted(told[3:]) == [
        ("change", "Created", "fair.csv", "Import"),
        ("consent", "Agreed", "Shop", "Earlier record"),
    ]
    browser = Client()
    browser.force_login(client.user)
    html = browser.get(f"/admin/leads/lead/{lead.pk}/timeline/").content.decode()
    assert "Welcome: They replied" in html
    file.delete()
    assert client.get(f"{V1}/leads/{lead.pk}/history").status_code == 200
