"""What ``{{ value|filter }}`` may do in a message. Small on purpose: each costs no more than its input is long.

A value that the lead lacks comes in as Jinja's undefined: ``str()`` makes it empty, or raises where the author chose to
hold such messages.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from jinja2 import Undefined

from messaging.content.spintax import marked_value

MAX_CHARACTERS = 65_536
"""Longest text on the way to a message: options that are not chosen count too."""


def _default(value: Any, default: Any = "") -> Any:
    return default if isinstance(value, Undefined) or not (value or value == 0) else value


def _replace(value: Any, old: Any, new: Any) -> str:
    text, old, new = str(value), str(old), str(new)
    if len(text) + text.count(old) * len(new) > MAX_CHARACTERS:
        raise ValueError("the text gets too long")
    return text.replace(old, new)


def _join(value: Any, separator: Any = ", ") -> str:
    return str(separator).join(str(one) for one in value)


def _truncate(value: Any, length: int = 50) -> str:
    text = str(value)
    return text if len(text) <= length else f"{text[: max(int(length) - 1, 0)].rstrip()}…"


def _round(value: Any, digits: int = 0) -> Any:
    if not -6 <= digits <= 6:
        raise ValueError("numbers are rounded to six digits at most")
    rounded = round(float(value), digits)
    return rounded if digits > 0 else int(rounded)


def _number(value: Any, kind: Callable[[Any], Any], default: Any) -> Any:
    try:
        return kind(value)
    except (TypeError, ValueError, OverflowError):
        return default


def _int(value: Any, default: Any = 0) -> Any:
    return _number(value, lambda given: int(float(given)), default)


def _float(value: Any, default: Any = 0.0) -> Any:
    return _number(value, float, default)


def _first(value: Any) -> Any:
    return next(iter(value), "")


def _last(value: Any) -> Any:
    found = list(value)
    return found[-1] if found else ""


FILTERS: Mapping[str, Callable[..., Any]] = {
    "capitalize": lambda value: str(value).capitalize(),
    "d": _default,
    "default": _default,
    "first": _first,
    "float": _float,
    "int": _int,
    "join": _join,
    "last": _last,
    "length": lambda value: len(value),  # noqa: PLW0108 - len has no signature to check arguments against
    "lower": lambda value: str(value).lower(),
    "replace": _replace,
    "round": _round,
    "spin": lambda value: marked_value(str(value)),
    "title": lambda value: str(value).title(),
    "trim": lambda value: str(value).strip(),
    "truncate": _truncate,
    "upper": lambda value: str(value).upper(),
}
