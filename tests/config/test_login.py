"""Doors: guessing passwords, second factors, sessions, and who comes to Flower."""

from __future__ import annotations

import uuid
from base64 import b32decode
from datetime import datetime, timedelta
from ipaddress import ip_address
from typing import Any

import pytest
from cryptography.hazmat.primitives.hashes import SHA1
from cryptography.hazmat.primitives.twofactor.totp import TOTP
from django.contrib.auth.hashers import identify_hasher, make_password
from django.contrib.auth.models import User
from django.core.cache.backends.redis import RedisCache
from django.core.management import call_command
from django.db import connection
from django.test import Client
from django.utils import timezone
from rest_framework.test import APIClient

from config import knocking, second_factor
from config.audit_models import AuditEntry
from config.login_models import RecoveryCode, SecondFactor
from tests.api_support import V1, at_once, caller, problem
from tests.factories import make_user

pytestmark = pytest.mark.django_db

PASSWORD = "correct horse battery"
LOGIN = "/admin/login/"


@pytest.fixture
def user() -> User:
    """Somebody whom no test before has tried to log in."""
    return make_user(role="admin", username=f"u{uuid.uuid4().hex}", password=PASSWORD)


@pytest.fixture
def address() -> str:
    """An address of this test's own: counters outlive tests."""
    return str(ip_address(f"2001:db8::{uuid.uuid4().hex[:4]}:{uuid.uuid4().hex[:4]}"))  # as it is written down


def sign_in(user: User, address: str, *, password: str = PASSWORD, code: str = "") -> tuple[Client, str]:
    """The browser, and what the form says: empty when it let them in."""
    browser = Client(REMOTE_ADDR=address)
    answer = browser.post(LOGIN, {"username": user.username, "password": password, "code": code})
    if answer.status_code == 302:
        return browser, ""
    return browser, " ".join(answer.context["form"].non_field_errors())


def app_of(user: User) -> TOTP:
    """The authenticator app in the user's hands: made from what the page shows, not from our code."""
    return TOTP(b32decode(second_factor.begin(user=user)), 6, SHA1(), 30)  # noqa: S303 - what the standard says


def with_factor(user: User) -> tuple[TOTP, list[str]]:
    """The app, set up a while ago, and the recovery codes."""
    app, before = app_of(user), timezone.now() - timedelta(minutes=10)
    codes = second_factor.confirm(user=user, code=code_of(app, before), now=before)
    assert codes
    return app, codes


def code_of(app: TOTP, when: datetime) -> str:
    return app.generate(int(when.timestamp())).decode()


# -- Guessing passwords ------------------------------------------------------------------------------------------------


def test_guesses_are_counted_over_admin_and_api_together(user, address):
    api = APIClient(REMOTE_ADDR=address)
    for _ in range(5):
        assert "Please enter the correct" in sign_in(user, address, password="wrong")[1]
        given = {"username": user.username.upper(), "password": "wrong"}
        assert api.post(f"{V1}/auth/token", given).status_code == 401
    assert "Too many tries. Wait 60 seconds." in sign_in(user, address)[1]
    problem(api.post(f"{V1}/auth/token", {"username": user.username, "password": PASSWORD}), 429, "throttled")
    assert sign_in(user, address.replace("db8", "db9"))[1] == ""


def test_one_name_from_many_addresses_and_many_names_from_one_address_are_counted(address, monkeypatch):
    monkeypatch.setattr(knocking, "LIMITS", (knocking.Limit("name", 3, 60), knocking.Limit("address", 5, 60)))
    name = uuid.uuid4().hex
    for index in range(3):
        knocking.knock(name=name, address=f"{address}{index}")
    with pytest.raises(knocking.TooManyTries):
        knocking.knock(name=name.upper(), address=f"{address}9")
    for index in range(5):
        knocking.knock(name=f"{name}{index}", address=address)
    with pytest.raises(knocking.TooManyTries):
        knocking.knock(name=f"{name}x", address=address)


def test_a_burst_of_parallel_guesses_is_counted_in_full(address):
    name = uuid.uuid4().hex

    def guess(_: int) -> bool:
        try:
            knocking.knock(name=name, address=address)
        except knocking.TooManyTries:
            return False
        return True

    assert sum(at_once(30, guess)) == 10


def test_a_forwarded_address_counts_only_behind_a_proxy_that_we_know(user, address, settings):
    for index in range(10):
        Client(REMOTE_ADDR=address, HTTP_X_FORWARDED_FOR=f"203.0.113.{index}").post(
            LOGIN, {"username": user.username, "password": "wrong"}
        )
    assert "Too many" in sign_in(user, address)[1]
    settings.REST_FRAMEWORK = {**settings.REST_FRAMEWORK, "NUM_PROXIES": 1}
    inside = Client(REMOTE_ADDR=address, HTTP_X_FORWARDED_FOR="203.0.113.77")
    assert inside.post(LOGIN, {"username": user.username, "password": PASSWORD}).status_code == 302


def test_without_the_counter_nobody_logs_in_to_the_admin(user, address, monkeypatch):
    monkeypatch.setattr(knocking, "cache", RedisCache("redis://127.0.0.1:1/0", {}))  # nothing listens on port 1
    assert "the counter of tries does not answer" in sign_in(user, address)[1]


def test_log_ins_good_and_bad_are_written_down(user, address):
    sign_in(user, address, password="wrong")
    sign_in(user, address)
    found = AuditEntry.objects.filter(user=user).order_by("id").values_list("event", "address")
    assert [(event, str(where)) for event, where in found] == [("refused", address), ("login", address)]


# -- Passwords ---------------------------------------------------------------------------------------------------------


def test_passwords_are_hashed_by_argon2_and_old_ones_become_so(user, address):
    assert identify_hasher(user.password).algorithm == "argon2"
    User.objects.filter(pk=user.pk).update(password=make_password(PASSWORD, hasher="pbkdf2_sha256"))
    assert sign_in(user, address)[1] == ""
    user.refresh_from_db()
    assert identify_hasher(user.password).algorithm == "argon2"
    assert user.check_password(PASSWORD)


# -- Second factor -----------------------------------------------------------------------------------------------------


def test_an_app_is_set_up_on_its_page_and_asked_for_from_then_on(user, address):
    browser, _ = sign_in(user, address)
    page = browser.get("/admin/second-factor/")
    assert "no-store" in page["Cache-Control"]
    assert page.context["seed"].replace(" ", "") == second_factor.begin(user=user)
    app = app_of(user)
    wrong = browser.post("/admin/second-factor/", {"code": f"{(int(code_of(app, timezone.now())) + 1) % 10**6:06}"})
    assert "not right" in wrong.content.decode()
    assert not second_factor.is_on(user)
    done = browser.post("/admin/second-factor/", {"code": code_of(app, timezone.now())})
    assert len(done.context["codes"]) == 10
    assert "Enter the code" in sign_in(user, address)[1]
    assert "not right" in sign_in(user, address, code="123")[1]
    assert sign_in(user, address, code=done.context["codes"][0].upper())[1] == ""


def test_a_code_opens_once(user, address):
    app, codes = with_factor(user)
    code = code_of(app, timezone.now())
    assert sign_in(user, address, code=code)[1] == ""
    assert "used before" in sign_in(user, address, code=code)[1]
    assert sign_in(user, address, code=codes[3])[1] == ""
    assert "used before" in sign_in(user, address, code=codes[3])[1]
    assert AuditEntry.objects.filter(user=user, event="refused").count() == 2


@pytest.mark.django_db(transaction=True)
def test_of_two_requests_with_one_code_one_gets_in(user):
    app, codes = with_factor(user)
    for code in (code_of(app, timezone.now()), codes[0]):
        assert sum(at_once(6, lambda _, code=code: second_factor.accept(user=user, code=code, now=timezone.now()))) == 1


def test_codes_fit_clocks_that_are_half_a_minute_off_and_no_others(user):
    app, _codes = with_factor(user)
    now = timezone.now()
    for late in (-90, 90):
        assert not second_factor.accept(user=user, code=code_of(app, now + timedelta(seconds=late)), now=now)
    for late in (-30, 0, 30):
        assert second_factor.accept(user=user, code=code_of(app, now + timedelta(seconds=late)), now=now)
    assert not second_factor.accept(user=user, code=code_of(app, now), now=now)  # an older step than the last accepted


def test_a_stolen_database_holds_neither_seed_nor_codes(user):
    seed = second_factor.begin(user=user)
    _app, codes = with_factor(user)
    with connection.cursor() as cursor:
        cursor.execute("SELECT sealed FROM config_secondfactor")
        stored = str(cursor.fetchall())
    assert seed not in stored
    assert b32decode(seed).hex() not in stored
    digests = {code.digest for code in RecoveryCode.objects.filter(user=user)}
    assert not digests & {*codes, *(code.replace("-", "") for code in codes)}
    assert seed not in repr(SecondFactor.objects.get(user=user).sealed)


def test_the_api_gives_no_token_for_the_password_alone(user, address):
    app, _codes = with_factor(user)
    api, given = APIClient(REMOTE_ADDR=address), {"username": user.username, "password": PASSWORD}
    problem(api.post(f"{V1}/auth/token", given), 401, "second_factor_required")
    problem(api.post(f"{V1}/auth/token", {**given, "code": "12"}), 401, "authentication_failed")
    wanted = {**given, "code": code_of(app, timezone.now()), "name": "cli", "scopes": ["devices:read"]}
    token = api.post(f"{V1}/auth/token", wanted).json()["token"]
    api.credentials(HTTP_AUTHORIZATION=f"Token {token}")
    assert api.get(f"{V1}/devices").status_code == 200
    problem(api.get(f"{V1}/leads"), 403, "scope_missing")


def test_where_admins_need_one_they_get_nowhere_without(user, address, settings):
    settings.FLOTILLA_ADMINS_NEED_CODES = True
    browser, _ = sign_in(user, address)
    for path in ("/admin/", "/admin/config/apitoken/add/", "/admin/search/?s=a"):
        assert browser.get(path)["Location"] == "/admin/second-factor/"
    assert "Set it up to go on" in browser.get("/admin/second-factor/").content.decode()
    problem(browser.get(f"{V1}/devices"), 403, "second_factor_owed")
    problem(browser.get(f"{V1}/devices", headers={"Authorization": "Basic x"}), 403, "second_factor_owed")
    assert browser.get("/auth/flower").status_code == 403
    given = {"username": user.username, "password": PASSWORD}
    problem(APIClient(REMOTE_ADDR=address).post(f"{V1}/auth/token", given), 403, "second_factor_owed")
    browser.post("/admin/second-factor/", {"code": code_of(app_of(user), timezone.now())})
    assert browser.get("/admin/config/apitoken/").status_code == 200
    assert browser.get(f"{V1}/devices").status_code == 200
    staff = Client()
    staff.force_login(make_user(role="staff"))
    assert staff.get("/admin/leads/lead/").status_code == 200


def test_who_lost_app_and_codes_is_let_in_again_by_command(user, address, capsys):
    with_factor(user)
    call_command("second_factor", user.username)
    call_command("second_factor", user.username, "--off")
    assert capsys.readouterr().out.splitlines() == [
        f"{user.username}: password and code",
        f"{user.username}: password alone",
    ]
    assert sign_in(user, address)[1] == ""


# -- Flower ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("role", "status"), [("admin", 204), ("ops", 204), ("staff", 403), ("team", 403), ("nobody-in-particular", 403)]
)
def test_flower_is_for_admin_and_ops(role, status):
    browser = Client()
    assert browser.get("/auth/flower").status_code == 401
    browser.force_login(make_user(role=role))
    answer = browser.get("/auth/flower")
    assert (answer.status_code, answer.content) == (status, b"")
    assert "no-store" in answer["Cache-Control"]


def test_a_token_does_not_open_flower():
    assert caller(role="admin").get("/auth/flower").status_code == 401


def test_sessions_are_of_no_use_to_scripts_and_other_sites(user, address, settings: Any):
    browser, _ = sign_in(user, address)
    cookie = browser.cookies[settings.SESSION_COOKIE_NAME]
    assert cookie["httponly"]
    assert cookie["samesite"] == "Lax"
