"""Reading what the environment says: a function for each kind of value, whose error names the variable."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TypeVar

from django.core.exceptions import ImproperlyConfigured

from leads.quiet import CourtesyProblem

_T = TypeVar("_T")


def words(name: str, default: str = "") -> list[str]:
    return [part.strip() for part in os.environ.get(name, default).split(",") if part.strip()]


def number(name: str, default: float) -> float:
    try:
        return float(os.environ.get(name, default))
    except ValueError:
        raise ImproperlyConfigured(f"{name} must be a number, not “{os.environ[name]}”.") from None


def keep_days(name: str) -> float | None:
    """How long something is kept; None for ever. Caps and reports look back a month, so that long at least."""
    days = number(name, 0) if os.environ.get(name) else 0.0
    if days and days < 31:
        raise ImproperlyConfigured(f"{name} must be 31 or more, or empty to keep everything, not “{os.environ[name]}”.")
    return days or None


def choice(name: str, *choices: str) -> str:
    """One of the words; the first where nothing is set."""
    value = os.environ.get(name) or choices[0]
    if value not in choices:
        raise ImproperlyConfigured(f"{name} must be {' or '.join(choices)}, not “{value}”.")
    return value


def by_gateway(name: str, given: str) -> list[tuple[str, str]]:
    """``simulator=a,wablas=b`` as pairs; an entry without "=" is for every gateway (""). Errors show no value."""
    pairs = []
    for position, part in enumerate((part.strip() for part in given.split(",") if part.strip()), start=1):
        kind, equals, value = part.partition("=")
        if equals and not (kind.strip() and value.strip()):
            raise ImproperlyConfigured(f"{name}: entry {position} must be written as gateway=value.")
        pairs.append((kind.strip(), value.strip()) if equals else ("", part))
    return pairs


def parsed(name: str, default: str, parse: Callable[[str], _T]) -> _T:
    try:
        return parse(os.environ.get(name, default))
    except CourtesyProblem as problem:
        raise ImproperlyConfigured(f"{name}: {problem}") from None
