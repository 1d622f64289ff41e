"""Who acts, told to the database together with what they write, so that its triggers can write it down.

Each writing statement carries a transaction-local setting with the user, their address and what they asked for. It
rides in front of the statement itself: no further round trip, and nothing that a pooled connection would keep for the
next transaction.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from django.db import connection
from psycopg2.extensions import adapt

if TYPE_CHECKING:
    from django.contrib.auth.models import User

_WRITES = re.compile(r"\s*(INSERT|UPDATE|DELETE|WITH)\b", re.IGNORECASE)


@contextmanager
def acting(*, user: User, action: str) -> Iterator[None]:
    """What is written inside, outside any request, was done by ``user``: for commands that say who answers for them."""
    with connection.execute_wrapper(Says(lambda: {"user": user.pk, "address": None, "action": action[:120]})):
        yield


@contextmanager
def on_the_machine(*, action: str) -> Iterator[None]:
    """What is written inside was done by somebody with a shell: no user of ours, named by ``action``."""
    with connection.execute_wrapper(Says(lambda: {"user": None, "address": None, "action": action[:120]})):
        yield


class Says:
    """Puts who acts in front of writing statements. The API finds its user late, so each statement asks anew."""

    def __init__(self, who: Callable[[], dict[str, Any]]) -> None:
        self.who = who

    def __call__(self, execute: Any, sql: Any, params: Any, many: bool, context: dict[str, Any]) -> Any:
        named = getattr(context["cursor"].cursor, "name", None)  # a server-side cursor takes one statement
        if isinstance(sql, str) and named is None and _WRITES.match(sql):
            literal = adapt(json.dumps(self.who()))
            literal.encoding = "utf8"
            setting = literal.getquoted().decode()
            if params is not None:
                setting = setting.replace("%", "%%")
            sql = f"SELECT set_config('flotilla.actor', {setting}, true); {sql}"
        return execute(sql, params, many, context)
