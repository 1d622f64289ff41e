"""Tokens from before they had names and scopes: the migration that takes them over, with rows in the table."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.db import connection
from django.db.migrations.executor import MigrationExecutor
from django.utils import timezone
from knox.crypto import create_token_string, hash_token
from rest_framework.test import APIClient

from config.audit_models import AuditEntry
from config.token_models import ApiToken
from tests.api_support import V1, problem
from tests.factories import make_user

BEFORE, AFTER = ("config", "0005_demo_data"), ("config", "0006_access")


@pytest.mark.django_db
def test_tokens_go_on_opening_what_they_opened_until_they_expire():
    """Back to the migration before and forward again, in the test's own transaction, which is rolled back."""
    now = timezone.now()
    users = [make_user() for _ in range(3)]
    expiries = [now + timedelta(days=9), None, now - timedelta(minutes=1)]
    tokens = [create_token_string() for _ in users]
    _migrate(BEFORE)
    with connection.cursor() as cursor:
        for user, token, expiry in zip(users, tokens, expiries, strict=True):
            cursor.execute(
                "INSERT INTO knox_authtoken (digest, token_key, user_id, created, expiry) VALUES (%s, %s, %s, %s, %s)",
                [hash_token(token), token[:15], user.pk, now - timedelta(days=1), expiry],
            )
    _migrate(AFTER)
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM knox_authtoken")
        assert cursor.fetchone() == (0,)
    _migrate(*MigrationExecutor(connection).loader.graph.leaf_nodes())

    rows = [ApiToken.objects.get(user=user) for user in users]
    assert [row.expiry for row in rows] == expiries
    assert {(row.name, tuple(row.scopes), row.created, row.last_used_at) for row in rows} == {
        ("", ("all",), now - timedelta(days=1), None)
    }
    assert len({row.public_id for row in rows}) == 3
    for row, token, opens in zip(rows, tokens, (True, True, False), strict=True):
        client = APIClient()
        client.credentials(HTTP_AUTHORIZATION=f"Token {token}")
        if not opens:
            problem(client.get(f"{V1}/devices"), 401, "authentication_failed")
            continue
        assert client.get(f"{V1}/devices").status_code == 200
        assert [each["id"] for each in client.get(f"{V1}/tokens").json()] == [str(row.public_id)]
        assert client.delete(f"{V1}/tokens/{row.public_id}").status_code == 204
    noted = AuditEntry.objects.filter(table="config_apitoken", event="delete").values_list("object_id", flat=True)
    assert {str(row.public_id) for row in rows[:2]} <= set(noted)


def _migrate(*targets: tuple[str, str]) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")  # a table with checks still owed cannot be altered
    MigrationExecutor(connection).migrate(list(targets))
