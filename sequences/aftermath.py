"""After a restore: leads may have had further steps in the time that was lost, and no row says so.

Active sequences that have leads on their way are paused, with their batches, as :func:`sequences.services.pause` does;
resuming one is a person's decision. SQL, as in :mod:`messaging.aftermath`.
"""

from __future__ import annotations

from typing import Any

_PAUSE = """
WITH paused AS (
    UPDATE sequences_sequence s SET state = 'paused'
    WHERE state = 'active' AND (s.trigger <> '' OR EXISTS (
        SELECT FROM sequences_enrolment e WHERE e.sequence_id = s.id AND e.state IN ('active', 'paused')))
    RETURNING id
), stopped AS (
    UPDATE messaging_batch b SET state = 'paused'
    FROM sequences_stepbatch p JOIN paused ON paused.id = p.sequence_id
    WHERE b.id = p.batch_id AND b.state = 'running'
)
SELECT json_build_object('sequences_paused', count(*)) FROM paused
"""


def statements() -> list[tuple[str, dict[str, Any]]]:
    """SQL with its values; it answers with one JSON object of counts."""
    return [(_PAUSE, {})]
