"""The address of a Valkey or Redis that Sentinels watch: which they are, and how they call it. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import parse_qsl, quote, unquote

from config.stack.errors import StackError

SCHEME: Final = "sentinel"
PORT: Final = 26379
_KNOWN: Final = {"master", "sentinel_user", "sentinel_password"}


@dataclass(frozen=True, slots=True)
class Watched:
    """One server by the name that its Sentinels know it by; it is asked for anew at each connection."""

    sentinels: tuple[tuple[str, int], ...]
    master: str
    db: int = 0
    user: str = ""
    password: str = field(default="", repr=False)
    sentinel_user: str = ""
    sentinel_password: str = field(default="", repr=False)

    def broker_url(self) -> str:
        """For Celery and Flower, which parse one address: the first Sentinel stands for all. A secret."""
        host, port = self.sentinels[0]
        login = f"{quote(self.user, safe='')}:{quote(self.password, safe='')}@" if self.user or self.password else ""
        return f"{SCHEME}://{login}{f'[{host}]' if ':' in host else host}:{port}/{self.db}"

    def transport_options(self) -> dict[str, Any]:
        """What the address has no room for; the names are kombu's and Flower's, but ``sentinels``, which is ours."""
        return {
            "master_name": self.master,
            "sentinels": self.sentinels,
            "sentinel_kwargs": self.sentinel_login(),
        }

    def login(self) -> dict[str, str]:
        """Of the watched server."""
        return {name: value for name, value in (("username", self.user), ("password", self.password)) if value}

    def sentinel_login(self) -> dict[str, str]:
        """Of the Sentinels."""
        words = (("username", self.sentinel_user), ("password", self.sentinel_password))
        return {name: value for name, value in words if value}


def watched_from_url(url: str) -> Watched | None:
    """``sentinel://[user:password@]host[:port],host[:port]…/db?master=name``; None for any other scheme.

    Further parameters are ``sentinel_user`` and ``sentinel_password``, for Sentinels that ask for them. Reserved
    characters are percent-encoded. Raises StackError, without the address.
    """
    scheme, _, rest = url.partition("://")
    if scheme != SCHEME:
        return None
    rest, _, query = rest.partition("?")
    netloc, _, db = rest.partition("/")
    credentials, _, hosts = netloc.rpartition("@")
    user, _, password = credentials.partition(":")
    given = dict(parse_qsl(query.replace("+", "%2B"), keep_blank_values=True))
    if unknown := sorted(set(given) - _KNOWN):
        raise StackError(f"REDIS_URL: a sentinel:// address takes {', '.join(sorted(_KNOWN))}, not {unknown[0]}.")
    if not given.get("master"):
        raise StackError("REDIS_URL: say which server the Sentinels watch, as sentinel://…/0?master=name.")
    if db and not (db.isascii() and db.isdigit()):
        raise StackError("REDIS_URL: what follows the hosts must be the number of a database, such as /0.")
    return Watched(
        sentinels=tuple(_host(part) for part in hosts.split(",")),
        master=given["master"],
        db=int(db or 0),
        user=unquote(user),
        password=unquote(password),
        sentinel_user=given.get("sentinel_user", ""),
        sentinel_password=given.get("sentinel_password", ""),
    )


def _host(text: str) -> tuple[str, int]:
    host, port = text, ""
    if text.startswith("["):
        host, _, port = text[1:].partition("]")
        port = port.removeprefix(":")
    elif ":" in text:
        host, _, port = text.partition(":")
    if not host or ";" in host or (port and not (port.isascii() and port.isdigit() and 0 < int(port) < 65536)):
        raise StackError("REDIS_URL: the Sentinels must be written as host:port, separated by commas.")
    return unquote(host), int(port or PORT)
