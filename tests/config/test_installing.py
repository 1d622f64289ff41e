"""The first steps of an installation."""

from __future__ import annotations

import io
import json
import os
import stat
import subprocess
import sys

import pytest
from cryptography.fernet import Fernet
from django.contrib.auth import authenticate
from django.core.management import CommandError, call_command

from config.installing import SetupProblem, environment_text, make_admin
from devices.models import Device
from tests.config.stack_support import CHECKOUT


def variables_of(text):
    return dict(line.split("=", 1) for line in text.splitlines())


def test_a_file_of_keys_is_private_fresh_and_never_overwritten(tmp_path):
    path = tmp_path / "flotilla.env"
    call_command("setup", env_file=path, host="flotilla.example.org", stdout=io.StringIO())
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    text = path.read_text()
    with pytest.raises(CommandError, match="exists"):
        call_command("setup", env_file=path, host="flotilla.example.org")
    assert path.read_text() == text
    again = variables_of(environment_text(host="flotilla.example.org"))
    first = variables_of(text)
    assert all(first[name] != again[name] for name in first if name.endswith(("KEY", "KEYS", "PASSWORD", "SECRETS")))
    Fernet(first["FLOTILLA_FIELD_KEYS"])


def test_production_starts_with_that_file_and_nothing_else(tmp_path):
    variables = variables_of(environment_text(host="flotilla.example.org"))
    done = subprocess.run(
        [sys.executable, "manage.py", "check", "--deploy", "--fail-level", "WARNING"],
        env={**variables, "PATH": os.environ["PATH"], "FLOTILLA_LOCAL": str(tmp_path)},
        cwd=CHECKOUT, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "secrets.json").exists()


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"host": "https://flotilla.example.org"}, "--host"),
        ({"host": ""}, "--host"),
        ({"host": "a.example", "database_url": "postgresql://u:p@h/n"}, "--redis-url"),
        ({"host": "a.example", "database_url": "mysql://u:topsecret@h/n", "redis_url": "redis://h"}, "postgresql://"),
        (
            {"host": "a.example", "database_url": "postgresql://u:top$ecret@h/n", "redis_url": "redis://h"},
            "--database-url",
        ),
    ],
)
def test_what_is_wrong_is_named_and_no_secret_told(given, told):
    with pytest.raises(SetupProblem, match=told) as problem:
        environment_text(**given)
    assert "ecret" not in str(problem.value)


@pytest.mark.django_db
def test_an_admin_and_a_device_by_flags(tmp_path, monkeypatch):
    monkeypatch.setenv("FLOTILLA_ADMIN_PASSWORD", "harbour-light-9-sails")
    credentials = tmp_path / "credentials.json"
    credentials.write_text(json.dumps({"token": "first-device-token"}))
    out = io.StringIO()
    call_command(
        "setup", admin="ada", email="ada@example.org", device="First", gateway="simulator",
        credentials_file=credentials, base_url="http://127.0.0.1:8900", stdout=out,
    )  # fmt: skip
    assert authenticate(username="ada", password="harbour-light-9-sails").is_superuser
    device = Device.objects.get()
    assert (device.owner.username, device.credentials["token"]) == ("ada", "first-device-token")
    assert "first-device-token" not in out.getvalue()
    with pytest.raises(CommandError, match="No admin was made"):
        call_command("setup", admin="ada")


@pytest.mark.django_db
def test_a_weak_password_makes_nobody():
    with pytest.raises(SetupProblem, match="too common"):
        make_admin(name="ada", email="", password="password")


@pytest.mark.django_db
def test_a_device_without_its_credentials_is_refused_with_their_name(monkeypatch):
    make_admin(name="ada", email="", password="harbour-light-9-sails")
    with pytest.raises(CommandError, match="credentials"):
        call_command("setup", device="First", gateway="waha", owner="ada", base_url="http://127.0.0.1:3000")
