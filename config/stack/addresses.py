"""Where PostgreSQL and Valkey are: in the environment, in the running local stack, or nowhere yet."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal
from urllib.parse import parse_qsl, unquote

from config.stack import state
from config.stack.errors import StackError
from config.stack.keys import local_secrets
from config.stack.places import local_root
from config.stack.sentinels import watched_from_url

__all__ = ["Addresses", "addresses", "database_from_url", "external", "local_secrets", "redis_from_url"]

_NOT_OPTIONS = {"host", "port", "user", "password", "dbname"}


@dataclass(frozen=True)
class Addresses:
    """``database`` is an entry for Django's DATABASES; ``redis_url`` is for Celery, redis-py and the cache."""

    database: Mapping[str, Any] = field(repr=False)
    redis_url: str = field(repr=False)
    source: Literal["environment", "stack", "nowhere"]


def external(environment: Mapping[str, str] | None = None) -> tuple[str, str] | None:
    """``(DATABASE_URL, REDIS_URL)`` when both are set, None when neither is. One alone is a mistake and raises."""
    environment = os.environ if environment is None else environment
    database_url, redis_url = environment.get("DATABASE_URL", ""), environment.get("REDIS_URL", "")
    if database_url and redis_url:
        return database_url, redis_url
    if database_url or redis_url:
        given, other = ("DATABASE_URL", "REDIS_URL") if database_url else ("REDIS_URL", "DATABASE_URL")
        raise StackError(
            f"{given} is set and {other} is not: set both to use your servers, or neither for the local stack."
        )
    return None


def addresses(*, environment: Mapping[str, str] | None = None, root: Path | None = None) -> Addresses:
    """The servers to use. Never starts anything and never connects, so settings can always be imported.

    Without servers it names the socket where the local PostgreSQL would be and a port where nothing listens: a command
    that needs no server works, and one that does fails on its first connection.
    """
    given = external(environment)
    if given:
        return Addresses(database=database_from_url(given[0]), redis_url=redis_from_url(given[1]), source="environment")
    root = root or local_root()
    found = state.read(root)
    if found and found.is_live() and found.database_url:
        return Addresses(
            database=database_from_url(found.database_url), redis_url=redis_from_url(found.redis_url), source="stack"
        )
    nowhere = {"ENGINE": "django.db.backends.postgresql", "NAME": "flotilla", "USER": "flotilla"}
    return Addresses(
        database={**nowhere, "HOST": str(root / "postgres" / "run")},
        redis_url="redis://127.0.0.1:1/0",
        source="nowhere",
    )


def database_from_url(url: str) -> dict[str, Any]:
    """A libpq connection URL as an entry for Django's DATABASES (PostgreSQL manual, "Connection URIs").

    ``postgresql://user:password@host:port/name?sslmode=require``. A UNIX socket is a percent-encoded folder as the
    host, or ``?host=/folder``; several hosts are separated by commas. Reserved characters in any part are
    percent-encoded. Other parameters become OPTIONS. Errors never quote the URL.
    """
    scheme, separator, rest = url.partition("://")
    if not separator or scheme not in {"postgres", "postgresql"}:
        raise StackError("DATABASE_URL must begin with postgresql://.")
    if "#" in rest:
        raise StackError("DATABASE_URL holds a bare “#”; write it as %23.")
    rest, _, query = rest.partition("?")
    netloc, _, name = rest.partition("/")
    credentials, _, hosts = netloc.rpartition("@")
    user, _, password = credentials.partition(":")
    parameters = dict(parse_qsl(query.replace("+", "%2B"), keep_blank_values=True))
    host, port = _hosts(hosts)
    name = unquote(name) or parameters.get("dbname", "")
    if not name or "/" in name:
        raise StackError("DATABASE_URL names no database, or holds a bare “/” before it; write that as %2F.")
    return {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": name,
        "USER": unquote(user) or parameters.get("user", ""),
        "PASSWORD": unquote(password) or parameters.get("password", ""),
        "HOST": parameters.get("host", host),
        "PORT": parameters.get("port", port),
        "OPTIONS": {key: value for key, value in parameters.items() if key not in _NOT_OPTIONS},
    }


def _hosts(text: str) -> tuple[str, str]:
    """``a:1,b:2`` as libpq's parallel lists ``("a,b", "1,2")``; ports stay empty when none is given."""
    hosts, ports = [], []
    for part in text.split(","):
        if part.startswith("["):
            host, bracket, port = part[1:].partition("]")
            if not bracket or (port and not port.startswith(":")):
                raise StackError("DATABASE_URL holds a malformed IPv6 address.")
            port = port.removeprefix(":")
        else:
            host, _, port = part.partition(":")
        if port and not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
            raise StackError(
                "DATABASE_URL holds a port that is not a number from 1 to 65535; is a “:” or “@” unescaped?"
            )
        hosts.append(unquote(host))
        ports.append(port)
    return ",".join(hosts), ",".join(ports) if any(ports) else ""


def redis_from_url(url: str) -> str:
    """``url`` when Celery, redis-py and the cache can be told of it; raises otherwise, without quoting it."""
    if watched_from_url(url):
        return url
    scheme, separator, rest = url.partition("://")
    if not separator or scheme not in {"redis", "rediss"}:
        raise StackError("REDIS_URL must begin with redis://, rediss:// or sentinel://.")
    host = rest.partition("?")[0].partition("/")[0].rpartition("@")[2]
    if not host:
        raise StackError("REDIS_URL names no host.")
    return url
