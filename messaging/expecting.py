"""Of which devices something is expected, so that their sessions had better stay open and hear replies at once."""

from __future__ import annotations

from collections.abc import Callable, Collection

from django.db import connection

from messaging.models import Stream

Expects = Callable[[Collection[int]], Collection[int]]

_above: list[Expects] = []


def expect(predicate: Expects) -> None:
    """Ask this as well: whoever is above messaging knows of enrolments and the like."""
    if predicate not in _above:
        _above.append(predicate)


def expected(devices: Collection[int]) -> set[int]:
    """Those of ``devices`` for which messages wait, or of which somebody above expects something."""
    found = set(Stream.objects.filter(device_id__in=devices, is_open=True).values_list("device_id", flat=True))
    for predicate in _above:
        found.update(predicate(devices))
    if not connection.in_atomic_block:
        connection.close()
    return found
