"""Two bans in one run are a warning: the content or the list gets numbers banned, and the run must not take more."""

from __future__ import annotations

import structlog
from django.conf import settings

from messaging.dispatch.pool import Pool
from messaging.dispatch.prepared import Statement

log = structlog.get_logger(__name__)

# Index attempt_banned. Devices are counted, not attempts: a device with many lanes hears of one ban many times. Of two
# bans at once each record is committed before either gets here, so at least one of the two sees both.
PAUSE = Statement(
    "pause_after_bans",
    """
WITH banned AS (
    SELECT m.batch_id, count(DISTINCT d.id) AS devices, string_agg(DISTINCT d.name, ', ') AS names
    FROM messaging_attempt a
    JOIN messaging_message m ON m.id = a.message_id
    JOIN devices_device d ON d.id = a.device_id
    WHERE a.outcome = 'banned' AND a.started_at > flotilla_now() - make_interval(secs => %(seconds)s)
      AND m.batch_id = (SELECT batch_id FROM messaging_message WHERE id = %(message)s)
    GROUP BY m.batch_id
)
UPDATE messaging_batch b
SET state = 'paused',
    reason = left('Paused by itself: ' || devices || ' devices were banned while sending it (' || names || ').', 300)
FROM banned
WHERE b.id = banned.batch_id AND b.state = 'running' AND banned.devices >= 2
RETURNING b.id, banned.devices
""",
)


def pause_batch_of(*, message_id: int, pool: Pool) -> bool:
    """A ban was recorded for this message: pause its batch if it is not the first within the window."""
    rows = pool.execute(PAUSE, {"message": message_id, "seconds": settings.FLOTILLA_BAN_WINDOW_SECONDS})
    for batch_id, devices in rows:
        log.error("batch.paused_after_bans", batch_id=batch_id, devices=devices)
    return bool(rows)
