"""What becomes of a device that could not be connected, or was at last."""

from __future__ import annotations

from messaging.dispatch.prepared import Statement

RECONNECT_FAILED = Statement(
    "reconnect_failed",
    """
UPDATE devices_device
SET reconnect_failures = reconnect_failures + 1,
    state = CASE WHEN reconnect_failures + 1 >= %(most)s THEN 'needs_attention' ELSE state END,
    state_reason = CASE WHEN reconnect_failures + 1 >= %(most)s THEN %(reason)s ELSE state_reason END,
    attention_code = CASE WHEN reconnect_failures + 1 >= %(most)s THEN 'unreachable' ELSE attention_code END,
    held_until = flotilla_now() + make_interval(mins => (%(minutes)s::int[])[reconnect_failures + 1]),
    hold_reason = %(reason)s
WHERE id = %(device)s AND state = 'active'
RETURNING reconnect_failures, state
""",
)

# An incident: it was not these devices' fault. What the last failure did to them is taken back.
PARDON = Statement(
    "pardon",
    """
UPDATE devices_device
SET reconnect_failures = reconnect_failures - 1, held_until = NULL, hold_reason = '',
    state = CASE WHEN attention_code = 'unreachable' THEN 'active' ELSE state END,
    state_reason = CASE WHEN attention_code = 'unreachable' THEN '' ELSE state_reason END,
    attention_code = CASE WHEN attention_code = 'unreachable' THEN '' ELSE attention_code END,
    wake_at = least(wake_at, flotilla_now())
WHERE id = ANY(%(devices)s) AND reconnect_failures > 0
  AND (state = 'active' OR (state = 'needs_attention' AND attention_code = 'unreachable'))
RETURNING id
""",
)

# Whatever was wrong is mended. A rest that the gateway asked for stays; a back-off of ours ends.
REFRESHED = Statement(
    "refreshed",
    """
UPDATE devices_device
SET state = CASE WHEN state = 'needs_attention' THEN 'active' ELSE state END,
    state_reason = CASE WHEN state = 'needs_attention' THEN '' ELSE state_reason END,
    attention_code = CASE WHEN state = 'needs_attention' THEN '' ELSE attention_code END,
    held_until = CASE WHEN reconnect_failures > 0 THEN NULL ELSE held_until END,
    hold_reason = CASE WHEN reconnect_failures > 0 THEN '' ELSE hold_reason END,
    reconnect_failures = 0, refresh_asked_at = NULL, refreshed_at = flotilla_now(),
    wake_at = least(wake_at, flotilla_now())
WHERE id = %(device)s
RETURNING state
""",
)
NOT_REFRESHED = Statement(
    "not_refreshed",
    """
UPDATE devices_device
SET refresh_asked_at = NULL,
    state_reason = CASE WHEN state = 'needs_attention' THEN %(reason)s ELSE state_reason END,
    attention_code = CASE WHEN state = 'needs_attention' THEN %(code)s ELSE attention_code END
WHERE id = %(device)s
RETURNING state
""",
)

# Index device_refresh. Asked again after half a minute if nobody has answered by then.
REFRESHES_ASKED = Statement(
    "refreshes_asked",
    """
UPDATE devices_device SET refresh_asked_at = flotilla_now() + interval '30 seconds'
WHERE id IN (SELECT id FROM devices_device WHERE refresh_asked_at <= flotilla_now()
             ORDER BY refresh_asked_at LIMIT %(limit)s FOR NO KEY UPDATE SKIP LOCKED)
RETURNING id, gateway
""",
)

# One row per incident, however many processes find it.
INCIDENT_BEGAN = Statement(
    "incident_began",
    """
INSERT INTO devices_incident (scope, subject, reason, devices, started_at)
VALUES (%(scope)s, left(%(subject)s, 250), left(%(reason)s, 300), %(most)s, flotilla_now())
ON CONFLICT (scope, subject) WHERE ended_at IS NULL DO UPDATE
SET devices = greatest(devices_incident.devices, EXCLUDED.devices)
RETURNING id
""",
)
INCIDENT_ENDED = Statement(
    "incident_ended",
    """
UPDATE devices_incident SET ended_at = flotilla_now()
WHERE scope = %(scope)s AND subject = left(%(subject)s, 250) AND ended_at IS NULL
RETURNING id
""",
)

HOLD_NEW_CONTACTS = Statement(
    "hold_new_contacts",
    """
UPDATE devices_device
SET new_contacts_held_until = greatest(new_contacts_held_until, flotilla_now() + make_interval(secs => %(seconds)s))
WHERE id = %(device)s
""",
)
