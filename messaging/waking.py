"""Waking devices: the release only looks at those whose ``wake_at`` has come."""

from __future__ import annotations

from collections.abc import Iterable

from django.db import connection


def wake(device_ids: Iterable[int]) -> None:
    """Let the release look at these devices; call it in the transaction that gave them something to do."""
    with connection.cursor() as cursor:
        cursor.execute(
            """UPDATE devices_device d SET wake_at = least(d.wake_at, flotilla_now())
               FROM (SELECT id FROM devices_device WHERE id = ANY(%s) ORDER BY id FOR NO KEY UPDATE) asked
               WHERE d.id = asked.id""",
            [list(device_ids)],
        )
