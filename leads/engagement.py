"""Where the rules about sending and replying are filled in: what was sent is known above this app.

Whoever knows registers, when the app is ready, a function per rule of :data:`leads.rules.ENGAGEMENT` that turns the
rule's value into a condition on leads.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.db.models import Q

from leads.rules import ENGAGEMENT

Condition = Callable[[Any], Q]
"""From a rule's value (a truth value, or a time) to a condition on a query of leads."""

_CONDITIONS: dict[str, Condition] = {}


def register(*, rule: str, condition: Condition) -> None:
    """Let ``condition`` speak for ``rule``. Raises ValueError for a rule that is none of these, or is taken."""
    if rule not in ENGAGEMENT:
        raise ValueError(f"“{rule}” is no rule about engagement; known: {', '.join(ENGAGEMENT)}")
    if _CONDITIONS.setdefault(rule, condition) is not condition:
        raise ValueError(f"the rule “{rule}” has its condition already")


def condition_of(rule: str, value: Any) -> Q:
    """The condition that ``rule`` stands for. KeyError where nobody registered one."""
    return _CONDITIONS[rule](value)
