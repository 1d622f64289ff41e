"""Who changed what: written for everything that people do, never for what workers do, and not to be altered."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from django.conf import settings
from django.db import DatabaseError, connection, transaction
from django.test import Client

from config.audit_models import AuditEntry
from devices.models import Device
from tests.api_support import V1, caller, problem
from tests.factories import make_device, make_user
from tests.programs import database_url

pytestmark = pytest.mark.django_db
ROOT = Path(__file__).resolve().parents[2]


def entries(**wanted):
    return list(AuditEntry.objects.filter(**wanted).order_by("pk"))


def test_a_change_over_the_api_says_who_what_and_from_where():
    client = caller()
    device = make_device(owner=client.user, name="old")
    assert not entries(table="devices_device")  # nobody asked for that one in a request
    answer = client.patch(f"{V1}/devices/{device.pk}", {"name": "new"}, REMOTE_ADDR="203.0.113.9")
    assert answer.status_code == 200
    (entry,) = entries(table="devices_device")
    assert (entry.user, entry.address, entry.action) == (client.user, "203.0.113.9", "PATCH device-detail")
    assert (entry.event, entry.object_id) == ("update", str(device.pk))
    assert (entry.before["name"], entry.after["name"]) == ("old", "new")
    assert "phone" not in entry.after


def test_secrets_show_that_they_changed_and_nothing_else():
    client = caller()
    body = {"name": "n", "gateway": "simulator", "credentials": {"token": "hush-hush"}}
    made = client.post(f"{V1}/devices", body).json()["id"]
    client.patch(f"{V1}/devices/{made}", {"credentials": {"token": "more-hush"}})
    added, changed = entries(table="devices_device")
    assert added.after["credentials"] == changed.before["credentials"] == changed.after["credentials"] == "(hidden)"
    stored = Device.objects.filter(pk=made).extra(select={"raw": "credentials::text"}).values_list("raw", flat=True)[0]
    told = f"{added.after}{changed.before}{changed.after}"
    assert "hush" not in told
    assert stored not in told


def test_log_ins_good_and_bad_and_tokens_are_written_down():
    user = make_user(role="admin", username="ada", password="correct horse battery")
    browser = Client()
    for name, password in (("ada", "wrong"), ("my secret, in the wrong field", "x"), ("ada", "correct horse battery")):
        browser.post("/admin/login/", {"username": name, "password": password})
    log_ins = [(entry.event, entry.user) for entry in entries(table="auth_user")]
    assert log_ins == [("refused", user), ("refused", None), ("login", user)]
    assert "my secret" not in str([vars(entry) for entry in entries()])
    given = Client().post(
        f"{V1}/auth/token", {"username": "ada", "password": "correct horse battery"}, content_type="application/json"
    )
    assert given.status_code in {200, 201}
    tokens = entries(table="config_apitoken")
    assert {token.after["digest"] for token in tokens} <= {"(hidden)"}
    assert given.json()["token"] not in str([vars(entry) for entry in entries()])


def test_stopping_everything_is_written_down():
    admin = caller(role="admin")
    admin.post(f"{V1}/halt", {"reason": "fire"})
    admin.delete(f"{V1}/halt")
    began, ended = entries(table="messaging_halt")
    assert (began.action, began.after["reason"], began.user) == ("POST halt", "fire", admin.user)
    assert ended.before["ended_at"] is None
    assert ended.after["ended_at"]


@pytest.mark.parametrize("statement", ["UPDATE config_auditentry SET action = 'x'", "DELETE FROM config_auditentry"])
def test_nobody_alters_it(statement):
    caller(role="admin").post(f"{V1}/halt", {})
    assert entries()
    with pytest.raises(DatabaseError, match="stays as it was written"), transaction.atomic(), connection.cursor() as c:
        c.execute(statement)


def test_staff_read_their_own_entries_and_admins_all_and_nobody_writes():
    mine, other, admin = caller(), caller(), caller(role="admin")
    mine.post(f"{V1}/pools", {"name": "p"})
    entry = entries(table="devices_pool")[0]
    for client, sees in ((mine, True), (admin, True), (other, False), (caller(role="team"), False)):
        found = {row["id"] for row in client.get(f"{V1}/audit").json()["results"]}
        assert (entry.pk in found) is sees
        assert client.get(f"{V1}/audit/{entry.pk}").status_code == (200 if sees else 404)
    for method in ("put", "patch", "delete"):
        problem(getattr(admin, method)(f"{V1}/audit/{entry.pk}"), 405, "method_not_allowed")
    browser = Client()
    browser.force_login(admin.user)
    assert b"POST pool-list" in browser.get("/admin/config/auditentry/").content
    assert browser.post(f"/admin/config/auditentry/{entry.pk}/delete/", {"post": "yes"}).status_code == 403


@pytest.mark.django_db(transaction=True)  # another process is to see what this one wrote
def test_what_somebody_does_at_the_command_line_names_them_and_the_command():
    def manage(*argv: str) -> str:
        env = {**os.environ, "DATABASE_URL": database_url(), "REDIS_URL": settings.REDIS_URL, "LOGNAME": "olga"}
        done = subprocess.run(
            [sys.executable, "manage.py", *argv],
            cwd=ROOT,
            env=env,
            capture_output=True,
            text=True,
            check=True,
            timeout=120,
        )
        return done.stdout

    assert "Halted since" in manage("halt", "--reason", "Numbers look wrong")
    (entry,) = entries(table="messaging_halt")
    assert (entry.user, entry.address, entry.event) == (None, None, "insert")
    assert entry.action == f"manage.py halt by olga on {socket.gethostname()}"[:120]
    assert entry.after["reason"] == "Numbers look wrong"
    manage("resume", "--yes")
    assert [entry.event for entry in entries(table="messaging_halt")] == ["insert", "update"]
