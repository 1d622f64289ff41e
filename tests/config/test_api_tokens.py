from __future__ import annotations

import uuid
from io import StringIO

import pytest
from django.core.cache.backends.redis import RedisCache
from django.core.management import CommandError, call_command
from django.test import Client
from knox.models import get_token_model
from rest_framework.test import APIClient, APIRequestFactory

from config import knocking
from config.api import throttles
from tests.api_support import V1, caller, problem
from tests.factories import make_user

pytestmark = pytest.mark.django_db

PASSWORD = "correct horse battery"


@pytest.fixture
def user():
    return make_user(username=f"u{uuid.uuid4().hex}", password=PASSWORD)


def log_in(username: str, password: str = PASSWORD, **extra):
    return APIClient().post(f"{V1}/auth/token", {"username": username, "password": password}, **extra)


def test_a_token_is_shown_once_and_stored_hashed(user):
    response = log_in(user.username)
    assert response.status_code == 201
    assert response["Cache-Control"] == "no-store"
    token = response.json()["token"]
    row = get_token_model().objects.get(user=user)
    assert token not in {row.digest, row.token_key}
    assert response.json()["expires_at"]
    client = APIClient()
    client.credentials(HTTP_AUTHORIZATION=f"Token {token}")
    assert client.get(f"{V1}/devices").status_code == 200


@pytest.mark.parametrize("method", ["post", "delete"])
def test_logging_out_ends_this_token_and_no_other(user, method):
    here, there = caller(user), caller(user)
    assert getattr(here, method)(f"{V1}/auth/logout").status_code == 204
    problem(here.get(f"{V1}/devices"), 401, "authentication_failed")
    assert there.get(f"{V1}/devices").status_code == 200


def test_a_session_works_with_its_csrf_token_and_can_log_out(user):
    client = APIClient(enforce_csrf_checks=True)
    client.force_login(user)
    assert client.get(f"{V1}/devices").status_code == 200
    problem(client.post(f"{V1}/pools", {"name": "x"}), 403, "permission_denied")
    token = client.get("/api/docs").cookies["csrftoken"]
    headers = {"X-CSRFToken": token.value}
    assert client.post(f"{V1}/pools", {"name": "x"}, headers=headers).status_code == 201
    assert client.post(f"{V1}/auth/logout", headers=headers).status_code == 204
    problem(client.get(f"{V1}/devices"), 401, "not_authenticated")


def test_wrong_password_no_such_user_and_inactive_user_look_alike(user):
    answers = [log_in(user.username, "wrong"), log_in(f"u{uuid.uuid4().hex}")]
    user.is_active = False
    user.save()
    answers.append(log_in(user.username))
    bodies = [problem(answer, 401, "authentication_failed") for answer in answers]
    assert bodies[0] == bodies[1] == bodies[2]
    assert answers[0]["WWW-Authenticate"] == "Token"


def test_log_in_without_names_says_which_are_missing():
    body = problem(APIClient().post(f"{V1}/auth/token", {}), 400, "invalid")
    assert {error["field"] for error in body["errors"]} == {"username", "password"}
    problem(APIClient().post(f"{V1}/auth/token", [1]), 400, "invalid")


def test_the_eleventh_try_in_a_minute_has_to_wait_even_with_the_right_password(user):
    for _ in range(10):
        assert log_in(user.username, "wrong").status_code == 401
    response = log_in(user.username)
    problem(response, 429, "throttled")
    assert 0 < int(response["Retry-After"]) <= 61
    assert log_in(user.username.upper(), "wrong").status_code == 429
    assert log_in(user.username, headers={"X-Forwarded-For": "203.0.113.9"}).status_code == 429
    assert log_in(f"u{uuid.uuid4().hex}").status_code == 401  # others are not held up
    assert log_in(user.username, REMOTE_ADDR="203.0.113.9").status_code == 201


def test_without_the_counter_nobody_logs_in_but_work_is_accepted(user, monkeypatch):
    nowhere = RedisCache("redis://127.0.0.1:1/0", {})  # nothing listens on port 1
    monkeypatch.setattr(knocking, "cache", nowhere)
    problem(log_in(user.username), 503, "unavailable")
    throttle = throttles.UserThrottle()
    throttle.cache = nowhere
    request = APIRequestFactory().get("/")
    request.user = user
    assert throttle.allow_request(request, None)


def test_create_token_prints_a_token_that_works(user):
    out = StringIO()
    call_command("create_token", user.username, stdout=out, stderr=StringIO())
    client = APIClient()
    client.credentials(HTTP_AUTHORIZATION=f"Token {out.getvalue().strip()}")
    assert client.get(f"{V1}/devices").status_code == 200


def test_create_token_refuses_whom_it_would_not_help(user):
    with pytest.raises(CommandError, match="no user"):
        call_command("create_token", "nobody-at-all")
    user.is_active = False
    user.save()
    with pytest.raises(CommandError, match="not active"):
        call_command("create_token", user.username)


def test_the_docs_ask_people_to_log_in_and_load_nothing_from_elsewhere(user):
    asked = Client().get("/api/docs")
    assert (asked.status_code, asked["Location"].partition("?")[0]) == (302, "/admin/login/")
    client = Client()
    client.force_login(user)
    page = client.get("/api/docs")
    assert page.status_code == 200
    assert b"https://" not in page.content
    assert b"/static/drf_spectacular_sidecar/" in page.content
    problem(APIClient().get(f"{V1}/schema"), 401, "not_authenticated")
    assert client.get(f"{V1}/schema").status_code == 200
