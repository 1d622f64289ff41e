"""The counters of enrolments: lines that a database trigger adds with every move, summed up now and then.

No move waits for another one's counter, and none is ever forgotten, whoever deletes or merges leads.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import structlog
from django.db import connection, transaction
from django.db.models import Sum

from sequences.models import Sequence, Tally

log = structlog.get_logger(__name__)

LINES = 1_000
"""So many lines are worth summing up."""

Place = tuple[str, str, int]
"""State, code and step key of enrolments that are counted together."""

_COMPARE = """
SELECT state, code, step_key, sum(stored)::int, sum(counted)::int
FROM (SELECT state, code, step_key, number AS stored, 0 AS counted FROM sequences_tally WHERE sequence_id = %(sequence)s
      UNION ALL
      SELECT state, code,
             coalesce(CASE WHEN state IN ('active', 'paused', 'failed') THEN next_key ELSE last_key END, 0), 0, 1
      FROM sequences_enrolment WHERE sequence_id = %(sequence)s) each
GROUP BY 1, 2, 3 HAVING sum(stored) <> sum(counted) ORDER BY 1, 2, 3
"""
_SQUASH = """
WITH old AS (DELETE FROM sequences_tally RETURNING sequence_id, state, code, step_key, number)
INSERT INTO sequences_tally (sequence_id, state, code, step_key, number)
SELECT sequence_id, state, code, step_key, sum(number) FROM old
WHERE sequence_id IN (SELECT id FROM sequences_sequence)
GROUP BY 1, 2, 3, 4 HAVING sum(number) <> 0
"""


@dataclass(frozen=True, slots=True)
class Difference:
    """A counter that was wrong."""

    sequence_id: int
    place: Place
    stored: int
    counted: int


def of(sequence_ids: Collection[int]) -> dict[int, dict[Place, int]]:
    """The counters of these sequences."""
    rows = (
        Tally.objects.filter(sequence_id__in=sequence_ids)
        .order_by()
        .values_list("sequence_id", "state", "code", "step_key")
        .annotate(Sum("number"))
    )
    found: dict[int, dict[Place, int]] = {pk: {} for pk in sequence_ids}
    for sequence_id, state, code, key, number in rows:
        if number:
            found[sequence_id][state, code, key] = number
    return found


def squash() -> bool:
    """Sum the lines up, where there are enough of them. Whether it did."""
    if Tally.objects.order_by()[: LINES + 1].count() <= LINES:
        return False
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(_SQUASH)
    return True


def recount(*, sequence: Sequence, correct: bool = True) -> list[Difference]:
    """Compare the counters with the enrolments, in one snapshot; put right what differs, which is a mistake of ours."""
    with transaction.atomic():
        with connection.cursor() as cursor:
            cursor.execute(_COMPARE, {"sequence": sequence.pk})
            rows = cursor.fetchall()
        found = [Difference(sequence.pk, (state, code, key), was, counted) for state, code, key, was, counted in rows]
        if correct:
            for wrong in found:
                state, code, key = wrong.place
                number = wrong.counted - wrong.stored
                Tally.objects.create(sequence=sequence, state=state, code=code, step_key=key, number=number)
    for wrong in found:
        log.error(
            "enrolments.differed", sequence_id=sequence.pk, place=wrong.place, stored=wrong.stored,
            counted=wrong.counted,
        )  # fmt: skip
    return found
