"""Sequences and enrolments in the admin."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client

from devices.models import DeviceShare
from sequences.models import Enrolment, EnrolmentState, Sequence, Step
from tests.factories import make_device, make_leads, make_user

pytestmark = pytest.mark.django_db

LIST = "/admin/sequences/sequence/"
ENROLMENTS = "/admin/sequences/enrolment/"


def signed_in(user: User) -> Client:
    client = Client()
    client.force_login(user)
    return client


def form_data(**changes: Any) -> dict[str, Any]:
    return {
        "name": "Welcome",
        "state": "draft",
        "trigger": "new",
        "next_sequence": "",
        "delay_min_seconds": "10",
        "delay_max_seconds": "30",
        "steps-TOTAL_FORMS": "2",
        "steps-INITIAL_FORMS": "0",
        "steps-MIN_NUM_FORMS": "0",
        "steps-MAX_NUM_FORMS": "100",
        "steps-0-position": "1",
        "steps-0-delay_minutes": "5",
        "steps-0-text": "Hello",
        "steps-1-position": "2",
        "steps-1-delay_minutes": "1440",
        "steps-1-text": "Still there?",
        **changes,
    }


def test_a_sequence_is_made_with_its_steps_by_its_owner() -> None:
    me = make_user(role="staff")
    foreign = Sequence.objects.create(owner=make_user(), name="Foreign")
    client = signed_in(me)
    refused = client.post(f"{LIST}add/", form_data(next_sequence=str(foreign.pk)))
    assert "next_sequence" in refused.context["adminform"].form.errors
    client.post(f"{LIST}add/", form_data())
    sequence = Sequence.objects.get(owner=me)
    assert list(sequence.steps.values_list("position", "text")) == [(1, "Hello"), (2, "Still there?")]
    assert list(client.get(LIST).context["cl"].result_list) == [sequence]
    assert client.get(f"{LIST}{foreign.pk}/change/").status_code == 302


def test_a_sequence_with_enrolments_is_not_deleted() -> None:
    me = make_user(role="staff")
    sequence = Sequence.objects.create(owner=me, name="Used")
    Enrolment.objects.create(sequence=sequence, lead=make_leads(1, owner=me)[0])
    client = signed_in(me)
    assert client.post(f"{LIST}{sequence.pk}/delete/", {"post": "yes"}).status_code == 403
    assert Sequence.objects.exists()


def test_enrolments_are_read_only_and_scoped() -> None:
    owner, member = make_user(role="staff"), make_user(role="team")
    device = make_device(owner=owner)
    DeviceShare.objects.create(device=device, user=member)
    sequence = Sequence.objects.create(owner=owner, name="Welcome")
    shared, private = make_leads(1, owner=owner, device=device)[0], make_leads(1, owner=owner)[0]
    for lead in (shared, private):
        Enrolment.objects.create(sequence=sequence, lead=lead)
    assert len(signed_in(owner).get(ENROLMENTS).context["cl"].result_list) == 2
    assert [e.lead for e in signed_in(member).get(ENROLMENTS).context["cl"].result_list] == [shared]
    assert len(signed_in(make_user(role="staff")).get(ENROLMENTS).context["cl"].result_list) == 0
    assert signed_in(make_user(role="ops")).get(ENROLMENTS).status_code == 403
    client, enrolment = signed_in(owner), Enrolment.objects.first()
    assert enrolment is not None
    assert client.get(f"{ENROLMENTS}add/").status_code == 403
    assert client.post(f"{ENROLMENTS}{enrolment.pk}/change/", {"state": "exited"}).status_code == 403
    assert signed_in(member).get(LIST).status_code == 403


def test_lists_cost_the_same_however_many_rows(django_assert_max_num_queries: Any) -> None:
    boss = make_user(role="admin")
    leads = make_leads(40, owner=boss)
    for number in range(30):
        sequence = Sequence.objects.create(owner=boss, name=f"sequence {number}")
        step = Step.objects.create(sequence=sequence, position=1, text="Hello")
        Enrolment.objects.create(sequence=sequence, lead=leads[number], next_step=step)
    Enrolment.objects.filter(sequence__name="sequence 0").update(state=EnrolmentState.COMPLETED)
    client = signed_in(boss)
    with django_assert_max_num_queries(12):
        found = client.get(LIST).context["cl"].result_list
    assert {(row.step_count, row.active_count, row.completed_count) for row in found} == {(1, 1, 0), (1, 0, 1)}
    with django_assert_max_num_queries(12):
        assert len(client.get(ENROLMENTS).context["cl"].result_list) == 30
