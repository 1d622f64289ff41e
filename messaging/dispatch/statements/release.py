"""Picking what is due, and handing a device's next message over."""

from __future__ import annotations

from messaging.dispatch.prepared import Statement

# Index device_due. NO KEY: foreign keys of a running fan-out hold KEY SHARE on device rows and must not hide them.
# Rests are as few as gateway addresses.
DUE_DEVICES = Statement(
    "due_devices",
    """
SELECT id FROM devices_device d
WHERE state = 'active' AND wake_at <= flotilla_now()
  AND NOT EXISTS (SELECT FROM messaging_halt WHERE ended_at IS NULL)
  AND NOT EXISTS (SELECT FROM devices_gatewayrest r
                  WHERE r.gateway = d.gateway AND r.base_url = d.base_url AND r.until > flotilla_now())
ORDER BY wake_at
LIMIT %(limit)s
FOR NO KEY UPDATE OF d SKIP LOCKED
""",
)

# The same for one device, waiting for whoever has it: lanes of one device hand over one after the other.
THIS_DEVICE = Statement("this_device", "SELECT id FROM devices_device WHERE id = %(device)s FOR NO KEY UPDATE")

# Indexes message_one_in_flight (free lanes), stream_open_by_device, message_next.
# A statement of its own after the device locks, so that its snapshot is later than theirs. A device with a gap of its
# own uses one lane: filling more would only make claims that pacing refuses. Streams of one device take turns: the
# first message of each stream before the second of any, least recently served stream first.
RELEASE_TEMPLATE = """
WITH slot AS MATERIALIZED (
    SELECT d.id AS device_id, l.lane, row_number() OVER (PARTITION BY d.id ORDER BY l.lane) AS rank
    FROM devices_device d
    CROSS JOIN LATERAL generate_series(0, CASE WHEN d.delay_max_seconds > 0 THEN 0 ELSE d.lanes - 1 END) AS l(lane)
    WHERE {devices} AND d.state = 'active'
      AND coalesce(greatest(d.next_send_at, d.held_until) <= flotilla_now(), true)
      AND NOT EXISTS (SELECT FROM messaging_halt WHERE ended_at IS NULL)
      AND NOT EXISTS (SELECT FROM messaging_message f
                      WHERE f.device_id = d.id AND f.lane = l.lane AND f.state IN ('queued', 'sending'))
), want AS (
    SELECT device_id, {most} AS n FROM slot GROUP BY device_id
), pick AS (
    SELECT w.device_id, c.id, c.stream_id,
           row_number() OVER (PARTITION BY w.device_id ORDER BY c.priority, c.turn, c.served_at, c.due_at, c.id) AS rank
    FROM want w
    CROSS JOIN LATERAL (
        SELECT n.id, n.due_at, n.turn, s.id AS stream_id, s.priority, s.served_at
        FROM messaging_stream s
        JOIN messaging_batch b ON b.id = s.batch_id AND b.state = 'running' AND b.expires_at > flotilla_now()
        CROSS JOIN LATERAL (
            SELECT p.id, p.due_at, row_number() OVER (ORDER BY p.due_at, p.id) AS turn
            FROM (SELECT id, due_at FROM messaging_message
                  WHERE stream_id = s.id AND state = 'pending' AND due_at <= flotilla_now()
                  ORDER BY due_at, id LIMIT w.n) p
        ) n
        WHERE s.device_id = w.device_id AND s.is_open
        ORDER BY s.priority, n.turn, s.served_at, n.due_at, n.id
        LIMIT w.n
    ) c
), released AS (
    UPDATE messaging_message m
    SET state = 'queued', lane = slot.lane, release_no = m.release_no + 1, queued_at = flotilla_now()
    FROM pick JOIN slot USING (device_id, rank)
    WHERE m.id = pick.id AND m.state = 'pending'
    RETURNING m.id, m.device_id, m.release_no, m.stream_id
), turn AS (
    UPDATE messaging_stream s SET served_at = flotilla_now()
    FROM (SELECT DISTINCT stream_id FROM released) r
    WHERE s.id = r.stream_id
      AND EXISTS (SELECT FROM messaging_stream o WHERE o.device_id = s.device_id AND o.is_open AND o.id <> s.id)
), full_now AS (  -- one lane, and it is taken: the record wakes the device
    UPDATE devices_device d SET wake_at = NULL
    FROM released r WHERE d.id = r.device_id AND (d.lanes = 1 OR d.delay_max_seconds > 0)
    RETURNING d.id
)
{answer}
"""
RELEASE = Statement(
    "release",
    RELEASE_TEMPLATE.format(
        devices="d.id = ANY(%(devices)s)",
        most="count(*)",
        answer="""SELECT r.id, r.device_id, r.release_no, f.id IS NOT NULL, d.gateway
FROM released r JOIN devices_device d ON d.id = r.device_id LEFT JOIN full_now f ON f.id = r.device_id
ORDER BY r.device_id, r.id""",
    ),
)

# One message of one device, remembered for PEEK_RELEASED in the same transaction.
RELEASE_NEXT = Statement(
    "release_next",
    RELEASE_TEMPLATE.format(
        devices="d.id = %(device)s",
        most="1",
        answer="SELECT set_config('flotilla.released', id::text, true) FROM released",
    ),
)

# After a release, in the same transaction, for the devices that it did not fill by one message. When every lane is
# taken, a second from now (so that the records of many lanes need not all write this row). When nothing waits, NULL.
# Else the moment the next message is due and the device has rested.
SET_WAKE_TEMPLATE = """
UPDATE devices_device d
SET wake_at = CASE
    WHEN busy.lanes >= (CASE WHEN d.delay_max_seconds > 0 THEN 1 ELSE d.lanes END)
    THEN CASE WHEN d.lanes > 1 THEN flotilla_now() + interval '1 second' END
    ELSE (
        SELECT CASE WHEN min(f.due_at) IS NOT NULL
                    THEN greatest(min(f.due_at), d.next_send_at, d.held_until{not_before}) END
        FROM messaging_stream s
        JOIN messaging_batch b ON b.id = s.batch_id AND b.state = 'running' AND b.expires_at > flotilla_now()
        CROSS JOIN LATERAL (SELECT due_at FROM messaging_message
                            WHERE stream_id = s.id AND state = 'pending' ORDER BY due_at, id LIMIT 1) f
        WHERE s.device_id = d.id AND s.is_open) END
FROM {asked}
CROSS JOIN LATERAL (SELECT count(*) AS lanes FROM messaging_message f
                    WHERE f.device_id = asked.id AND f.state IN ('queued', 'sending')) busy
WHERE d.id = asked.id{unless}
"""
SET_WAKE = Statement(
    "set_wake",
    SET_WAKE_TEMPLATE.format(asked="unnest(%(devices)s::bigint[]) AS asked(id)", not_before="", unless=""),
)

# After a hand-over. Lanes of a device without a gap that are free at this moment are between their record and their
# own hand-over: a release that filled them would end what their threads carry, and cost a task for each. It looks
# after at most a second, in case one of them does not come; a look that is near already stays.
BESIDE_LANES = {
    "not_before": ", CASE WHEN d.lanes > 1 AND d.delay_max_seconds = 0 THEN flotilla_now() + interval '1 second' END",
    "unless": """
  AND NOT (d.lanes > 1 AND d.delay_max_seconds = 0
           AND coalesce(d.wake_at <= flotilla_now() + interval '1 second', false))""",
}
SET_WAKE_OF = Statement(
    "set_wake_of",
    SET_WAKE_TEMPLATE.format(
        asked="(SELECT %(device)s AS id) AS asked",
        not_before=BESIDE_LANES["not_before"],
        unless=" AND (coalesce(current_setting('flotilla.released', true), '') = ''"
        " OR (d.lanes > 1 AND d.delay_max_seconds = 0))" + BESIDE_LANES["unless"],
    ),
)

# A release is written down without waiting for the disk: a server that crashes forgets it as if it had never been, and
# the claim that must come before any byte leaves does wait, and takes the release's record to the disk with its own.
LAZILY = Statement("lazily", "SELECT set_config('synchronous_commit', 'off', true)")
