"""What drivers need to read webhooks: signatures compared in constant time, and values from strangers made storable."""

from __future__ import annotations

import hmac
import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from devices.gateways.news import BadSignature, Hook, Malformed

TOLERANCE = timedelta(minutes=5)
"""How old a signed request may be, or how far ahead of our clock: what somebody recorded is worthless after that."""

MAX_ID = 120
MAX_TEXT = 300
MAX_REPLY = 20_000
EARLIEST, LATEST = datetime(2000, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC)


def require_hmac(
    hook: Hook, *, header: str, prefix: str = "sha256=", algorithm: Literal["sha256", "sha512"] = "sha256"
) -> None:
    """Raise BadSignature unless ``header`` is ``prefix`` and the hex HMAC of the raw body by one of the secrets.

    Every secret is tried, whichever fits, so that the time tells nothing.
    """
    given = hook.headers.get(header, "").encode("utf-8", "replace")
    fits = [
        hmac.compare_digest(given, f"{prefix}{hmac.new(secret.encode(), hook.body, algorithm).hexdigest()}".encode())
        for secret in hook.secrets
    ]
    if not any(fits):
        raise BadSignature("bad_signature", f"The signature in {header} does not fit the body.")


def require_fresh(at: datetime, *, now: datetime) -> None:
    """Raise BadSignature for a request that was signed more than :data:`TOLERANCE` ago or ahead."""
    if abs(now - at) > TOLERANCE:
        raise BadSignature("stale", "The request was signed at another time: check the clocks.")


def json_object(body: bytes) -> dict[str, Any]:
    """The body as a JSON object. Raises Malformed."""
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        raise Malformed("malformed", "The body is not JSON.") from None
    if not isinstance(value, dict):
        raise Malformed("malformed", "The body is not a JSON object.")
    return value


def text_of(values: Mapping[str, Any], name: str, *, most: int = MAX_ID, required: bool = True) -> str:
    """A text of 1 to ``most`` characters, fit to be stored; empty if missing and not required. Raises Malformed."""
    value = values.get(name)
    if value is None and not required:
        return ""
    if not isinstance(value, str) or not (cleaned := storable(value)) or len(cleaned) > most:
        raise Malformed("malformed", f"{name} must be a text of 1 to {most} characters.")
    return cleaned


def moment_of(values: Mapping[str, Any], name: str) -> datetime:
    """A moment given in seconds since 1970. Raises Malformed."""
    value = values.get(name)
    if (
        isinstance(value, bool)
        or not isinstance(value, int | float)
        or not EARLIEST.timestamp() <= value < LATEST.timestamp()
    ):
        raise Malformed("malformed", f"{name} must be a time in seconds since 1970.")
    return datetime.fromtimestamp(value, tz=UTC)


def storable(text: str) -> str:
    """Without what PostgreSQL cannot store: NUL, and halves of surrogate pairs."""
    return text.replace("\0", "").encode("utf-8", "replace").decode()
