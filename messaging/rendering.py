"""Turning content and a lead into the text that goes out. Pure: no Django, no clock.

Templates are Jinja2 in its sandbox: ``{{ name or 'friend' }}``. They see the lead's fields and nothing else, and a
template that loops or calls its way to harm is refused by the sandbox.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from jinja2 import Template, TemplateError, TemplateSyntaxError
from jinja2.sandbox import ImmutableSandboxedEnvironment, SecurityError

MAX_TEXT = 4096
"""Longest rendered text, in characters: what WhatsApp's text messages carry."""


class _Sandbox(ImmutableSandboxedEnvironment):
    """No multiplication and no powers: ``'x' * 10**9`` would take the worker's memory."""

    intercepted_binops = frozenset({"*", "**"})

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:  # noqa: ARG002 - Jinja's signature
        raise SecurityError(f"“{operator}” is not allowed in a message")


_environment = _Sandbox(autoescape=False, keep_trailing_newline=True)  # plain text, never HTML
_environment.globals.clear()  # no range(), no lipsum(): nothing that makes text out of nothing


class TemplateProblem(Exception):  # noqa: N818 - reads as a fact
    """A template that cannot be used, in words for its author; ``line`` counts from 1 where it is known."""

    def __init__(self, text: str, *, line: int | None = None) -> None:
        super().__init__(text)
        self.line = line


@lru_cache(maxsize=512)
def _compiled(source: str) -> Template:
    return _environment.from_string(source)


def check_template(source: str) -> None:
    """Raises :class:`TemplateProblem` if ``source`` is empty or does not parse."""
    if not source.strip():
        raise TemplateProblem("Write the text of the message.")
    try:
        _compiled(source)
    except TemplateSyntaxError as problem:
        raise TemplateProblem(f"Line {problem.lineno}: {problem.message}", line=problem.lineno) from None


def render(source: str, variables: Mapping[str, Any]) -> str:
    """The text for one lead. Raises :class:`TemplateProblem` when it cannot be made or comes out empty or too long."""
    try:
        text = _compiled(source).render(variables)
    except TemplateSyntaxError as problem:
        raise TemplateProblem(f"Line {problem.lineno}: {problem.message}", line=problem.lineno) from None
    except (TemplateError, ArithmeticError, TypeError, ValueError, LookupError, AttributeError) as problem:
        raise TemplateProblem(f"The text could not be made for this lead: {problem}") from None
    if not text.strip():
        raise TemplateProblem("The text came out empty for this lead.")
    if len(text) > MAX_TEXT:
        raise TemplateProblem(f"The text came out {len(text):,} characters long; {MAX_TEXT:,} are allowed.")
    return text
