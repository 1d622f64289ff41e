"""Where the servers are: URLs as people write them, and what is said when they are wrong."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psycopg2.extensions
import pytest
from cryptography.fernet import Fernet
from hypothesis import given
from hypothesis import strategies as st

from config.stack.addresses import addresses, database_from_url, external, local_secrets, redis_from_url
from config.stack.errors import StackError

SECRET = "tr0ub4dor"


def parts(url: str) -> dict[str, Any]:
    found = database_from_url(url)
    assert found.pop("ENGINE") == "django.db.backends.postgresql"
    return {name.lower(): value for name, value in found.items() if value}


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        (
            "postgresql://user:word@db.example:6432/fleet",
            {"name": "fleet", "user": "user", "password": "word", "host": "db.example", "port": "6432"},
        ),
        ("postgres://db.example/fleet", {"name": "fleet", "host": "db.example"}),
        (
            "postgresql://user:p%40ss%2Fw%3Ard%23+%25@db/fleet%20one",
            {"name": "fleet one", "user": "user", "password": "p@ss/w:rd#+%", "host": "db"},
        ),
        ("postgresql://user:a@b@db/fleet", {"name": "fleet", "user": "user", "password": "a@b", "host": "db"}),
        ("postgresql://user@%2Fvar%2FRun%2Fpg/fleet", {"name": "fleet", "user": "user", "host": "/var/Run/pg"}),
        (
            "postgresql://user:word@/fleet?host=/var/run/pg&port=5433",
            {"name": "fleet", "user": "user", "password": "word", "host": "/var/run/pg", "port": "5433"},
        ),
        ("postgresql://[2001:db8::1]:5433/fleet", {"name": "fleet", "host": "2001:db8::1", "port": "5433"}),
        ("postgresql://a:1,b:2/fleet", {"name": "fleet", "host": "a,b", "port": "1,2"}),
        (
            "postgresql://db/fleet?sslmode=verify-full&sslrootcert=%2Fca+1.pem&connect_timeout=3",
            {
                "name": "fleet",
                "host": "db",
                "options": {"sslmode": "verify-full", "sslrootcert": "/ca+1.pem", "connect_timeout": "3"},
            },
        ),
        ("postgresql:///?dbname=fleet&user=me&password=word", {"name": "fleet", "user": "me", "password": "word"}),
    ],
)
def test_a_database_url_is_read_as_libpq_reads_it(url: str, expected: dict[str, Any]) -> None:
    assert parts(url) == expected


@pytest.mark.contract
@given(
    user=st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=20),
    password=st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=30),
    name=st.text(st.characters(codec="utf-8", exclude_characters="\0/"), min_size=1, max_size=20),
)
def test_any_encoded_credentials_come_back_as_libpq_says(user: str, password: str, name: str) -> None:
    encoded = [quote(part, safe="") for part in (user, password, name)]
    url = "postgresql://{}:{}@db.example:5433/{}?sslmode=require".format(*encoded)
    libpq = psycopg2.extensions.parse_dsn(url)
    assert parts(url) == {
        "name": libpq["dbname"],
        "user": libpq["user"],
        "password": libpq["password"],
        "host": libpq["host"],
        "port": libpq["port"],
        "options": {"sslmode": libpq["sslmode"]},
    }


@pytest.mark.parametrize(
    ("url", "words"),
    [
        (f"mysql://user:{SECRET}@db/fleet", "must begin with postgresql://"),
        (f"user:{SECRET}@db/fleet", "must begin with postgresql://"),
        (f"postgresql://user:{SECRET}@db", "names no database"),
        (f"postgresql://user:{SECRET}#1@db/fleet", "%23"),
        (f"postgresql://user:{SECRET}/1@db/fleet", "%2F|port"),
        (f"postgresql://user:{SECRET}@db:port/fleet", "port"),
        (f"postgresql://user:{SECRET}@db:70000/fleet", "port"),
        (f"postgresql://user:{SECRET}@[::1/fleet", "IPv6"),
    ],
)
def test_a_wrong_database_url_is_explained_without_being_quoted(url: str, words: str) -> None:
    with pytest.raises(StackError, match=words) as caught:
        database_from_url(url)
    assert SECRET not in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("url", [f"http://:{SECRET}@cache", f":{SECRET}@cache:6379", f"redis://:{SECRET}@/0"])
def test_a_wrong_redis_url_is_explained_without_being_quoted(url: str) -> None:
    with pytest.raises(StackError, match="REDIS_URL") as caught:
        redis_from_url(url)
    assert SECRET not in str(caught.value)


def test_a_redis_url_is_handed_on_as_it_is() -> None:
    for url in ("redis://cache:6379/3", "rediss://user:p%40ss@cache/0?ssl_cert_reqs=required"):
        assert redis_from_url(url) == url


@pytest.mark.parametrize(
    ("environment", "missing"),
    [
        ({"DATABASE_URL": "postgresql://db/fleet"}, "REDIS_URL is not"),
        ({"REDIS_URL": "redis://cache", "DATABASE_URL": ""}, "DATABASE_URL is not"),
    ],
)
def test_one_url_alone_names_the_other(environment: dict[str, str], missing: str) -> None:
    with pytest.raises(StackError, match=missing):
        external(environment)


def test_both_urls_win_over_any_stack(tmp_path: Path) -> None:
    environment = {"DATABASE_URL": "postgresql://me:word@db/fleet", "REDIS_URL": "redis://:word@cache/0"}
    found = addresses(environment=environment, root=tmp_path)
    assert (found.source, found.database["HOST"], found.redis_url) == ("environment", "db", "redis://:word@cache/0")
    assert "word" not in repr(found)


def test_without_servers_there_are_addresses_where_nobody_answers(tmp_path: Path) -> None:
    found = addresses(environment={}, root=tmp_path)
    assert found.source == "nowhere"
    assert found.database["HOST"].startswith(str(tmp_path))
    with pytest.raises(psycopg2.OperationalError, match="Is the server running locally"):
        psycopg2.connect(host=found.database["HOST"], user="flotilla", dbname="flotilla")
    assert list(tmp_path.iterdir()) == []


def test_secrets_are_made_once_and_for_the_owner_only(tmp_path: Path) -> None:
    root = tmp_path / "local"
    first = dict(local_secrets(root))
    path = root / "secrets.json"
    assert json.loads(path.read_text()) == first
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert len(set(first.values())) == len(first) == 7
    assert Fernet(first["FLOTILLA_FIELD_KEYS"]).decrypt(Fernet(first["FLOTILLA_FIELD_KEYS"]).encrypt(b"x")) == b"x"
    path.write_text(json.dumps({"FLOTILLA_SECRET_KEY": "kept"}))
    local_secrets.__globals__["_secrets"].cache_clear()
    second = dict(local_secrets(root))
    assert second["FLOTILLA_SECRET_KEY"] == "kept"
    assert second.keys() == first.keys()
    path.write_text("not json " + SECRET)
    local_secrets.__globals__["_secrets"].cache_clear()
    with pytest.raises(StackError, match="remove it") as caught:
        local_secrets(root)
    assert SECRET not in str(caught.value)
