"""What several dialects read and answer alike."""

from __future__ import annotations

import base64
import re

from aiohttp import web

PICTURE = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNgAAAAAgABSK+kcQAAAABJRU5ErkJggg=="
)
"""A PNG of one black dot: a code to scan that no phone would read."""
_DIGITS = re.compile(r"[1-9][0-9]{5,14}")


def header(request: web.Request, name: str) -> str:
    """A header's text, byte for byte: aiohttp reads headers as UTF-8, clients may write them as Latin-1."""
    return request.headers.get(name, "").encode("utf-8", "surrogateescape").decode("latin-1")


def phone_of(digits: str) -> str:
    """``+`` and the digits; empty if they are no phone number."""
    return f"+{digits}" if _DIGITS.fullmatch(digits) else ""
