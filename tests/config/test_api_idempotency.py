from __future__ import annotations

import threading
import time
from datetime import timedelta

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.db import connection, connections, transaction
from django.http import StreamingHttpResponse
from django.test import override_settings
from django.urls import path
from django.utils import timezone
from rest_framework.exceptions import ValidationError
from rest_framework.response import Response
from rest_framework.test import APIClient
from rest_framework.views import APIView

from config.api import idempotency
from config.models import IdempotencyKey
from config.urls import handler400, handler403, handler404, handler500  # noqa: F401
from config.urls import urlpatterns as real_urlpatterns
from devices.models import Pool
from leads.models import Lead, LeadImport
from messaging.models import Message
from tests.api_support import V1, at_once, caller, problem
from tests.factories import make_device, make_leads, make_user

pytestmark = pytest.mark.django_db(transaction=True)


class WritesThen(APIView):
    """Writes a row and then ends in the way the body asks for."""

    def post(self, request):
        Pool.objects.create(owner=request.user, name=f"pool {Pool.objects.count()}")
        match request.data["end"]:
            case "break":
                raise RuntimeError("after the write")
            case "refuse":
                raise ValidationError({"end": "No."})
            case "stream":
                return StreamingHttpResponse([b"a", b"b"])
        return Response({"made": Pool.objects.count()}, status=201, headers={"Location": "/api/v1/pools/1"})


class LockTimeout(APIView):
    """How long the database lets this view wait for a lock."""

    def post(self, request):
        with connection.cursor() as cursor:
            cursor.execute("SHOW lock_timeout")
            return Response({"lock_timeout": cursor.fetchone()[0]})


urlpatterns = [
    path("api/v1/test/writes", WritesThen.as_view()),
    path("api/v1/test/lock-timeout", LockTimeout.as_view()),
    *real_urlpatterns,
]
here = override_settings(ROOT_URLCONF=__name__)


def keyed(key: str) -> dict[str, str]:
    return {"Idempotency-Key": key}


def test_ten_equal_posts_at_once_send_one_message():
    user = make_user()
    make_device(owner=user)
    clients = [caller(user) for _ in range(10)]
    body = {"phone": "+60123456789", "text": "Hello"}
    answers = at_once(10, lambda index: clients[index].post(f"{V1}/messages", body, headers=keyed("order-1")))
    assert {answer.status_code for answer in answers} == {202}
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert len({answer.content for answer in answers}) == 1
    assert [answer.get("Idempotent-Replay") for answer in answers].count("true") == 9
    assert (Message.objects.count(), Lead.objects.count(), IdempotencyKey.objects.count()) == (1, 1, 1)


def test_without_a_key_every_post_counts():
    client = caller()
    make_device(owner=client.user)
    for _ in range(2):
        assert client.post(f"{V1}/messages", {"phone": "+60123456789", "text": "Hello"}).status_code == 202
    assert Message.objects.count() == 2


@here
def test_a_replay_is_the_same_answer_with_its_headers():
    client = caller()
    first = client.post(f"{V1}/test/writes", {"end": "well"}, headers=keyed("a"))
    again = client.post(f"{V1}/test/writes", {"end": "well"}, headers=keyed("a"))
    assert "Idempotent-Replay" not in first
    assert again["Idempotent-Replay"] == "true"
    for header in ("Content-Type", "Location"):
        assert again[header] == first[header]
    assert (again.status_code, again.content) == (201, first.content)
    assert Pool.objects.count() == 1


@here
def test_the_key_belongs_to_its_user_and_to_its_request():
    mine, yours = caller(), caller()
    assert mine.post(f"{V1}/test/writes", {"end": "well"}, headers=keyed("a")).status_code == 201
    assert "Idempotent-Replay" not in yours.post(f"{V1}/test/writes", {"end": "well"}, headers=keyed("a"))
    for address, body in ((f"{V1}/test/writes", {"end": "other"}), (f"{V1}/test/writes?x=1", {"end": "well"})):
        problem(mine.post(address, body, headers=keyed("a")), 422, "idempotency_key_reused")
    problem(mine.post(f"{V1}/pools", {"name": "x"}, headers=keyed("a")), 422, "idempotency_key_reused")
    assert Pool.objects.count() == 2


@here
@pytest.mark.parametrize(("end", "status"), [("break", 500), ("refuse", 400)])
def test_an_error_takes_everything_back_and_frees_the_key(end, status):
    client = caller()
    client.raise_request_exception = False
    assert client.post(f"{V1}/test/writes", {"end": end}, headers=keyed("a")).status_code == status
    assert (Pool.objects.count(), IdempotencyKey.objects.count()) == (0, 0)
    assert client.post(f"{V1}/test/writes", {"end": "well"}, headers=keyed("a")).status_code == 201


@here
def test_an_answer_that_cannot_be_kept_is_not_half_kept():
    client = caller()
    response = client.post(f"{V1}/test/writes", {"end": "stream"}, headers=keyed("a"))
    assert b"".join(response.streaming_content) == b"ab"
    assert (Pool.objects.count(), IdempotencyKey.objects.count()) == (0, 0)


@pytest.mark.parametrize("key", ["", " ", "a b", "ü", "x" * 256])
def test_keys_of_another_shape_are_refused(key):
    problem(caller().post(f"{V1}/pools", {"name": "x"}, headers=keyed(key)), 400, "idempotency_key_invalid")
    assert Pool.objects.count() == 0


def test_strangers_get_no_key():
    problem(APIClient().post(f"{V1}/pools", {"name": "x"}, headers=keyed("a")), 401, "not_authenticated")
    problem(caller(role="team").post(f"{V1}/pools", {"name": "x"}, headers=keyed("a")), 403, "permission_denied")
    assert IdempotencyKey.objects.count() == 0


def test_a_session_needs_its_csrf_token_with_a_key_too():
    user = make_user()
    client = APIClient(enforce_csrf_checks=True)
    client.force_login(user)
    problem(client.post(f"{V1}/pools", {"name": "x"}, headers=keyed("a")), 403, "permission_denied")
    assert (Pool.objects.count(), IdempotencyKey.objects.count()) == (0, 0)


def test_tokens_are_never_kept_as_answers():
    user = make_user(password="correct horse")
    client = caller(user)
    body = {"username": user.username, "password": "correct horse"}
    first = client.post(f"{V1}/auth/token", body, headers=keyed("a"))
    second = client.post(f"{V1}/auth/token", body, headers=keyed("a"))
    assert (first.status_code, second.status_code) == (201, 201)
    assert first.json()["token"] != second.json()["token"]
    assert IdempotencyKey.objects.count() == 0


def test_an_upload_is_recognised_though_its_boundary_changed():
    client = caller()

    def upload(content: bytes):
        file = SimpleUploadedFile("leads.csv", content, content_type="text/csv")
        return client.post(
            f"{V1}/leads/imports", {"file": file, "region": "MY"}, format="multipart", headers=keyed("a")
        )

    first = upload(b"name,phone\nAda,+60123456789\n")
    again = upload(b"name,phone\nAda,+60123456789\n")
    assert (first.status_code, again.status_code) == (202, 202)
    assert again["Idempotent-Replay"] == "true"
    problem(upload(b"name,phone\nBob,+60123456780\n"), 422, "idempotency_key_reused")
    stored = LeadImport.objects.get()
    with stored.file.open("rb") as file:
        assert file.read() == b"name,phone\nAda,+60123456789\n"  # reading it for the fingerprint took nothing away
    stored.file.delete()


def test_a_duplicate_waits_for_the_first_and_gets_its_answer():
    client = caller()
    device = make_device(owner=client.user)
    lead = make_leads(1, owner=client.user, device=device)[0]
    body = {"lead": lead.pk, "text": "Hello"}
    answers = []

    def send() -> None:
        try:
            answers.append(client.post(f"{V1}/messages", body, headers=keyed("a")))
        finally:
            connections.close_all()

    with transaction.atomic():
        # whoever holds the lead's row keeps the first request from finishing (its insert refers to the lead)
        Lead.objects.select_for_update().get(pk=lead.pk)
        threads = [threading.Thread(target=send) for _ in range(3)]
        for thread in threads:
            thread.start()
        _until(lambda: _waiting() == 3)
        assert answers == []
    for thread in threads:
        thread.join(30)
    assert {answer.status_code for answer in answers} == {202}
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert Message.objects.count() == 1


def test_a_duplicate_does_not_wait_for_ever(monkeypatch):
    monkeypatch.setattr(idempotency, "WAIT_SECONDS", 1)
    client, rival = caller(), caller()
    user_id = client.user.pk
    held, release = threading.Event(), threading.Event()

    def hold() -> None:
        try:
            with transaction.atomic():
                IdempotencyKey.objects.all().claim(user_id=user_id, key="a", fingerprint="f", now=timezone.now())
                held.set()
                release.wait(30)
        finally:
            connections.close_all()

    thread = threading.Thread(target=hold)
    thread.start()
    try:
        assert held.wait(30)
        response = client.post(f"{V1}/pools", {"name": "x"}, headers=keyed("a"))
        problem(response, 409, "idempotency_key_in_progress")
        assert response["Retry-After"] == "5"
        assert rival.post(f"{V1}/pools", {"name": "x"}, headers=keyed("a")).status_code == 201
    finally:
        release.set()
        thread.join(30)


@here
def test_the_wait_is_over_before_the_view_begins():
    """The limit on waiting for the key must not become one on the view's own locks."""
    answer = caller().post(f"{V1}/test/lock-timeout", {}, headers=keyed("a"))
    assert answer.json() == {"lock_timeout": "0"}


@here
def test_keys_expire_after_a_day():
    client = caller()
    for key in ("old", "new"):
        assert client.post(f"{V1}/test/writes", {"end": "well"}, headers=keyed(key)).status_code == 201
    day_ago = timezone.now() - timedelta(hours=24, minutes=1)
    IdempotencyKey.objects.filter(key="old").update(created_at=day_ago)
    again = client.post(f"{V1}/test/writes", {"end": "well"}, headers=keyed("old"))
    assert "Idempotent-Replay" not in again
    assert Pool.objects.count() == 3
    IdempotencyKey.objects.filter(key="old").update(created_at=day_ago)
    assert idempotency.expire_keys(now=timezone.now()) == 1
    assert list(IdempotencyKey.objects.values_list("key", flat=True)) == ["new"]


def _waiting() -> int:
    """Sessions of this database that wait for a lock."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_stat_clear_snapshot()")  # else a transaction sees what it saw first
        cursor.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        )
        return cursor.fetchone()[0]


def _until(condition) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, "it never came to that"
        time.sleep(0.02)
