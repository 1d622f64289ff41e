"""Groups of messages that apps above know under names of their own: those of a run, of a step of a sequence.

Messaging knows batches only. Whoever makes batches registers how a name is understood, and the list of messages can be
narrowed to it: ``?of=run-12`` or, for a part of it, ``?of=run-12-34``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from django.db.models import QuerySet

from devices.access import AnyUser
from messaging.models import Message

_KEY = re.compile(r"([a-z_]+)((?:-[0-9]{1,18}){1,2})", re.ASCII)


@dataclass(frozen=True, slots=True)
class Group:
    """``title`` for a person; ``narrow`` leaves of a queryset what belongs to the group."""

    title: str
    narrow: Callable[[QuerySet[Message]], QuerySet[Message]]


Finder = Callable[[AnyUser, Sequence[int]], Group | None]
"""Given who asks and the numbers of a key; None for what they may not see, or is not there."""

_FINDERS: dict[str, Finder] = {}


def register(kind: str, find: Finder) -> None:
    """Let ``find`` speak for keys that begin with ``kind``. Raises ValueError where another one does."""
    if _FINDERS.setdefault(kind, find) is not find:
        raise ValueError(f"there are groups of the kind “{kind}” already")


def find(key: str, *, user: AnyUser) -> Group | None:
    """The group of this name, if there is one and ``user`` may see it."""
    match = _KEY.fullmatch(key)
    if match is None or match[1] not in _FINDERS:
        return None
    return _FINDERS[match[1]](user, [int(number) for number in match[2][1:].split("-")])


def of_batches(title: str, batches: Sequence[int]) -> Group:
    """The messages of some batches."""
    return Group(title, lambda messages: messages.filter(batch__in=batches))
