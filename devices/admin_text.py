"""Pieces of text that all pages write alike: names, numbers, states, moments, and what may not be a link.

A name in Arabic or Hebrew turns the text around it, so that the plus of a phone number beside it would appear at the
wrong end. Names and numbers are therefore isolated (``<bdi>``), and numbers always run from left to right.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from functools import cache
from typing import Any

from django.contrib.humanize.templatetags.humanize import naturaltime
from django.template.loader import render_to_string
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString
from unfold.decorators import display

NOTHING = SafeString("–")
DIRECTIONS = {"phone": "ltr", "name": "auto", "text": "auto", "notes": "auto"}
"""Form fields by name: which way they are written. ``auto`` goes by the first letter."""


def many(number: int, word: str) -> str:
    """``1 lead``, ``2,000 leads``."""
    return f"{number:,} {word}" if number == 1 else f"{number:,} {word}s"


def isolated(text: object) -> SafeString:
    """A name that leaves the direction of what stands beside it alone."""
    return format_html("<bdi>{}</bdi>", text)


def phone(number: str) -> SafeString:
    """A phone number: its plus is on the left, whatever surrounds it."""
    return format_html('<bdi dir="ltr" class="fl-phone">{}</bdi>', number) if number else NOTHING


def person(*, name: str, number: str) -> SafeString:
    """Somebody's name and number, or the number alone."""
    return format_html("{} {}", isolated(name), phone(number)) if name else phone(number)


def label(text: str, *, colour: str) -> SafeString:
    """A coloured label as lists have it, for pages as well. ``colour`` is one of unfold's types, as ``success``."""
    return SafeString(render_to_string("unfold/helpers/label.html", {"text": text, "type": colour}).strip())


def moment(when: datetime | None) -> SafeString:
    """How long ago or how soon; the moment itself is shown where the pointer rests."""
    if when is None:
        return NOTHING
    return format_html('<time datetime="{}" title="{}">{}</time>', when.isoformat(), exact(when), naturaltime(when))


def moment_in_full(when: datetime | None) -> SafeString:
    """The moment itself, then how long ago or how soon."""
    if when is None:
        return NOTHING
    return format_html(
        '<time datetime="{}">{}</time> <span class="fl-muted">{}</span>',
        when.isoformat(),
        exact(when),
        naturaltime(when),
    )


def exact(when: datetime) -> str:
    """To the second, in the current time zone and with its name: "2026-05-01 14:03:09 +08"."""
    return f"{timezone.localtime(when):%Y-%m-%d %H:%M:%S %Z}"


def moment_column(field: str, description: str, *, in_full: bool = False) -> Callable[[Any, Any], SafeString]:
    """A method for an admin class that shows the datetime ``field`` of a row, sortable by it."""
    write = moment_in_full if in_full else moment

    def column(_model_admin: Any, row: Any) -> SafeString:
        return write(getattr(row, field))

    column.__name__ = f"{field}_shown"
    shown: Callable[[Any, Any], SafeString] = display(description=description, ordering=field)(column)
    return shown


@cache
def plain_column(field: str, description: str) -> Callable[[Any], SafeString]:
    """The related row ``field`` without a link. Cached: Django compares the fields of a page by identity."""

    def column(row: Any) -> SafeString:
        value = getattr(row, field)
        return NOTHING if value is None else isolated(value)

    column.__name__ = field
    shown: Callable[[Any], SafeString] = display(description=description)(column)
    return shown
