"""What the API modules of leads share."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from django.http import StreamingHttpResponse
from rest_framework import serializers
from rest_framework.renderers import BaseRenderer

from leads.phones import known_region


class RegionField(serializers.CharField):
    """A country as two letters, for numbers written without a country code."""

    def __init__(self, **kwargs: Any) -> None:
        kwargs.setdefault("help_text", "Country of numbers written without a country code, as MY.")
        super().__init__(min_length=2, max_length=2, **kwargs)

    def to_internal_value(self, data: Any) -> str:
        """Upper case, and one that exists."""
        region = super().to_internal_value(data).upper()
        if not known_region(region):
            raise serializers.ValidationError(
                f"“{region}” is not a country code; use two letters, as MY.", "bad_region"
            )
        return region


class CsvRenderer(BaseRenderer):
    """Lets a caller ask for ``text/csv``. What is streamed is no DRF response, so nothing is ever rendered here."""

    media_type = "text/csv"
    format = "csv"
    charset = "utf-8"

    def render(self, data: Any, accepted_media_type: Any = None, renderer_context: Any = None) -> bytes:  # noqa: ARG002
        """DRF's hook."""
        return str(data).encode()


def csv_response(lines: Iterator[str], *, filename: str) -> StreamingHttpResponse:
    """A CSV that is sent while it is read."""
    return StreamingHttpResponse(
        lines,
        content_type="text/csv; charset=utf-8",
        headers={"Content-Disposition": f'attachment; filename="{filename}"', "Cache-Control": "no-store"},
    )
