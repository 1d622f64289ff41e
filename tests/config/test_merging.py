"""Two leads become one: with their history, and never less strict than either."""

from __future__ import annotations

import pytest
from django.test import Client
from django.utils import timezone

from leads import optout, suppression
from leads.models import ConsentEvent, Lead
from messaging.models import InboundMessage, Message
from sequences.models import Enrolment, Sequence
from tests.api_support import V1, caller, fields_of, problem
from tests.factories import make_batch, make_device, make_leads, make_user
from tests.messaging.recount import assert_counters_hold

pytestmark = pytest.mark.django_db


def message_to(lead: Lead, batch, device, **fields) -> Message:
    """A row of the batch moved to this lead."""
    message = Message.objects.filter(batch=batch, state="pending").exclude(lead__name="kept").order_by("pk").first()
    Message.objects.filter(pk=message.pk).update(lead=lead, phone=lead.phone, **fields)
    return message


def test_history_details_and_enrolments_come_over():
    client = caller()
    owner, device = client.user, make_device(owner=client.user)
    (keep,) = make_leads(1, owner=owner, niches=["a"], custom={"k": 1})
    (gone,) = make_leads(
        1, owner=owner, niches=["b"], status="customer", notes="n", custom={"k": 2, "l": 3}, device=device
    )
    Lead.objects.filter(pk__in=[keep.pk, gone.pk]).update(name="kept")
    both, alone = make_batch(owner=owner, devices=[device], leads=2), make_batch(owner=owner, devices=[device])
    mine, twice, moves = (
        message_to(keep, both, device),
        message_to(gone, both, device),
        message_to(gone, alone, device),
    )
    reply = InboundMessage.objects.create(
        gateway="simulator", event_id="e", device=device, lead=gone, phone=gone.phone, text="hi",
        written_at=timezone.now(), received_at=timezone.now(),
    )  # fmt: skip
    shared, single = (Sequence.objects.create(owner=owner, name=name) for name in ("shared", "single"))
    Enrolment.objects.create(sequence=shared, lead=keep, state="active")
    ended = Enrolment.objects.create(sequence=shared, lead=gone, state="completed")
    Enrolment.objects.create(sequence=single, lead=gone, state="active")

    body = {"other": gone.pk}
    told = client.post(f"{V1}/leads/{keep.pk}/merge", {**body, "dry_run": True}).json()
    assert (told["messages"], told["waiting"], told["replies"], told["enrolments"]) == (2, 2, 1, 2)
    assert Lead.objects.filter(pk=gone.pk).exists()
    done = client.post(f"{V1}/leads/{keep.pk}/merge", body).json()
    assert (done["lead"], done["cancelled"]) == (told["lead"], 1)
    keep.refresh_from_db()
    assert (keep.niches, keep.status, keep.notes, keep.device, keep.custom) == (
        ["a", "b"], "customer", "n", device, {"k": 1, "l": 3, "other_phones": [gone.phone]},
    )  # fmt: skip
    assert not Lead.objects.filter(pk=gone.pk).exists()
    found = {row.pk: row for row in Message.objects.filter(lead=keep)}
    assert {pk: (row.state, row.phone) for pk, row in found.items()} == {
        mine.pk: ("pending", keep.phone), twice.pk: ("cancelled", gone.phone), moves.pk: ("pending", keep.phone),
    }  # fmt: skip
    assert_counters_hold()
    reply.refresh_from_db()
    assert reply.lead == keep
    assert {row.sequence_id: row.pk for row in Enrolment.objects.filter(lead=keep)}[shared.pk] == ended.pk
    assert Enrolment.objects.filter(lead=keep).count() == 2
    kinds = {entry["title"] for entry in client.get(f"{V1}/leads/{keep.pk}/history").json()["entries"]}
    assert {"Merged", "They wrote", "Message: Pending", "Message: Cancelled", "Agreed"} <= kinds


@pytest.mark.parametrize("who", ["survivor", "other"])
def test_whoever_refused_refused_for_both_numbers(who):
    owner = make_user()
    keep, gone = make_leads(2, owner=owner)
    refused = keep if who == "survivor" else gone
    optout.opt_out(lead=refused, channel=ConsentEvent.Channel.API, now=timezone.now())
    client = Client()
    client.force_login(owner)
    ticked = {"action": "merge_leads", "_selected_action": [str(keep.pk), str(gone.pk)]}
    page = client.post("/admin/leads/lead/", ticked, follow=True)
    assert "Yes, both numbers" in page.content.decode()
    client.post(page.request["PATH_INFO"], {"survivor": str(keep.pk)})
    keep.refresh_from_db()
    assert keep.opted_out_at is not None
    assert Lead.objects.filter(owner=owner).count() == 1
    assert set(suppression.suppressed(owner_id=owner.pk, phones=[keep.phone, gone.phone])) == {keep.phone, gone.phone}


def test_only_ones_own_two_are_merged():
    client = caller()
    (mine,) = make_leads(1, owner=client.user)
    (theirs,) = make_leads(1, owner=make_user())
    address = f"{V1}/leads/{mine.pk}/merge"
    assert fields_of(problem(client.post(address, {"other": theirs.pk}), 400, "invalid")) == {"other": "does_not_exist"}
    problem(client.post(address, {"other": mine.pk}), 422, "same_lead")
    problem(caller(role="admin").post(address, {"other": theirs.pk}), 422, "other_owner")
    problem(caller(role="team").post(address, {"other": theirs.pk}), 403, "permission_denied")
