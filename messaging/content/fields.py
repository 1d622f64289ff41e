"""The columns in which somebody writes what a message says, for models above that make batches of it.

The form of :mod:`messaging.content.shape`, column by column, so that each has a field of its own in forms and in the
API, and each problem stands at its field.
"""

from __future__ import annotations

from typing import Any

from django.db import models

from messaging.content.greeting import LANGUAGE_NAMES
from messaging.content.problems import ContentRefused
from messaging.content.shape import ON_MISSING, TYPES, parse
from messaging.media.models import MediaFile


class ContentFields(models.Model):
    """What is said. :meth:`content` puts it together."""

    content_type = models.CharField(
        max_length=8,
        choices=[(kind, kind.capitalize()) for kind in TYPES],
        default="text",
        db_default="text",
        help_text="What is sent.",
    )
    text = models.TextField(
        blank=True, help_text="The text or caption. Variables as {{ name }}; a fallback as {{ name or 'friend' }}."
    )
    media = models.ForeignKey(
        MediaFile, on_delete=models.PROTECT, null=True, blank=True, related_name="+", help_text="The attachment."
    )
    template = models.JSONField(
        null=True, blank=True, help_text='As {"name": "order_sent", "language": "en", "parameters": ["{{ name }}"]}.'
    )
    greeting = models.CharField(
        max_length=2,
        choices=list(LANGUAGE_NAMES.items()),
        blank=True,
        default="",
        db_default="",
        help_text="Greet by the lead's time of day.",
    )
    on_missing = models.CharField(
        max_length=8,
        choices=[(choice, choice.capitalize()) for choice in ON_MISSING],
        default="fallback",
        db_default="fallback",
        help_text="Where a lead lacks a value without a fallback: leave a gap, or hold the message until it is there.",
    )

    class Meta:
        abstract = True

    def content(self, *, text: str | None = None) -> dict[str, Any]:
        """What a batch of it carries (:mod:`messaging.content.shape`); with ``text``, that instead of its own."""
        said = self.text if text is None else text
        parts = {
            "text": said if said or self.content_type == "text" else None,
            "media": self.media_id,
            "template": self.template,
            "greeting": self.greeting or None,
            "on_missing": self.on_missing if self.on_missing != "fallback" else None,
        }
        return {"type": self.content_type, **{name: part for name, part in parts.items() if part is not None}}

    def content_problems(self) -> dict[str, str]:
        """What is wrong with it, by field, in words for its author; empty where nothing is."""
        errors: dict[str, str] = {}
        try:
            parse(self.content())
        except ContentRefused as refused:
            for each in refused.problems:
                name = each.field.partition(".")[0]
                errors.setdefault({"type": "content_type"}.get(name, name) or "text", each.text)
        stands_above = self.content_type == "template"  # a template's head may be of any kind
        if self.media is not None and self.media.kind != self.content_type and not stands_above:
            kind = self.media.kind
            errors.setdefault(
                "media", f"“{self.media}” is stored as {kind}, and this is to be sent as {self.content_type}."
            )
        return errors
