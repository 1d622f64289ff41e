"""The Lua scripts, and how to run one when the server has forgotten it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import redis
from redis.exceptions import NoScriptError

from messaging.transport.names import BELL, BELL_HEADER, READY_SUFFIX, TAKEN_HEADER

_FOLDER: Final = Path(__file__).parent / "lua"
_CONSTANTS: Final = (
    f"local BELL, READY = '{BELL.decode()}', '{READY_SUFFIX}'\n"
    f"local HEADER, TAKEN = '{BELL_HEADER}', '{TAKEN_HEADER}'\n"
)


@dataclass(frozen=True, slots=True)
class Script:
    """A Lua script: its source and the digest under which the server knows it."""

    name: str
    source: str
    sha: str

    def run(self, client: redis.Redis, *, keys: Sequence[Any], args: Sequence[Any] = ()) -> Any:
        """Run the script, sending its source only when the server does not know it (restart, SCRIPT FLUSH).

        The refusal comes before anything has run, so the second call never does the work twice.
        """
        try:
            return client.evalsha(self.sha, len(keys), *keys, *args)
        except NoScriptError:
            return client.eval(self.source, len(keys), *keys, *args)

    def run_on(self, client: Any, *, keys: Sequence[Any], args: Sequence[Any] = ()) -> Any:
        """Like :meth:`run`, on the connection that ``client`` holds for itself and without redis-py's bookkeeping.

        For the connection that waits in BRPOP: a broken one must surface as an error, not be replaced unseen.
        """
        connection = client.connection
        connection.send_command("EVALSHA", self.sha, len(keys), *keys, *args)
        try:
            return client.parse_response(connection, "EVALSHA")
        except NoScriptError:
            connection.send_command("EVAL", self.source, len(keys), *keys, *args)
            return client.parse_response(connection, "EVAL")


def _load(name: str) -> Script:
    source = _CONSTANTS + (_FOLDER / "tokens.lua").read_text() + (_FOLDER / f"{name}.lua").read_text()
    # Redis names scripts by SHA-1; nothing secret depends on it.
    return Script(name=name, source=source, sha=hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest())


PUBLISH: Final = _load("publish")
FETCH: Final = _load("fetch")
GET: Final = _load("get")
GIVE_BACK: Final = _load("give_back")
REGISTER: Final = _load("register")
FORGET: Final = _load("forget")
OVERDUE: Final = _load("overdue")
PURGE: Final = _load("purge")
RING: Final = _load("ring")
SET_ASIDE: Final = _load("set_aside")
REPAIR_LISTS: Final = _load("repair_lists")
REPAIR_TOKENS: Final = _load("repair_tokens")
