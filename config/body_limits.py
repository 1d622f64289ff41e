"""How much anybody may send: decided by the announced length, before a byte of the body is read.

What announces no length has none here: Django reads as many bytes as were announced. The part of a body that is not
a file of a form is limited once more where it is read (``DATA_UPLOAD_MAX_MEMORY_SIZE``), to the smaller limit.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from django.conf import settings
from django.http import HttpRequest, HttpResponse

from config.api.problems import Problem

_FILES: Final = (
    "/api/v1/leads/imports",
    "/api/v1/media",
    "/admin/leads/leadimport/",
    "/admin/messaging/mediafile/",
)
"""Addresses, by their beginnings, that files are sent to."""
_AROUND: Final = 1_048_576
"""For what comes around a file: other fields, boundaries."""


class BodyLimitMiddleware:
    """Goes before everything that might read a body."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        given = request.META.get("CONTENT_LENGTH") or "0"
        if not (given.isascii() and given.isdigit()):
            return Problem("bad_request", "Content-Length must be a whole number.").response()
        most, name = limit_of(request.path)
        if int(given[:20]) <= most:
            return self.get_response(request)
        text = f"The body has {given[:20]} bytes, and this address takes {most} ({name})."
        # the rest of the body is not read, so the connection cannot be used again
        return Problem("too_large", text).response({"Connection": "close"})


def limit_of(path: str) -> tuple[int, str]:
    """The most bytes for this address, and the setting that says so."""
    if path.startswith(_FILES):
        return settings.FLOTILLA_MEDIA_MAX_BYTES + _AROUND, "FLOTILLA_MEDIA_MAX_MB"
    return settings.FLOTILLA_BODY_MAX_BYTES, "FLOTILLA_BODY_MAX_MB"
