"""Many leads at once: edits, and transfers to other devices with what waits for them."""

from __future__ import annotations

from typing import Any

import pytest
from django.test import Client
from django.utils import timezone
from hypothesis import given, settings
from hypothesis import strategies as st

from leads import bulk
from leads.audience import Audience
from leads.changes import Channel
from leads.models import Lead
from messaging import fanout, services
from messaging.models import Batch, Message
from tests.api_support import V1, caller, fields_of, problem
from tests.factories import make_device, make_leads, make_pool, make_user
from tests.messaging.recount import assert_counters_hold

pytestmark = pytest.mark.django_db

BULK, TRANSFER = f"{V1}/leads/bulk", f"{V1}/leads/transfer"


def own_batch(owner: Any, leads: list[Lead], **fields: Any) -> Batch:
    """A batch over each lead's own device."""
    batch = services.open_batch(
        owner=owner, name="b", content={"type": "text", "text": "Hi"}, now=timezone.now(), **fields
    )
    people = Audience(owner_id=owner.pk).reachable().filter(pk__in=[lead.pk for lead in leads])
    fanout.fill(batch_id=batch.pk, leads=people)
    return batch


def test_many_are_edited_counted_and_noted():
    client = caller()
    leads = make_leads(3, owner=client.user, niches=["a", "b"], triggers=["x"], custom={"k": 1, "old": 2})
    make_leads(1, owner=make_user(), niches=["a"])
    device = make_device(owner=client.user)
    body = {
        "filter": {"niche": "a"},
        "set": {"status": "customer", "device": device.pk, "custom": {"k": "v", "old": None}},
        "add": {"niches": ["c", "b"], "triggers": ["y"]},
        "remove": {"niches": ["a"]},
    }
    assert client.post(BULK, {**body, "dry_run": True}).json() == {"leads": 3, "changed": 0, "dry_run": True}
    problem(client.post(BULK, {**body, "expect": 4}), 409, "count_changed")
    assert Lead.objects.filter(status="customer").count() == 0
    assert client.post(BULK, {**body, "expect": 3}).json() == {"leads": 3, "changed": 3, "dry_run": False}
    for lead in leads:
        lead.refresh_from_db()
        assert (lead.status, lead.niches, lead.triggers, lead.custom, lead.device_id) == (
            "customer", ["b", "c"], ["x", "y"], {"k": "v"}, device.pk,
        )  # fmt: skip
        (change,) = lead.changes.all()
        assert (change.by, change.values["niches"]) == (client.user, [["a", "b"], ["b", "c"]])
        assert set(change.values) == {"status", "niches", "triggers", "custom", "device"}
    again = {**body, "filter": {}, "set": {"status": "customer"}}
    assert client.post(BULK, again).json()["changed"] == 0  # nothing new, nothing noted
    assert leads[0].changes.count() == 1


@pytest.mark.parametrize(
    ("body", "fields"),
    [
        ({"set": {"status": "customer"}}, {"ids"}),
        ({"ids": [1], "filter": {}, "set": {"status": "customer"}}, {"ids"}),
        ({"ids": [999999], "set": {"status": "customer"}}, {"ids"}),
        ({"filter": {"nische": "a"}, "set": {"status": "customer"}}, {"filter"}),
        ({"filter": {}}, {"set"}),
        ({"filter": {}, "set": {"status": "friend"}}, {"set.status"}),
        ({"filter": {}, "add": {"niches": ["a"]}, "remove": {"niches": ["a"]}}, {"add.niches"}),
        ({"filter": {}, "set": {"device": 999999}}, {"set.device"}),
    ],
)
def test_what_is_wrong_with_a_bulk_edit_is_said_at_its_field(body, fields):
    assert set(fields_of(problem(caller().post(BULK, body), 400, "invalid"))) == fields


@settings(max_examples=15, deadline=None)
@given(
    had=st.lists(st.sampled_from("abcd"), unique=True),
    add=st.sets(st.sampled_from("abcd")),
    remove=st.sets(st.sampled_from("abcd")),
)
def test_tags_end_as_sets_do(had, add, remove):
    owner = make_user()
    (lead,) = make_leads(1, owner=owner, niches=had)
    edit = bulk.Edit(add_niches=tuple(add - remove), remove_niches=tuple(remove))
    bulk.edit(leads=Lead.objects.filter(pk=lead.pk), edit=edit, channel=Channel.API, by=owner, now=timezone.now())
    lead.refresh_from_db()
    assert len(lead.niches) == len(set(lead.niches))
    assert set(lead.niches) == (set(had) - remove) | (add - remove)


def test_a_transfer_takes_what_waits_along_by_turns():
    client = caller()
    old = make_device(owner=client.user)
    pool, (left, right) = make_pool(owner=client.user, devices=2)
    leads = make_leads(4, owner=client.user, device=old)
    (stays,) = make_leads(1, owner=client.user, device=left)
    own = own_batch(client.user, [*leads, stays])
    pooled = own_batch(client.user, leads, failover=True)
    in_hand = Message.objects.get(batch=own, lead=leads[0])
    Message.objects.filter(pk=in_hand.pk).update(state="queued", lane=0)

    body = {"filter": {"device": old.pk}, "pool": pool.pk}
    told = client.post(TRANSFER, {**body, "dry_run": True}).json()
    assert told == {"leads": 4, "messages": 3, "stay": 5, "not_connected": 0, "dry_run": True}
    assert Lead.objects.filter(device=old).count() == 4
    assert client.post(TRANSFER, body).json() == {**told, "dry_run": False}

    assert [Lead.objects.filter(device=device).count() for device in (old, left, right)] == [0, 3, 2]
    for message in Message.objects.filter(batch=own).exclude(pk=in_hand.pk).select_related("lead", "stream"):
        assert message.device_id == message.lead.device_id == message.stream.device_id
    in_hand.refresh_from_db()
    assert in_hand.device_id == old.pk
    assert set(Message.objects.filter(batch=pooled).values_list("device_id", flat=True)) == {old.pk}
    assert_counters_hold()
    assert [change.kind for change in leads[0].changes.all()] == ["transferred"]
    assert stays.changes.count() == 0


def test_what_waits_may_stay():
    client = caller()
    old, new = make_device(owner=client.user), make_device(owner=client.user, state="paused")
    leads = make_leads(2, owner=client.user, device=old)
    batch = own_batch(client.user, leads)
    body = {"ids": [lead.pk for lead in leads], "device": new.pk, "messages": "stay"}
    answer = client.post(TRANSFER, body).json()
    assert answer == {"leads": 2, "messages": 0, "stay": 2, "not_connected": 1, "dry_run": False}
    assert set(Message.objects.filter(batch=batch).values_list("device_id", flat=True)) == {old.pk}
    foreign = make_device(owner=make_user())
    found = problem(client.post(TRANSFER, {**body, "device": foreign.pk}), 400, "invalid")
    assert set(fields_of(found)) == {"device"}
    admin = caller(role="admin")
    assert set(fields_of(problem(admin.post(TRANSFER, {**body, "device": foreign.pk}), 400, "invalid"))) == {"device"}


def test_only_those_who_may_change_leads_act_on_many():
    for role in ("team", "ops"):
        for address in (BULK, TRANSFER):
            problem(caller(role=role).post(address, {"filter": {}}), 403, "permission_denied")


def test_the_list_edits_and_transfers_what_is_ticked_or_filtered():
    staff = make_user()
    client = Client()
    client.force_login(staff)
    old, new = make_device(owner=staff), make_device(owner=staff)
    leads = make_leads(3, owner=staff, device=old, niches=["a"])
    make_leads(1, owner=staff, niches=["b"])
    own_batch(staff, leads)
    across = {"_selected_action": [str(leads[0].pk)], "select_across": "1"}
    page = client.post("/admin/leads/lead/?niches=a", {**across, "action": "edit_leads"})
    assert "Change 3 leads" in page.content.decode()
    given = {**across, "action": "edit_leads", "confirmed": "yes", "add_triggers": "x, y"}
    assert (
        "Say what is to change"
        in client.post("/admin/leads/lead/?niches=a", {**given, "add_triggers": ""}).content.decode()
    )
    client.post("/admin/leads/lead/?niches=a", given)
    assert Lead.objects.filter(triggers=["x", "y"]).count() == 3

    ticked = {"_selected_action": [str(lead.pk) for lead in leads[:2]], "action": "transfer_leads"}
    page = client.post("/admin/leads/lead/", ticked).content.decode()
    assert "Transfer 2 leads" in page
    client.post("/admin/leads/lead/", {**ticked, "confirmed": "yes", "device": f"device {new.pk}", "waiting": "move"})
    assert Lead.objects.filter(device=new).count() == Message.objects.filter(device=new).count() == 2
    assert_counters_hold()
