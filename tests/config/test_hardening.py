"""What keeps strangers out before any view is asked: policies, lengths, cookies, secrets."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from cryptography.fernet import Fernet
from django.conf import settings as real_settings
from django.test import Client

from config.csp import ADMIN, NOTHING, PAGES
from config.secret_files import SECRETS, SecretProblem, read_secret_files, refuse_defaults
from config.stack.keys import new_keys
from tests.api_support import V1, caller, problem
from tests.factories import make_user

ROOT = Path(__file__).resolve().parents[2]
GOOD = {"FLOTILLA_ENV": "production", "FLOTILLA_HOSTS": "flotilla.example"} | {
    name: value for name, value in new_keys().items() if name in SECRETS
}


# -- Pages -------------------------------------------------------------------------------------------------------------


@pytest.mark.django_db
def test_no_page_runs_a_script_that_stands_in_it_or_comes_from_elsewhere():
    browser = Client()
    browser.force_login(make_user(role="admin"))
    said = {
        path: browser.get(path)["Content-Security-Policy"]
        for path in ("/admin/", "/admin/login/", "/api/docs", "/status/nobody", "/healthz", f"{V1}/devices", "/nowhere")
    }
    assert {path for path, policy in said.items() if "'unsafe-eval'" in policy} == {
        "/admin/",
        "/admin/login/",
        "/nowhere",
    }
    assert said["/admin/"] == ADMIN
    assert said["/api/docs"] == said["/status/nobody"] == PAGES
    assert said["/healthz"] == said[f"{V1}/devices"] == NOTHING
    for policy in said.values():
        rules = dict(part.strip().split(" ", 1) for part in policy.split(";"))
        scripts = rules.get("script-src", rules["default-src"])
        assert "'unsafe-inline'" not in scripts
        assert not re.search(r"https?:|\*", policy)
        assert rules["frame-ancestors"] == "'none'"


@pytest.mark.django_db
def test_pages_hold_no_scripts_of_their_own():
    """What a policy forbids is not there in the first place: neither <script> with a body nor onclick and its kind."""
    browser = Client()
    browser.force_login(make_user(role="admin"))
    for path in ("/admin/", "/admin/leads/lead/", "/admin/devices/device/add/", "/admin/login/", "/api/docs"):
        text = browser.get(path).content.decode()
        bodies = re.findall(r"<script\b(?![^>]*\btype=\"application/json\")[^>]*>([^<]*)</script>", text)
        assert not [body for body in bodies if body.strip()], path
        assert not re.search(r"<[^>]+\son(click|load|change|error|submit)=", text), path
        assert "javascript:" not in text


# -- Lengths -----------------------------------------------------------------------------------------------------------


@pytest.mark.django_db
def test_a_body_that_is_too_long_is_refused_unread_and_the_limit_named(settings: Any):
    settings.FLOTILLA_BODY_MAX_BYTES = 1000
    client = caller(role="staff")
    body = problem(client.post(f"{V1}/pools", {"name": "x" * 2000}), 413, "too_large")
    assert "FLOTILLA_BODY_MAX_MB" in body["detail"]
    assert "1000" in body["detail"]
    assert client.post(f"{V1}/pools", {"name": "short"}).status_code == 201
    for path in ("/admin/login/", "/hooks/simulator", "/nowhere"):
        assert Client().post(path, {"name": "x" * 2000}).status_code == 413
    assert (
        client.post(f"{V1}/leads/imports", {"file": "x" * 2000}, format="multipart").status_code == 400
    )  # files may be longer


@pytest.mark.django_db
def test_where_files_are_sent_another_limit_is_named(settings: Any):
    settings.FLOTILLA_MEDIA_MAX_BYTES = 0
    refused = caller(role="staff").post(f"{V1}/media", {"base64": "x" * 1_100_000})
    assert "FLOTILLA_MEDIA_MAX_MB" in problem(refused, 413, "too_large")["detail"]


@pytest.mark.django_db
@pytest.mark.parametrize("length", ["-5", "abc", "１２", "9" * 400])
def test_a_length_that_is_no_number_or_endless_is_refused(length):
    answer = Client().generic("POST", "/hooks/simulator", b"{}", CONTENT_LENGTH=length)
    assert answer.status_code in {400, 413}


# -- Secrets -----------------------------------------------------------------------------------------------------------


def test_each_secret_may_come_from_a_file(tmp_path):
    environment = {}
    for name in SECRETS:
        (tmp_path / name).write_text(f"value of {name}\n", encoding="utf-8")
        environment[f"{name}_FILE"] = str(tmp_path / name)
    read_secret_files(environment)
    assert environment == {name: f"value of {name}" for name in SECRETS}


@pytest.mark.parametrize(
    ("environment", "told"),
    [
        ({"REDIS_URL_FILE": "/nowhere/at-all"}, "REDIS_URL_FILE: /nowhere/at-all cannot be read"),
        ({"REDIS_URL_FILE": "/dev/null"}, "REDIS_URL_FILE: /dev/null is empty"),
        ({"REDIS_URL_FILE": "/dev/null", "REDIS_URL": "hush"}, "REDIS_URL and REDIS_URL_FILE are both set"),
    ],
)
def test_a_file_that_does_not_do_is_named(environment, told):
    with pytest.raises(SecretProblem, match=told) as raised:
        read_secret_files(environment)
    assert "hush" not in str(raised.value)


def test_good_keys_start_and_each_default_does_not():
    refuse_defaults(GOOD)
    weak = {
        "FLOTILLA_SECRET_KEY": "django-insecure-" + "x7" * 30,
        "FLOTILLA_SUPPRESSION_KEYS": "q7w8",
        "FLOTILLA_FLOWER_PASSWORD": "flower",
        "FLOTILLA_METRICS_TOKEN": "changeme-changeme-changeme",
        "FLOTILLA_ADMIN_PASSWORD": "admin",
        "FLOTILLA_HOSTS": "flotilla.example,*",
    }
    for name, value in weak.items():
        with pytest.raises(SecretProblem, match=name) as raised:
            refuse_defaults(GOOD | {name: value})
        assert value not in str(raised.value) or name == "FLOTILLA_HOSTS"
    with pytest.raises(SecretProblem, match="must differ"):
        refuse_defaults(GOOD | {"FLOTILLA_SUPPRESSION_KEYS": GOOD["FLOTILLA_SECRET_KEY"]})


def in_production(**environment: str) -> subprocess.CompletedProcess[str]:
    code = (
        "from django.conf import settings as s;"
        "print(s.SESSION_COOKIE_SECURE, s.CSRF_COOKIE_SECURE, s.SECURE_SSL_REDIRECT, s.SECURE_HSTS_SECONDS, s.DEBUG)"
    )
    outside = {name: os.environ[name] for name in ("PATH", "DATABASE_URL", "REDIS_URL") if name in os.environ}
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**outside, "DJANGO_SETTINGS_MODULE": "config.settings", **environment},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=110,
    )


def test_production_starts_with_good_keys_from_files_and_secure_cookies(tmp_path):
    key = tmp_path / "key"
    key.write_text(Fernet.generate_key().decode(), encoding="utf-8")
    given = {name: value for name, value in GOOD.items() if name != "FLOTILLA_FIELD_KEYS"}
    done = in_production(**given, FLOTILLA_FIELD_KEYS_FILE=str(key))
    assert done.stdout.split() == ["True", "True", "True", "31536000", "False"], done.stderr


def test_production_does_not_start_with_a_placeholder():
    done = in_production(**GOOD | {"FLOTILLA_SECRET_KEY": "change-me-" + "a1b2c3d4e5" * 6})
    assert done.returncode != 0
    assert "FLOTILLA_SECRET_KEY is a placeholder" in done.stderr
    assert "a1b2c3d4e5" not in done.stderr


def test_debug_pages_are_never_on():
    assert real_settings.DEBUG is False
