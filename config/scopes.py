"""What an API token may open: areas of the API, each to read or to write. Pure.

A token never opens more than its user's role does; scopes only take away. The area is read from the address, so that
there is one place to look at, and an address that the table does not know opens to tokens with full access only.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Final

FULL: Final = "all"
"""The scope of a token that may do whatever its user may; what a log-in by password gives."""
READ, WRITE = "read", "write"
MEANINGS: Final[Mapping[str, str]] = {
    FULL: "everything its user may do, tokens and users included",
    "leads:read": "look at leads, segments, imports and consent",
    "leads:write": "add, change, import, opt out and erase leads",
    "messages:read": "look at messages, batches, replies, media and what is told to subscribers",
    "messages:write": "send single messages; pause, cancel, retry and settle; subscribe to events",
    "campaigns:read": "look at campaigns, runs, sequences and enrolments",
    "campaigns:write": "change, launch, pause and cancel them; enrol",
    "devices:read": "look at devices and pools",
    "devices:write": "change, pair, share and pause devices; see the addresses of their webhooks",
    "operations:read": "health, figures and the audit trail",
    "operations:write": "stop everything, and resume; clear and expire queues",
}
"""Every scope there is. Whoever may write in an area may read there."""
SCOPES: Final = tuple(MEANINGS)
AREAS: Final[Mapping[str, str]] = {
    "devices": "devices",
    "pools": "devices",
    "leads": "leads",
    "segments": "leads",
    "consent": "leads",
    "messages": "messages",
    "batches": "messages",
    "replies": "messages",
    "media": "messages",
    "failed": "messages",
    "subscribers": "messages",
    "deliveries": "messages",
    "campaigns": "campaigns",
    "runs": "campaigns",
    "sequences": "campaigns",
    "enrolments": "campaigns",
    "health": "operations",
    "stats": "operations",
    "halt": "operations",
    "audit": "operations",
    "workers": "operations",
    "queues": "operations",
    "tokens": FULL,
    "users": FULL,
}
"""The area of an address by its first part below ``/api/v1/``; ``all``: full access only."""
PREFIX: Final = "/api/v1/"
OPEN: Final = frozenset({"auth/logout", "schema"})
"""Below the prefix: what every token opens."""
_SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_SECRET: Final = frozenset({"webhook", "pairing"})
"""Last parts of addresses where reading is as good as writing: what stands there lets others in."""


def needed(*, method: str, path: str) -> str | None:
    """The scope that this request takes, ``all`` where no other opens it; None where any token will do."""
    if path == "/metrics":
        return f"operations:{READ}"
    if not path.startswith(PREFIX):
        return FULL
    parts = path.removeprefix(PREFIX).strip("/").split("/")
    if "/".join(parts) in OPEN:
        return None
    area = AREAS.get(parts[0], FULL)
    if area == FULL:
        return FULL
    return f"{area}:{READ if method in _SAFE and parts[-1] not in _SECRET else WRITE}"


def allows(held: Collection[str], scope: str | None) -> bool:
    """Whether these scopes open what takes ``scope``."""
    if scope is None or FULL in held or scope in held:
        return True
    area, _, verb = scope.partition(":")
    return verb == READ and f"{area}:{WRITE}" in held
