"""What became of a claim whose connection broke: did the server commit it before it could say so?

Until that is known the gateway must not be called; left alone, the message would wait for its lease to lapse and end
as an unknown that nobody sent.
"""

from __future__ import annotations

from collections.abc import Mapping
from secrets import randbelow
from typing import Any

import structlog

from messaging.dispatch import statements as sql
from messaging.dispatch.pool import Pool
from messaging.dispatch.prepared import Statement

log = structlog.get_logger(__name__)

# Of the doubled tasks of one release another may have claimed it, and that one is calling the gateway right now. The
# length of the lease, to the microsecond, says whose claim it is: see own_lease.
STANDS = Statement(
    "claim_stands",
    """
SELECT a.id FROM messaging_message m
JOIN messaging_attempt a ON a.message_id = m.id AND a.release_no = m.release_no
WHERE m.id = %(message)s AND m.release_no = %(release_no)s AND m.state = 'sending'
  AND m.lease_until = a.started_at + make_interval(secs => %(lease_seconds)s)
""",
)


def own_lease(seconds: float) -> float:
    """A lease of about ``seconds`` whose length no other claim has: up to a second longer, to the microsecond."""
    return seconds + randbelow(1_000_000) / 1_000_000


def unclaim(*, pool: Pool, key: Mapping[str, Any], lease_seconds: float) -> bool:
    """Take back the claim made with ``lease_seconds``, if it was committed; the message is pending again either way.

    ``key`` is the fence: message, release_no, device. Nothing was sent, so no attempt is counted; the attempt's row
    stays and says so. Returns whether the claim had been committed. Raises what the pool raises when the database
    stays away for the length of the lease.
    """
    # First what is still queued: waits for a claim that is under way on the server and bars one that comes late.
    if pool.insist(sql.GIVE_BACK, {**key, "wait_seconds": 0.0}, seconds=lease_seconds):
        log.warning("claim.not_committed", message_id=key["message"])
        return False
    if not pool.insist(STANDS, {**key, "lease_seconds": lease_seconds}, seconds=lease_seconds):
        return False  # somebody else's by now: a doubled task, or the recovery
    pool.insist(
        sql.RECORD,
        {
            **key,
            "state": "pending",
            "outcome": "not_sent",
            "wait_seconds": 0.0,
            "free": True,
            "external_id": "",
            "error_code": "connection_lost",
            "error_text": "The database connection broke before the gateway was called.",
            "gap_seconds": 0.0,
        },
        seconds=lease_seconds,
    )
    log.warning("claim.taken_back", message_id=key["message"])
    return True
