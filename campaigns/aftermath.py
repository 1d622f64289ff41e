"""After a restore: runs that may have happened in the time that was lost do not happen again by themselves.

Runs whose moment had come are *missed*, with the reason; occurrences between the backup and now are not made up for;
and a run whose messages were still being made ends with those that the backup has. Whoever wants them sent launches
them again, knowing what went out. SQL, as in :mod:`messaging.aftermath`.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

# triggered_at is set, so that a clock that was set back does not revive them.
_MISSED = """
WITH missed AS (
    UPDATE campaigns_run
    SET state = 'missed', triggered_at = now(), finished_at = now(),
        reason = 'Restored from a backup: it may have run after that was taken. Clone the campaign to run it again.'
    WHERE state = 'pending' AND planned_at <= now() RETURNING id
)
SELECT json_build_object('runs_missed', count(*)) FROM missed
"""
_CUT_SHORT = """
WITH cut AS (
    UPDATE campaigns_run
    SET assigned_at = now(),
        reason = 'Restored from a backup that was taken while its messages were being made: it ends with those.'
    WHERE state = 'triggered' AND assigned_at IS NULL RETURNING id
)
SELECT json_build_object('runs_cut_short', count(*)) FROM cut
"""
_PLANNED = """
WITH passed AS (
    UPDATE campaigns_campaign SET planned_until = now(), next_at = NULL
    WHERE state = 'scheduled' AND schedule = 'cron' AND coalesce(planned_until, %(taken_at)s) < now()
    RETURNING id
)
SELECT json_build_object('campaigns_planned_anew', count(*)) FROM passed
"""


def statements(*, taken_at: datetime) -> list[tuple[str, dict[str, Any]]]:
    """SQL with its values, in order; each answers with one JSON object of counts."""
    return [(statement, {"taken_at": taken_at}) for statement in (_MISSED, _CUT_SHORT, _PLANNED)]
