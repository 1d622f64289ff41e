"""Sequences over REST: a draft, its life, an edit, enrolments."""

from __future__ import annotations

import pytest

from messaging.models import Message
from sequences import services
from sequences.models import Enrolment, Sequence
from tests.api_support import V1, caller, fields_of, problem
from tests.factories import make_device, make_leads, make_user

pytestmark = pytest.mark.django_db

AT = f"{V1}/sequences"


def steps(*texts: str) -> list[dict]:
    return [{"position": n, "text": text, "delay_minutes": 0} for n, text in enumerate(texts, start=1)]


def test_from_a_draft_to_an_edit_that_was_looked_at():
    from django.utils import timezone

    client = caller()
    owner = client.user
    made = client.post(AT, {"name": "Welcome", "trigger": "new", "steps": steps("one", "two")}, format="json")
    assert made.status_code == 201, made.content
    address = f"{AT}/{made.json()['id']}"
    lead = make_leads(1, owner=owner, device=make_device(owner=owner))[0]
    problem(client.post(f"{address}/enrol", {"leads": [lead.pk]}, format="json"), 422, "not_active")
    problem(client.post(f"{address}/apply-edit", {"digest": "x"}, format="json"), 409, "wrong_state")
    active = client.post(f"{address}/activate").json()
    assert (active["state"], active["version"]) == ("active", 1)
    assert client.post(f"{address}/activate").status_code == 200
    stranger = make_leads(1, owner=make_user())[0]
    entered = client.post(f"{address}/enrol", {"leads": [lead.pk, stranger.pk]}, format="json").json()
    assert (len(entered["enrolments"]), entered["left_out"]) == (1, {})
    services.tick(now=timezone.now())
    services.tick(now=timezone.now())
    assert Message.objects.filter(lead=lead).count() == 1

    first, second = active["steps"]
    changed = [{**first, "text": "one, better"}, {**second, "position": 3}, {"position": 2, "text": "new"}]
    draft = client.patch(address, {"steps": changed}, format="json")
    assert draft.status_code == 200, draft.content
    assert [step["key"] for step in draft.json()["steps"]][::2] == [first["key"], second["key"]]
    assert draft.json()["version"] == 1
    seen = client.get(f"{address}/preview-edit").json()
    assert [(c["kind"], c["position"]) for c in seen["changes"]] == [("text", 1), ("added", 2), ("moved", 3)]
    assert seen["live"] == 1
    client.patch(address, {"steps": changed[:2]}, format="json")
    problem(client.post(f"{address}/apply-edit", {"digest": seen["digest"]}, format="json"), 409, "draft_changed")
    digest = client.get(f"{address}/preview-edit").json()["digest"]
    applied = client.post(f"{address}/apply-edit", {"digest": digest}, format="json").json()
    assert (applied["applied"], applied["version"]["number"]) == (True, 2)
    assert Message.objects.get(lead=lead).batch.content["text"] == "one, better"
    assert [v["number"] for v in client.get(f"{address}/versions").json()["results"]] == [2, 1]

    found = client.get(f"{address}/progress").json()
    assert (found["total"], found["active"], found["steps"][0]["messages"]["total"]) == (1, 1, 1)
    assert client.post(f"{address}/pause").json()["state"] == "paused"
    assert client.post(f"{address}/resume").json()["state"] == "active"
    problem(client.delete(address), 409, "was_active")
    enrolment = Enrolment.objects.get()
    row = f"{V1}/enrolments/{enrolment.pk}"
    assert client.get(row).json()["next_step"] == 1
    assert client.post(f"{row}/pause").json()["state"] == "paused"
    assert client.post(f"{row}/resume").json()["state"] == "active"
    assert client.post(f"{row}/remove").json()["state"] == "exited"
    problem(client.post(f"{row}/resume"), 409, "wrong_state")
    assert client.get(f"{V1}/enrolments?code=removed").json()["results"][0]["lead"] == lead.pk


def test_what_is_wrong_with_a_draft_is_named():
    client = caller()
    bad = client.post(AT, {"name": "x", "steps": [{"position": 1, "text": "{{ a"}]}, format="json")
    assert fields_of(problem(bad, 400, "invalid")) == {"steps.0.text": "invalid"}
    back = [{"position": 2, "text": "a", "on_reply": "go", "reply_goes_to": 1}]
    assert fields_of(problem(client.post(AT, {"name": "x", "steps": back}, format="json"), 400, "invalid")) == {
        "steps.0.reply_goes_to": "invalid"
    }
    twice = [{"position": 1, "text": "a"}, {"position": 1, "text": "b"}]
    problem(client.post(AT, {"name": "x", "steps": twice}, format="json"), 422, "unique")
    problem(client.post(AT, {"name": "x", "steps": [{"key": 99, "position": 1, "text": "a"}]}, format="json"), 422,
            "does_not_exist")  # fmt: skip
    assert not Sequence.objects.exists()
    body = {"name": "x", "goal": "t", "trigger": "t", "time_zone": "Mars"}
    assert set(fields_of(problem(client.post(AT, body), 400, "invalid"))) == {"goal", "time_zone"}
    empty = client.post(AT, {"name": "empty"}).json()
    refused = problem(client.post(f"{AT}/{empty['id']}/activate"), 422, "refused")
    assert fields_of(refused) == {"steps": "required"}
    nowhere = [{"position": 1, "text": "a", "silence_goes_to": 7}]
    lost = client.post(AT, {"name": "lost", "steps": nowhere}, format="json").json()
    assert fields_of(problem(client.post(f"{AT}/{lost['id']}/activate"), 422, "refused")) == {
        "steps.1.silence_goes_to": "does_not_exist"
    }


def test_steps_may_leave_their_positions_to_the_list():
    client = caller()
    made = client.post(AT, {"name": "x", "steps": [{"text": "one"}, {"text": "two"}]}, format="json")
    assert made.status_code == 201, made.content
    assert [(step["position"], step["text"]) for step in made.json()["steps"]] == [(1, "one"), (2, "two")]
