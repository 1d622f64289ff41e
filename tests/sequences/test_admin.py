"""Sequences and enrolments in the admin."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.utils import timezone

from devices.models import DeviceShare
from messaging.models import MediaFile
from sequences import editing, services
from sequences.models import Enrolment, EnrolmentState, Sequence, Step, StepBatch
from tests.factories import make_batch, make_device, make_leads, make_user

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
        "trigger": "new",
        "exit_on_reply": "on",
        "on_failure": "stop",
        "late_hours": "72",
        "next_sequence": "",
        "delay_min_seconds": "10",
        "delay_max_seconds": "30",
        "steps-TOTAL_FORMS": "2",
        "steps-INITIAL_FORMS": "0",
        "steps-MIN_NUM_FORMS": "0",
        "steps-MAX_NUM_FORMS": "100",
        "steps-0-wait_minutes": "0",
        "steps-0-content_type": "text",
        "steps-0-on_missing": "fallback",
        "steps-1-content_type": "text",
        "steps-1-on_missing": "fallback",
        "steps-0-position": "1",
        "steps-0-delay_minutes": "5",
        "steps-0-text": "Hello",
        "steps-1-wait_minutes": "0",
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
        Enrolment.objects.create(sequence=sequence, lead=leads[number], next_key=step.pk)
    Enrolment.objects.filter(sequence__name="sequence 0").update(state=EnrolmentState.COMPLETED)
    client = signed_in(boss)
    with django_assert_max_num_queries(12):
        found = client.get(LIST).context["cl"].result_list
    assert {(row.step_count, row.far.active, row.far.completed) for row in found} == {(1, 1, 0), (1, 0, 1)}
    with django_assert_max_num_queries(12):
        assert len(client.get(ENROLMENTS).context["cl"].result_list) == 30


def test_a_sequence_lives_and_is_edited_on_its_page() -> None:
    me = make_user(role="staff")
    client = signed_in(me)
    client.post(f"{LIST}add/", form_data())
    sequence = Sequence.objects.get(owner=me)
    page = f"{LIST}{sequence.pk}"
    assert "5 minutes after entering" in client.get(f"{page}/change/").content.decode()
    client.post(f"{page}/activate_sequence/", {"confirmed": "yes"})
    sequence.refresh_from_db()
    assert sequence.version is not None
    assert (sequence.state, sequence.version.number) == ("active", 1)
    lead, refused = make_leads(2, owner=me, device=make_device(owner=me))
    refused.opted_out_at = refused.consent_at
    refused.save()
    chosen = {"action": "enrol_leads", "_selected_action": [lead.pk, refused.pk]}
    assert "Welcome" in client.post("/admin/leads/lead/", chosen).content.decode()
    done = client.post("/admin/leads/lead/", {**chosen, "confirmed": "yes", "sequence": sequence.pk}, follow=True)
    assert "1 lead entered “Welcome”. Left out: 1 opted out." in done.content.decode()

    first = sequence.steps.get(position=1)
    first.text = "Good day"
    first.save()
    question = client.get(f"{page}/apply_sequence/")
    assert "Other words: 1 leads will get these" in question.content.decode()
    assert client.post(f"{page}/apply_sequence/", {"confirmed": "yes", "digest": "old"}).status_code == 200
    digest = dict(question.context["question"].hidden)["digest"]
    client.post(f"{page}/apply_sequence/", {"confirmed": "yes", "digest": digest})
    sequence.refresh_from_db()
    assert sequence.version.number == 2
    moving = client.get(f"{page}/progress/").json()["html"]
    assert "version 2" in moving
    assert "Good day" in moving
    client.post(f"{page}/pause_sequence/", {"confirmed": "yes"})
    sequence.refresh_from_db()
    assert sequence.state == "paused"
    client.post(f"{page}/resume_sequence/", {"confirmed": "yes"})
    enrolment = Enrolment.objects.get()
    assert client.get(f"{ENROLMENTS}{enrolment.pk}/change/").status_code == 200
    for action, state in (("pause", "paused"), ("resume", "active"), ("remove", "exited")):
        chosen = {"action": f"{action}_enrolments", "_selected_action": [enrolment.pk]}
        assert client.post(ENROLMENTS, chosen).status_code == 200
        client.post(ENROLMENTS, {**chosen, "confirmed": "yes"})
        enrolment.refresh_from_db()
        assert enrolment.state == state
    stranger = signed_in(make_user(role="staff"))
    assert stranger.post(f"{page}/pause_sequence/", {"confirmed": "yes"}).status_code == 404


def test_a_draft_with_problems_is_not_activated() -> None:
    me = make_user(role="staff")
    sequence = Sequence.objects.create(owner=me, name="Empty")
    answer = signed_in(me).post(f"{LIST}{sequence.pk}/activate_sequence/", {"confirmed": "yes"})
    assert "needs at least one step" in answer.content.decode()
    sequence.refresh_from_db()
    assert sequence.state == "draft"


def test_a_step_sends_whatever_a_batch_can_and_says_what_is_wrong_with_it() -> None:
    me = make_user(role="staff")
    client = signed_in(me)
    refused = client.post(
        f"{LIST}add/",
        form_data(
            **{"steps-0-content_type": "image", "steps-0-on_missing": "hold", "steps-1-content_type": "template"}
        ),
    )
    first, second = refused.context["inline_admin_formsets"][0].formset.errors
    assert "media" in first
    assert "template" in second
    template = '{"name": "order_sent", "language": "en", "parameters": ["{{ name }}"]}'
    client.post(
        f"{LIST}add/",
        form_data(**{"steps-0-greeting": "en", "steps-1-content_type": "template", "steps-1-text": "",
                     "steps-1-template": template}),
    )  # fmt: skip
    sequence = Sequence.objects.get(owner=me)
    one, two = sequence.steps.order_by("position")
    assert one.content() == {"type": "text", "text": "Hello", "greeting": "en"}
    assert two.content()["type"] == "template"
    services.activate(sequence=sequence, by=me, now=timezone.now())
    text = client.get(f"{LIST}{sequence.pk}/change/").content.decode()
    assert "Template order_sent" in text
    assert "Steps in force" in text
    assert "The draft below is another" not in text
    Step.objects.filter(pk=one.pk).update(greeting="ms")
    assert "The draft below is another" in client.get(f"{LIST}{sequence.pk}/change/").content.decode()


def test_a_step_that_a_gateway_cannot_carry_keeps_the_sequence_a_draft() -> None:
    me = make_user(role="staff")
    make_leads(1, owner=me, device=make_device(owner=me))
    sequence = Sequence.objects.create(owner=me, name="Gone")
    media = MediaFile.objects.create(
        owner=me, kind="image", name="x.jpg", mime_type="image/jpeg", size_bytes=3, sha256="ab" * 32
    )
    Step.objects.create(sequence=sequence, position=1, content_type="image", media=media)
    assert ("steps.1.media", "gone") in {(problem.field, problem.code) for problem in editing.problems_of(sequence)}
    with pytest.raises(editing.NotReady):
        services.activate(sequence=sequence, by=me, now=timezone.now())
    foreign = make_user()
    MediaFile.objects.filter(pk=media.pk).update(owner=foreign)
    (problem,) = editing.problems_of(sequence)
    assert problem.code == "does_not_exist"


@pytest.mark.django_db(transaction=True)  # a fan-out's scratch table lives as long as its transaction
def test_the_report_of_a_sequence_is_of_all_of_it_or_of_one_step() -> None:
    me = make_user(role="staff")
    device = make_device(owner=me, name="Penang desk")
    sequence = Sequence.objects.create(owner=me, name="Welcome")
    for position, text in enumerate(("Hello", "Still there?"), start=1):
        Step.objects.create(sequence=sequence, position=position, text=text, delay_minutes=0)
    services.activate(sequence=sequence, by=me, now=timezone.now())
    keys = list(sequence.steps.order_by("position").values_list("pk", flat=True))
    batches = [make_batch(owner=me, devices=[device], leads=leads) for leads in (3, 2)]
    for key, batch in zip(keys, batches, strict=True):
        StepBatch.objects.create(sequence=sequence, key=key, revision=1, turn=1, batch=batch)
    client, address = signed_in(me), f"{LIST}{sequence.pk}/report/"
    whole = client.get(address).context
    assert [row["line"].counts.total for row in whole["rows"]] == [5]
    assert [part.name for part in whole["subject"].parts] == ["1. Hello", "2. Still there?"]
    one = client.get(f"{address}?part=sequence-{sequence.pk}-{keys[1]}").context
    assert one["cards"][0]["number"] == 2
    assert len(client.get(one["cards"][0]["url"]).context["cl"].result_list) == 2
    assert signed_in(make_user()).get(address).status_code == 404
    text = client.get(f"{LIST}{sequence.pk}/change/").content.decode()
    assert f"part=sequence-{sequence.pk}-{keys[0]}" in text
