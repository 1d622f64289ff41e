"""Statements that the server plans once per connection instead of once per call.

Planning the corridor's statements takes twice as long as running them, so each is sent as ``PREPARE`` the first time a
connection meets it and as ``EXECUTE`` from then on. Behind a pooler that changes the server connection from one
transaction to the next (``FLOTILLA_DIRECT_DATABASE_URL``), or with ``FLOTILLA_PREPARE=0``, it is the plain text.
"""

from __future__ import annotations

import re
from typing import Final

_PLACEHOLDER = re.compile(r"%\((\w+)\)s")

TYPES: Final = {
    "base_url": "text",
    "code": "text",
    "cap_numbers": "int[]",
    "cap_seconds": "float8[]",
    "dedups": "text[]",
    "device": "bigint",
    "devices": "bigint[]",
    "digest": "text",
    "error_code": "text",
    "error_text": "text",
    "events": "jsonb",
    "external_id": "text",
    "external_ids": "text[]",
    "free": "boolean",
    "gap_seconds": "float8",
    "gateway": "text",
    "gaps_seconds": "float8[]",
    "lease_seconds": "float8",
    "leases_seconds": "float8[]",
    "limit": "bigint",
    "media": "bigint",
    "message": "bigint",
    "messages": "bigint[]",
    "minutes": "int[]",
    "most": "int",
    "moves": "jsonb",
    "outcome": "text",
    "pool": "bigint",
    "reason": "text",
    "reference": "text",
    "references": "text[]",
    "release_no": "int",
    "release_nos": "int[]",
    "report": "jsonb",
    "scope": "text",
    "seconds": "float8",
    "state": "text",
    "strike": "int",
    "streams": "bigint[]",
    "subject": "text",
    "targets": "bigint[]",
    "text": "text",
    "texts": "text[]",
    "wait_seconds": "float8",
    "wants": "int[]",
    "warm_up_cap": "int",
    "warm_up_caps": "int[]",
}
"""SQL types of the parameters, by name: a name means the same in every statement."""


class Statement:
    """One SQL statement with named parameters, as ``%(name)s``, of the types in :data:`TYPES`."""

    __slots__ = ("execute", "name", "prepare", "text")

    def __init__(self, name: str, text: str) -> None:
        # As a subquery the clock is read once per statement instead of once per row.
        text = text.replace("flotilla_now()", "(SELECT flotilla_now())")
        names = list(dict.fromkeys(_PLACEHOLDER.findall(text)))
        types = f" ({', '.join(TYPES[parameter] for parameter in names)})" if names else ""
        values = f" ({', '.join(f'%({parameter})s' for parameter in names)})" if names else ""
        numbered = _PLACEHOLDER.sub(lambda found: f"${names.index(found[1]) + 1}", text)
        self.name = f"flotilla_{name}"
        self.text = text
        self.prepare = f"PREPARE {self.name}{types} AS {numbered}"
        self.execute = f"EXECUTE {self.name}{values}"

    def __repr__(self) -> str:
        return f"Statement({self.name})"
