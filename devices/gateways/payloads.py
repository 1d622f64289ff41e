"""Attachments on their way out: what a gateway cannot take is said before it is called, and nothing is copied twice.

A file is read once. In a form its bytes go out as they are; in JSON their base64 is put between the text before and the
text after, so the only copy is the encoding itself.
"""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Mapping
from typing import Any
from uuid import uuid4

from urllib3.fields import RequestField
from urllib3.filepost import encode_multipart_formdata

from devices.gateways.base import Carries, ContentType, Media, Outgoing, Rejected, Temporary
from devices.gateways.http import Content

SLOT = uuid4().hex
"""Stands for the base64 of a file in a JSON body that is being made. It never leaves the process."""

CHUNK_BYTES = 3 * 2**18
"""A multiple of three, so that the parts' base64 together is the whole's."""

MEGABYTE = 1_000_000


def refusal(outgoing: Outgoing, *, carries: Mapping[ContentType, Carries], label: str) -> Rejected | None:
    """Why this gateway can never take this message, if so. Sends nothing."""
    limits = carries.get(outgoing.type)
    if limits is None:
        return Rejected("not_supported", f"{label} does not carry messages of type {outgoing.type}.")
    if limits.max_text is not None and len(outgoing.text) > limits.max_text:
        if limits.max_text == 0:
            return Rejected("no_caption", f"{label} sends {outgoing.type} without a text: leave the text empty.")
        return Rejected("text_too_long", f"{label} takes at most {limits.max_text} characters of text.")
    if limits.media == "none":
        return None
    media = outgoing.media
    if media is None:
        return Rejected("no_media", f"The message is of type {outgoing.type} and has no file.")
    if limits.max_bytes is not None and media.size_bytes > limits.max_bytes:
        most = limits.max_bytes / MEGABYTE
        return Rejected("media_too_large", f"{label} takes at most {most:g} MB as {outgoing.type}.")
    if limits.mime_types is not None and media.mime_type not in limits.mime_types:
        known = ", ".join(sorted(limits.mime_types))
        return Rejected("media_type", f"{label} does not take {media.mime_type} as {outgoing.type}; it takes {known}.")
    return None


def unreadable(problem: OSError) -> Rejected | Temporary:
    """The outcome where a file cannot be read: gone for good, or not to be had now."""
    if isinstance(problem, FileNotFoundError):
        return Rejected("media_gone", "The file of this message is gone: upload it again.")
    return Temporary("media_unreadable", "Not sent: the file of this message could not be read.")


def data_uri(mime_type: str) -> str:
    """``data:<type>;base64,`` and the slot."""
    return f"data:{mime_type};base64,{SLOT}"


def json_around(body: Mapping[str, Any], *, file: bytes) -> Content:
    """``body`` as JSON, with the base64 of ``file`` where it says :data:`SLOT` (once)."""
    head, _, tail = json.dumps(body, separators=(",", ":")).partition(SLOT)
    with memoryview(file) as view:  # the encoder takes twice the size of what it is given, so it is given a little
        encoded = [b64encode(view[start : start + CHUNK_BYTES]) for start in range(0, len(view), CHUNK_BYTES)]
    return Content("application/json", (head.encode(), *encoded, tail.encode()))


def multipart(fields: Mapping[str, str], *, name: str, media: Media, file: bytes) -> Content:
    """A form with ``file`` in its field ``name`` (RFC 7578)."""
    parts = [RequestField.from_tuples(each, value) for each, value in fields.items()]
    parts.append(RequestField.from_tuples(name, (media.filename, SLOT.encode(), media.mime_type)))
    whole, media_type = encode_multipart_formdata(parts)
    head, _, tail = whole.partition(SLOT.encode())
    return Content(media_type, (head, file, tail))
