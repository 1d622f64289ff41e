"""Bodies that are more than texts in JSON: forms with files, files in base64, phones as WhatsApp has them."""

from __future__ import annotations

import re
from base64 import b64decode
from binascii import Error as NotBase64
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

_DIGITS = re.compile(r"\+?([1-9][0-9]{4,14})(?:@s\.whatsapp\.net|@c\.us)?")
_BOUNDARY = re.compile(r'boundary="?([^";]+)"?')
_NAME, _FILENAME = re.compile(r'\bname="([^"]*)"'), re.compile(r'\bfilename="([^"]*)"')
PNG = b64decode("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAQAAAC1HAwCAAAAC0lEQVR42mNk+A8AAQUBAScY42YAAAAASUVORK5CYII=")
"""A picture of one pixel: what a pretended phone scans."""


@dataclass(frozen=True, slots=True)
class Part:
    """One field of a form; ``filename`` is None where it is no file."""

    data: bytes = field(repr=False)
    filename: str | None = None

    @property
    def text(self) -> str:
        """The field as text."""
        return self.data.decode("utf-8", "replace")


def multipart(request: web.Request, body: bytes) -> dict[str, Part]:
    """The fields of a multipart form (RFC 7578) by name; empty if the body is none."""
    found = _BOUNDARY.search(request.headers.get("Content-Type", ""))
    if found is None:
        return {}
    fields = {}
    for piece in body.split(b"--" + found[1].encode())[1:-1]:
        head, _, rest = piece.partition(b"\r\n\r\n")
        words = head.decode("utf-8", "replace")
        if (name := _NAME.search(words)) is not None:
            filename = _FILENAME.search(words)
            fields[name[1]] = Part(rest.removesuffix(b"\r\n"), filename[1] if filename else None)
    return fields


def in_base64(value: Any) -> bytes | None:
    """The bytes of a text in base64, be it a ``data:`` URI or not; None if it is neither."""
    if not isinstance(value, str) or not value:
        return None
    encoded = value.partition(",")[2] if value.startswith("data:") else value
    try:
        return b64decode(encoded, validate=True)
    except (NotBase64, ValueError):
        return None


def phone_of(value: Any) -> str:
    """``+`` and digits, from digits or a person's WhatsApp address; empty if it is neither."""
    found = _DIGITS.fullmatch(value) if isinstance(value, str) else None
    return f"+{found[1]}" if found else ""


def jid(phone: str, server: str = "s.whatsapp.net") -> str:
    """A phone as WhatsApp's address."""
    return f"{phone.removeprefix('+')}@{server}"
