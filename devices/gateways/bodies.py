"""Webhook bodies of gateways that sign nothing and document little: read whatever they mean, believe no value.

Nothing here raises for a strange value: what cannot be used is empty, or the given default, and the driver decides
whether the request still makes sense without it.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qsl

from devices.gateways.news import Hook, Malformed
from devices.gateways.webhooks import EARLIEST, LATEST, MAX_ID, json_object, storable

MAX_FIELDS = 200
MILLISECONDS = 100_000_000_000
"""From here on a number is a time in milliseconds: as seconds it would be the year 5138."""
_PHONE = re.compile(r"\+?([1-9][0-9]{5,14})(?:@c\.us|@s\.whatsapp\.net)?")


def fields_of(hook: Hook) -> dict[str, Any]:
    """The body as a mapping, be it JSON or a form: the first byte tells, since the header often does not.

    Raises Malformed.
    """
    if hook.body.lstrip()[:1] in {b"{", b"["}:
        return json_object(hook.body)
    try:
        pairs = parse_qsl(
            hook.body.decode("utf-8", "replace"), keep_blank_values=True, strict_parsing=True, max_num_fields=MAX_FIELDS
        )
    except ValueError:
        raise Malformed("malformed", "The body is neither a JSON object nor a form.") from None
    return dict(pairs)


def said(values: Mapping[str, Any], name: str, *, most: int = MAX_ID) -> str:
    """What stands there, as a storable text of at most ``most`` characters; empty for anything but text and numbers."""
    value = values.get(name)
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return ""
    return storable(str(value)).strip()[:most]


def flag(values: Mapping[str, Any], name: str) -> bool:
    """Whether it says yes: true, or the words and digits that forms have for it."""
    value = values.get(name)
    return value is True or str(value).strip().lower() in {"true", "1", "yes"}


def phone_of(values: Mapping[str, Any], name: str) -> str:
    """A person's number in E.164 with the plus; empty for a group, a hidden number, or no number at all."""
    found = _PHONE.fullmatch(said(values, name))
    return f"+{found[1]}" if found else ""


def moment_or(values: Mapping[str, Any], name: str, default: datetime) -> datetime:
    """A moment in seconds or milliseconds since 1970, or in ISO 8601 with its zone; else ``default``."""
    value = said(values, name)
    try:
        number = float(value)
    except ValueError:
        return _iso(value) or default
    if not 0 <= number < MILLISECONDS * 1000:  # also turns away what is no number
        return default
    at = datetime.fromtimestamp(number / 1000 if number >= MILLISECONDS else number, tz=UTC)
    return at if EARLIEST <= at < LATEST else default


def _iso(value: str) -> datetime | None:
    """None without a zone as well: whose clock it is, nobody knows."""
    try:
        at = datetime.fromisoformat(value)
        return at.astimezone(UTC) if at.tzinfo is not None and EARLIEST <= at < LATEST else None
    except (ValueError, OverflowError):
        return None


def event_id(*parts: object) -> str:
    """A name for a piece of news whose gateway gives it none: the same news has the same name.

    The first part is the device, so that nobody can take the name of another device's news.
    """
    joined = "\x1f".join(str(part) for part in parts)
    return hashlib.sha256(joined.encode("utf-8", "replace")).hexdigest()[:40]
