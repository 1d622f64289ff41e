"""What a token may open: decided by its scopes and its user's role, in one place, for every address."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.test import Client
from django.utils import timezone
from rest_framework.test import APIClient

from config.api.tokens import make_token
from config.scopes import FULL, OPEN, PREFIX, SCOPES, allows, needed
from config.token_models import ApiToken
from tests.api_support import V1, caller, problem
from tests.config import role_walk, role_world
from tests.factories import make_user

pytestmark = pytest.mark.django_db


def holding(*scopes: str, role: str = "admin") -> APIClient:
    """A client with a token of these scopes; its user is its ``user``."""
    client = APIClient()
    client.user = make_user(role=role)
    token, _ = make_token(user=client.user, name="test", scopes=scopes)
    client.credentials(HTTP_AUTHORIZATION=f"Token {token}")
    return client


def test_the_refusal_names_the_missing_scope():
    client = holding("devices:read", "campaigns:write")
    assert client.get(f"{V1}/devices").status_code == 200
    assert client.get(f"{V1}/campaigns").status_code == 200  # whoever may write there may read
    body = problem(client.post(f"{V1}/devices", {}), 403, "scope_missing")
    assert [error["code"] for error in body["errors"]] == ["devices:write"]
    assert "devices:write" in body["detail"]
    assert problem(client.get(f"{V1}/leads"), 403, "scope_missing")["errors"][0]["code"] == "leads:read"


def test_scopes_take_away_and_give_nothing():
    problem(holding("devices:write", role="team").post(f"{V1}/devices", {}), 403, "permission_denied")
    assert holding("operations:read", role="team").get("/metrics").status_code == 403
    assert holding("operations:read", role="ops").get("/metrics").status_code == 200
    problem(holding("devices:read", role="ops").get("/metrics"), 403, "scope_missing")


@pytest.mark.parametrize("scope", [scope for scope in SCOPES if scope != FULL])
def test_every_address_refuses_a_token_without_its_scope(scope):
    """All of them, from the resolver: a token with one scope gets through exactly where the table says so."""
    world, client = role_world.build(), holding(scope)
    wrong = []
    for route in role_walk.routes():
        if not route.pattern.startswith("api/v1/") or route.pattern == "api/v1/auth/token":
            continue
        for method in set(route.methods) - ({"delete", "post"} if "logout" in route.pattern else set()):
            address = route.address(world)
            answer = getattr(client, method)(address, {} if method != "delete" else None)
            refused = answer.status_code == 403 and answer.json().get("code") == "scope_missing"
            opens = allows([scope], needed(method=method.upper(), path=address))
            if refused is opens:
                wrong.append(f"{method} {address}: {answer.status_code}")
    assert not wrong, "\n".join(wrong)


def test_every_address_belongs_to_an_area():
    """A new address opens to full tokens only until the table says otherwise; this says that it should."""
    world = role_world.build()
    paths = {route.address(world) for route in role_walk.routes() if route.pattern.startswith("api/v1/")}
    below = {path.removeprefix(PREFIX) for path in paths}
    full = {path for path in below if needed(method="GET", path=PREFIX + path) == FULL}
    assert {path.split("/")[0] for path in full} == {"tokens", "users", "auth"}  # the log-in takes no token at all
    assert below >= OPEN


def test_what_lets_others_in_takes_the_scope_to_write():
    world = role_world.build()
    hook = f"{V1}/devices/{world.device.pk}/webhook"
    problem(holding("devices:read").get(hook), 403, "scope_missing")
    assert holding("devices:write").get(hook).status_code == 200


def test_a_repeated_key_opens_nothing_that_the_scope_does_not():
    """The stored answer of a full token is not replayed to a smaller one of the same user."""
    full = caller(role="admin")
    headers = {"Idempotency-Key": "one-of-mine"}
    assert full.post(f"{V1}/pools", {"name": "x"}, headers=headers).status_code == 201
    small = APIClient()
    token, _ = make_token(user=full.user, scopes=("leads:write",))
    small.credentials(HTTP_AUTHORIZATION=f"Token {token}")
    problem(small.post(f"{V1}/pools", {"name": "x"}, headers=headers), 403, "scope_missing")


def test_tokens_are_made_listed_and_revoked_over_the_api():
    client = caller(role="team")
    wanted = {"name": "web shop", "scopes": ["messages:write", "devices:read", "devices:read"], "expires_in_days": 3}
    made = client.post(f"{V1}/tokens", wanted, headers={"Idempotency-Key": "k1"})
    assert made.status_code == 201
    assert made["Cache-Control"] == "no-store"
    body = made.json()
    row = ApiToken.objects.get(public_id=body["id"])
    assert (row.name, row.scopes) == ("web shop", ["messages:write", "devices:read"])
    assert timedelta(days=2) < row.expiry - timezone.now() <= timedelta(days=3)
    assert body["token"] not in {row.digest, row.token_key}
    listed = client.get(f"{V1}/tokens")
    assert body["id"] in {token["id"] for token in listed.json()}
    assert body["token"] not in listed.content.decode()
    assert row.digest not in listed.content.decode()
    other = APIClient()
    other.credentials(HTTP_AUTHORIZATION=f"Token {body['token']}")
    assert other.get(f"{V1}/devices").status_code == 200
    assert client.delete(f"{V1}/tokens/{body['id']}").status_code == 204
    problem(other.get(f"{V1}/devices"), 401, "authentication_failed")


def test_a_token_makes_no_token_unless_it_may_do_everything():
    small = holding(*[scope for scope in SCOPES if scope != FULL])
    problem(small.post(f"{V1}/tokens", {"name": "more", "scopes": ["all"]}), 403, "scope_missing")
    problem(small.get(f"{V1}/tokens"), 403, "scope_missing")


def test_a_token_needs_a_name_scopes_that_exist_and_an_end_within_the_limit():
    client = caller()
    body = problem(client.post(f"{V1}/tokens", {}), 400, "invalid")
    assert {error["field"] for error in body["errors"]} == {"name", "scopes"}
    wrong = {"name": "x", "scopes": ["devices:own"], "expires_in_days": 100_000}
    errors = problem(client.post(f"{V1}/tokens", wrong), 400, "invalid")["errors"]
    assert {error["field"].partition(".")[0] for error in errors} == {"scopes", "expires_in_days"}
    assert any("FLOTILLA_TOKEN_DAYS" in error["message"] for error in errors)


def test_a_session_makes_tokens_with_its_csrf_token_only():
    client = APIClient(enforce_csrf_checks=True)
    client.force_login(make_user())
    wanted = {"name": "x", "scopes": ["devices:read"]}
    problem(client.post(f"{V1}/tokens", wanted), 403, "permission_denied")
    headers = {"X-CSRFToken": client.get("/api/docs").cookies["csrftoken"].value}
    assert client.post(f"{V1}/tokens", wanted, headers=headers).status_code == 201


def test_the_last_use_is_noted_once_a_minute_and_is_no_change_of_the_audit_trail():
    client = holding("devices:read")
    assert client.get(f"{V1}/devices").status_code == 200
    row = ApiToken.objects.get(user=client.user)
    first = row.last_used_at
    assert first is not None
    client.post(f"{V1}/devices", {})  # refused, and used all the same; within the minute it costs no UPDATE
    row.refresh_from_db()
    assert row.last_used_at == first
    row.note_use(now=first + timedelta(minutes=2))
    row.refresh_from_db()
    assert row.last_used_at == first + timedelta(minutes=2)
    row.note_use(now=first)  # a process whose clock is behind, or a request that took long
    row.refresh_from_db()
    assert row.last_used_at == first + timedelta(minutes=2)


def test_a_dead_token_opens_nothing():
    client = caller()
    ApiToken.objects.filter(user=client.user).update(expiry=timezone.now() - timedelta(seconds=1))
    problem(client.get(f"{V1}/devices"), 401, "authentication_failed")
    answer = Client().get(f"{V1}/devices", headers={"Authorization": "Token é"})
    assert answer.status_code == 401
