"""Leads by webhook: real requests through the whole middleware, signed as the README says."""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import time
import uuid
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client
from hypothesis import given
from hypothesis import strategies as st

from leads import optout, sources
from leads.change_models import LeadChange
from leads.models import Lead, LeadSource, LeadSourceEvent
from tests.api_support import V1, at_once, caller, fields_of, problem
from tests.factories import make_device, make_leads, make_pool, make_user

pytestmark = pytest.mark.django_db

ADA = {"phone": "012-345 6789", "name": "Ada  Lovelace", "niches": ["coffee"], "triggers": "welcome, vip"}


def make_source(owner: User | None = None, **fields: Any) -> tuple[LeadSource, str]:
    source = LeadSource(owner=owner or make_user(), **{"name": "Form", "region": "MY", **fields})
    secret = source.equip()
    source.save()
    return source, secret


def post(source: LeadSource, secret: str, body: Any, *, at: float | None = None, **headers: str) -> Any:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    stamp = str(int(time.time() if at is None else at))
    headers = {"Idempotency-Key": uuid.uuid4().hex, **headers}
    if not headers["Idempotency-Key"]:
        del headers["Idempotency-Key"]
    signature = hmac.new(secret.encode(), stamp.encode() + b"." + raw, hashlib.sha256).hexdigest()
    return Client().post(
        f"/hooks/leads/{source.key}",
        raw,
        content_type="application/json",
        headers={"X-Flotilla-Timestamp": stamp, "X-Flotilla-Signature": f"sha256={signature}", **headers},
    )


def test_a_signed_lead_is_made_merged_and_remembered():
    owner = make_user()
    device = make_device(owner=owner, name="Front desk")
    source, secret = make_source(owner, consent_source="Contact form")
    body = {**ADA, "status": "Client", "notes": "n", "custom": {"order": 7}, "device": "Front desk", "colour": "red"}
    answer = post(source, secret, body)
    lead = Lead.objects.get(owner=owner)
    assert (answer.status_code, answer.json()) == (
        201,
        {"lead": lead.pk, "created": True, "device": device.pk, "opted_out": False, "ignored": ["colour"]},
    )
    assert (lead.phone, lead.name, lead.status, lead.niches, lead.triggers, lead.custom, lead.consent_source) == (
        "+60123456789", "Ada Lovelace", "customer", ["coffee"], ["welcome", "vip"], {"order": 7}, "Contact form",
    )  # fmt: skip
    other = make_device(owner=owner)
    again = post(source, secret, {"phone": "+60123456789", "name": "Eve", "niches": "tea", "device": other.pk})
    assert (again.status_code, again.json()["created"], again.json()["device"]) == (200, False, device.pk)
    lead.refresh_from_db()
    assert (lead.name, lead.niches, lead.status) == ("Ada Lovelace", ["coffee", "tea"], "customer")
    assert [(c.kind, c.channel, c.note, c.values) for c in lead.changes.order_by("pk")] == [
        ("created", "webhook", "Form", {}),
        ("edited", "webhook", "Form", {"niches": [["coffee"], ["coffee", "tea"]]}),
    ]


def test_only_the_secret_and_the_present_open_the_door():
    source, secret = make_source()
    now = time.time()
    for answer in (
        post(source, "wrong", ADA),
        post(source, secret, ADA, **{"X-Flotilla-Signature": "sha256=" + "0" * 64}),
        post(source, secret, ADA, **{"X-Flotilla-Timestamp": str(int(now) + 100)}),
        post(source, secret, ADA, **{"X-Flotilla-Timestamp": "soon"}),
        Client().post(f"/hooks/leads/{source.key}", ADA, content_type="application/json"),
    ):
        problem(answer, 401, "bad_signature")
    for moment in (now - 3600, now + 3600):
        problem(post(source, secret, ADA, at=moment), 401, "stale")
    problem(post(LeadSource(key="nobody"), secret, ADA), 404, "not_found")
    problem(Client().get(f"/hooks/leads/{source.key}"), 405, "method_not_allowed")
    problem(post(source, secret, b"x" * (sources.MAX_BODY_BYTES + 1)), 413, "too_large")
    LeadSource.objects.update(enabled=False)
    problem(post(source, secret, ADA), 403, "permission_denied")
    LeadSource.objects.update(enabled=True)
    User.objects.update(is_active=False)
    problem(post(source, secret, ADA), 403, "permission_denied")
    assert Lead.objects.count() == 0


@pytest.mark.parametrize(
    ("body", "fields"),
    [
        ({}, {"phone": "required"}),
        ({"phone": "12"}, {"phone"}),
        ({"phone": "012-345 6789", "status": "friend"}, {"status": "invalid_choice"}),
        ({"phone": "012-345 6789", "niches": [1]}, {"niches": "not_tags"}),
        ({"phone": "012-345 6789", "triggers": "x" * 61}, {"triggers": "too_long"}),
        ({"phone": "012-345 6789", "custom": {"order no": 1}}, {"custom": "bad_name"}),
        ({"phone": "0123456789", "device": "nowhere", "name": "x" * 201}, {"device", "name"}),
        ({"phone": "012-345 6789", "region": "XX", "event_id": "a b"}, {"region": "bad_region", "event_id": "invalid"}),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_at_its_field(body, fields):
    source, secret = make_source()
    make_device(owner=make_user(), name="nowhere")  # somebody else's
    body = problem(post(source, secret, body), 400, "invalid")
    assert (fields_of(body) if isinstance(fields, dict) else set(fields_of(body))) == fields
    assert all(error["message"] for error in body["errors"])
    assert (Lead.objects.count(), LeadSourceEvent.objects.count()) == (0, 0)


@pytest.mark.parametrize(
    "raw", [b"{", b"[]", b'"x"', b"\xff", b'{"a":' * 9000, b'{"a": NaN}', b'{"a": "\\ud800"}', b'{"a":"\\u0000"}']
)
def test_what_is_no_storable_object_is_refused(raw):
    source, secret = make_source()
    problem(post(source, secret, raw), 400, "malformed")


def test_a_key_has_one_effect_and_one_answer():
    source, secret = make_source()
    first = post(source, secret, ADA, **{"Idempotency-Key": "event-1"})
    Lead.objects.update(niches=[])
    again = post(source, secret, ADA, **{"Idempotency-Key": "event-1"})
    assert (again.status_code, again.json(), again["Idempotent-Replay"]) == (201, first.json(), "true")
    assert Lead.objects.get().niches == []
    problem(post(source, secret, {**ADA, "name": "E"}, **{"Idempotency-Key": "event-1"}), 422, "idempotency_key_reused")
    problem(post(source, secret, ADA, **{"Idempotency-Key": "a b"}), 400, "idempotency_key_invalid")
    by_body = {**ADA, "event_id": "form-9"}
    no_key = {"Idempotency-Key": ""}
    assert post(source, secret, by_body, **no_key).status_code == 200
    assert post(source, secret, by_body, at=time.time() - 60, **no_key)["Idempotent-Replay"] == "true"
    at = time.time()
    assert "Idempotent-Replay" not in post(source, secret, ADA, at=at, **no_key)
    assert post(source, secret, ADA, at=at, **no_key)["Idempotent-Replay"] == "true"  # somebody plays a recording
    other, its_secret = make_source(source.owner, name="Other")
    assert "Idempotent-Replay" not in post(other, its_secret, ADA, **{"Idempotency-Key": "event-1"})


@pytest.mark.django_db(transaction=True)
def test_the_same_event_told_many_times_at_once_happens_once():
    source, secret = make_source()
    answers = at_once(8, lambda _: post(source, secret, ADA, **{"Idempotency-Key": "race"}))
    assert {answer.status_code for answer in answers} == {201}
    assert sum("Idempotent-Replay" not in answer for answer in answers) == 1
    assert (Lead.objects.count(), LeadChange.objects.count(), LeadSourceEvent.objects.count()) == (1, 1, 1)


def test_no_consent_is_replaced_and_a_refusal_stays():
    source, secret = make_source(consent_source="Form")
    lead = make_leads(1, owner=source.owner, consent_source="Fair")[0]
    assert post(source, secret, {"phone": lead.phone}).json()["opted_out"] is False
    lead.refresh_from_db()
    assert lead.consent_source == "Fair"
    from django.utils import timezone

    optout.opt_out(lead=lead, channel="api", now=timezone.now())
    optout.delete_lead(lead=lead, now=timezone.now())
    answer = post(source, secret, {"phone": lead.phone})
    assert (answer.status_code, answer.json()["opted_out"]) == (201, True)


def test_leads_without_a_device_are_spread_over_the_pool():
    owner = make_user()
    pool, devices = make_pool(owner=owner, devices=3)
    type(devices[0]).objects.filter(pk=devices[0].pk).update(state="paused")
    source, secret = make_source(owner, pool=pool)
    got = {post(source, secret, {"phone": f"+6012345{n:04d}"}).json()["device"] for n in range(12)}
    assert got == {devices[1].pk, devices[2].pk}


def test_too_many_are_told_to_wait():
    source, secret = make_source(rate_per_minute=2)
    at = 1_800_000_000 + 30
    import time_machine

    with time_machine.travel(at, tick=False):
        codes = [post(source, secret, {"phone": f"+6012345678{n}"}).status_code for n in range(2)]
        answer = post(source, secret, ADA)
    assert codes == [201, 201]
    problem(answer, 429, "throttled")
    assert answer["Retry-After"] == "30"
    with time_machine.travel(at + 30, tick=False):
        assert post(source, secret, ADA).status_code == 201


def test_a_source_over_the_api_shows_its_secret_once_and_keeps_it_encrypted():
    client = caller()
    made = client.post(f"{V1}/leads/sources", {"name": "Shop", "consent_source": "Checkout"}).json()
    source = LeadSource.objects.get(pk=made["id"])
    assert (made["region"], made["address"].endswith(f"/hooks/leads/{source.key}")) == ("MY", True)
    assert post(source, made["secret"], ADA).status_code == 201
    with connection.cursor() as cursor:
        cursor.execute("SELECT secrets FROM leads_leadsource")
        assert made["secret"] not in cursor.fetchone()[0]
    shown = client.get(f"{V1}/leads/sources/{source.pk}")
    assert "secret" not in shown.json()
    assert made["secret"] not in client.get(f"{V1}/leads/sources").content.decode()

    new = client.post(f"{V1}/leads/sources/{source.pk}/rotate").json()["secret"]
    assert [post(source, secret, ADA).status_code for secret in (made["secret"], new)] == [200, 200]
    newest = client.post(f"{V1}/leads/sources/{source.pk}/rotate", {"keep_hours": 0}).json()
    assert newest["previous_until"] is None
    codes = [post(source, secret, ADA).status_code for secret in (made["secret"], new, newest["secret"])]
    assert codes == [401, 401, 200]

    assert client.patch(f"{V1}/leads/sources/{source.pk}", {"enabled": False}).json()["enabled"] is False
    problem(post(source, newest["secret"], ADA), 403, "permission_denied")
    pool, _ = make_pool(owner=client.user, devices=1)
    body = {"pool": pool.pk, "device": make_device(owner=client.user).pk, "rate_per_minute": 0}
    found = fields_of(problem(client.patch(f"{V1}/leads/sources/{source.pk}", body), 400, "invalid"))
    assert set(found) == {"rate_per_minute"}
    del body["rate_per_minute"]
    found = fields_of(problem(client.patch(f"{V1}/leads/sources/{source.pk}", body), 400, "invalid"))
    assert set(found) == {"pool"}


def test_the_admin_makes_a_source_shows_its_secret_and_changes_it():
    staff = make_user()
    client = Client()
    client.force_login(staff)
    form = {"name": "Form", "enabled": "on", "region": "my", "consent_source": "", "rate_per_minute": "60"}
    page = client.post("/admin/leads/leadsource/add/", form)
    (secret,) = re.findall(r'id="new-secret">([^<]+)<', page.content.decode())
    source = LeadSource.objects.get(owner=staff)
    assert post(source, secret, ADA).status_code == 201
    assert secret not in client.get(f"/admin/leads/leadsource/{source.pk}/change/").content.decode()
    assert client.get("/admin/leads/leadsource/").status_code == 200
    page = client.post(f"/admin/leads/leadsource/{source.pk}/rotate_secret/", {"confirmed": "yes"}, follow=True)
    (new,) = re.findall(r'id="new-secret">([^<]+)<', page.content.decode())
    assert (new != secret, post(source, new, ADA).status_code) == (True, 200)
    for role, code in (("team", 403), ("ops", 403)):
        other = Client()
        other.force_login(make_user(role=role))
        assert other.get("/admin/leads/leadsource/").status_code == code


def test_nothing_personal_is_logged(capsys, caplog):
    source, secret = make_source()
    post(source, secret, ADA)
    post(source, "wrong", ADA)
    post(source, secret, {**ADA, "status": "friend"})
    said = "".join(capsys.readouterr()) + caplog.text
    for private in (secret, "345", "Lovelace", "coffee"):
        assert private not in said


@given(body=st.binary(max_size=60), stamp=st.text(max_size=14), signature=st.text(max_size=80))
def test_no_unsigned_request_is_believed(body, stamp, signature):
    from datetime import UTC, datetime

    source = LeadSource(key="k", secrets={"secret": "s" * 40})
    headers = {"x-flotilla-timestamp": stamp, "x-flotilla-signature": signature}
    with pytest.raises(sources.BadSignature):
        sources._believed(source, headers, body, datetime.now(UTC))
