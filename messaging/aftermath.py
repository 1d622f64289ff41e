"""After a restore: what was about to go out when the backup was taken may have gone out since.

Nobody can tell from the rows, so none of it is sent on the strength of them:

* Where the gateway provably drops repeated ids, the message stays to be sent: its id is made of its number, round and
  uid, all of which are in the backup, so what the gateway has seen is dropped there.
* Everything else is *unknown* from here on, with an attempt that stands for the one that perhaps was. A gateway that
  can be searched by our ids is asked, receipts settle what they name, and the rest is held for a person whatever the
  gateway's policy says: the policy was chosen for single crashes.
* What could have moved to another device since (its batch fails over) is held without asking: neither dropping nor
  searching reaches across devices.
* What was not due until now cannot have been sent, and waits as it did.

Releases count on from far above what the lost time can have reached, so that no task in a queue and no late record of
that time fits a message again. All of it is SQL to be run in the transaction that loads the backup: before its end
nobody sees the rows, and after it every claim is halted.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from devices.gateways import registry

HELD, HELD_ELSEWHERE = "restored", "restored_moved"
"""Codes of messages that are held: their own device's gateway may be asked, or not even that."""

RELEASES_APART = 1_000

_WORDS = "Restored from a backup: it may have been sent after that was taken."

# “Nothing sent since” takes the second form: only what was at a gateway at that moment is in doubt, and its lease
# says so by itself.
_HALT = """
INSERT INTO messaging_halt (scope, reason, started_at) VALUES ('all', %(reason)s, now())
ON CONFLICT (scope) WHERE ended_at IS NULL
DO UPDATE SET reason = left(EXCLUDED.reason || ' Halted before: ' || messaging_halt.reason, 300)
"""
_DOUBT = """
WITH asked AS MATERIALIZED (
    SELECT m.id, m.stream_id, m.device_id, m.round, m.uid, m.release_no + %(apart)s AS release_no,
           greatest(m.attempts, 1) AS attempts, b.failover, d.gateway = ANY(%(dedups)s) AND NOT b.failover AS again
    FROM messaging_message m
    JOIN messaging_batch b ON b.id = m.batch_id
    JOIN devices_device d ON d.id = m.device_id
    WHERE m.state IN ('queued', 'sending')
       OR (m.state = 'pending' AND (m.due_at <= now() OR m.error_code = 'missing_value'))
), moved AS (
    UPDATE messaging_message m
    SET state = CASE WHEN a.again THEN 'pending' ELSE 'unknown' END,
        release_no = a.release_no, attempts = a.attempts, lease_until = NULL,
        due_at = CASE WHEN a.again THEN m.due_at ELSE now() END,
        error_code = CASE WHEN a.failover THEN %(elsewhere)s ELSE %(held)s END, error_text = %(words)s
    FROM asked a WHERE m.id = a.id AND m.state IN ('pending', 'queued', 'sending')
), ended AS (
    UPDATE messaging_attempt t SET outcome = 'unknown', finished_at = now(), error_code = %(held)s
    FROM asked a WHERE t.message_id = a.id AND t.outcome = ''
), noted AS (
    INSERT INTO messaging_attempt (message_id, device_id, release_no, number, round, reference, text, started_at,
                                   finished_at, outcome, error_code, error_text)
    SELECT id, device_id, release_no, attempts, round,
           id || '-' || round || '-' || left(replace(uid::text, '-', ''), 12), '', %(taken_at)s, now(), 'unknown',
           %(held)s, %(words)s
    FROM asked
), counted AS (
    UPDATE messaging_stream s
    SET waiting = s.waiting - c.n, unknown = s.unknown + c.n, is_open = s.waiting - c.n > 0
    FROM (SELECT stream_id, count(*) AS n FROM asked WHERE NOT again GROUP BY stream_id) c
    WHERE s.id = c.stream_id
)
SELECT json_build_object('held', count(*) FILTER (WHERE NOT again), 'sent_again', count(*) FILTER (WHERE again))
FROM asked
"""
# What was in doubt before is not to be sent again by a policy either: that may have happened in the lost time.
_OLD_DOUBT = """
WITH held AS (
    UPDATE messaging_message SET error_code = %(held)s
    WHERE state = 'unknown' AND presumed_at IS NULL AND error_code NOT IN (%(held)s, %(elsewhere)s) RETURNING id
)
SELECT json_build_object('in_doubt_before', count(*)) FROM held
"""
# Making messages goes on from a cursor that may be behind: who comes after it may have theirs already.
_UNFINISHED = """
WITH ended AS (
    UPDATE messaging_batch SET filled_at = now()
    WHERE filled_at IS NULL AND state IN ('running', 'paused') RETURNING id
)
SELECT json_build_object('cut_short', count(*)) FROM ended
"""
_DEVICES = """
UPDATE devices_device
SET config_version = config_version + 1, wake_at = CASE WHEN state = 'active' THEN now() ELSE wake_at END
"""


def statements(*, taken_at: datetime, nothing_sent_since: bool) -> list[tuple[str, dict[str, Any]]]:
    """SQL with its values, in order; each that answers does so with one JSON object of counts.

    ``nothing_sent_since``: the installation has sent nothing after the backup (it was halted, and stayed so), so what
    waits keeps waiting. Halted it is all the same.
    """
    reason = f"Restored from the backup of {taken_at:%Y-%m-%d %H:%M:%S} UTC: look at what is held before going on."
    values: dict[str, Any] = {
        "taken_at": taken_at,
        "dedups": _dedups(),
        "apart": RELEASES_APART,
        "held": HELD,
        "elsewhere": HELD_ELSEWHERE,
        "words": _WORDS,
        "reason": reason,
    }
    doubting = [] if nothing_sent_since else [_DOUBT, _OLD_DOUBT, _UNFINISHED]
    return [(statement, values) for statement in (_HALT, *doubting, _DEVICES)]


def _dedups() -> Sequence[str]:
    return [kind for kind in sorted(registry.kinds()) if registry.driver_for(kind).id_semantics == "dedups"]
