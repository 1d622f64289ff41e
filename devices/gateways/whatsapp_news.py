"""Values in the webhooks of WhatsApp gateways: moments however written, names for news that has none, texts."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime

from devices.gateways.webhooks import EARLIEST, LATEST, MAX_REPLY, storable

_MILLISECONDS = 100_000_000_000


def digest(*parts: object) -> str:
    """A name for a piece of news that the gateway gave none: the same news has the same name whenever it is told."""
    return hashlib.sha256("\0".join(str(part) for part in parts).encode("utf-8", "replace")).hexdigest()[:40]


def moment(value: object, *, default: datetime) -> datetime:
    """A moment as seconds or milliseconds since 1970 (a number or its digits), or RFC 3339; else ``default``."""
    if isinstance(value, str):
        if value.isdecimal() and len(value) < 16:
            return moment(int(value), default=default)
        try:
            at = datetime.fromisoformat(value)
        except ValueError:
            return default
        return at if at.tzinfo is not None and EARLIEST <= at < LATEST else default
    if isinstance(value, bool) or not isinstance(value, int | float):
        return default
    seconds = value / 1000 if value >= _MILLISECONDS else value
    if not EARLIEST.timestamp() <= seconds < LATEST.timestamp():
        return default
    return datetime.fromtimestamp(seconds, tz=UTC)


def reply_text(text: object, *, media: str = "") -> str:
    """What a person wrote, fit to be stored; without words, what kind of thing it was, in brackets."""
    written = storable(text)[:MAX_REPLY] if isinstance(text, str) else ""
    return written if written.strip() else f"[{media or 'message'}]"
