"""A releaser that has lost its manners: it does not look whether a lane is free. Only the unique index stops it."""

from __future__ import annotations

import threading
from contextlib import suppress
from typing import Final

from django.db import IntegrityError, connection, transaction

from config.chaos.away import Away, ask
from messaging.dispatch.publish import Released, publish

LOOK_SECONDS: Final = 0.1

# The next message of each device that is busy with another one.
_NEXT = """
SELECT DISTINCT ON (p.device_id) p.id, p.device_id, f.lane
FROM messaging_message f
JOIN devices_device d ON d.id = f.device_id AND d.lanes = 1
JOIN messaging_message p ON p.device_id = f.device_id AND p.state = 'pending' AND p.due_at <= now()
WHERE f.state IN ('queued', 'sending')
ORDER BY p.device_id, p.due_at, p.id
LIMIT 50
"""
_TAKE = """
UPDATE messaging_message SET state = 'queued', lane = %s, release_no = release_no + 1, queued_at = now()
WHERE id = %s AND state = 'pending' RETURNING release_no
"""


class Rogue(threading.Thread):
    """Releases into lanes that are taken, until :meth:`end`."""

    def __init__(self) -> None:
        super().__init__(name="rogue", daemon=True)
        self._ending = threading.Event()
        self.refused = 0
        self.released: set[int] = set()

    def end(self) -> None:
        """No more."""
        self._ending.set()

    def run(self) -> None:
        """Try again and again. A database that is away only makes it wait."""
        try:
            while not self._ending.wait(LOOK_SECONDS):
                with suppress(Away):
                    publish(ask(self._release))
        finally:
            connection.close()

    def _release(self) -> list[Released]:
        with connection.cursor() as cursor:
            cursor.execute(_NEXT)
            found = cursor.fetchall()
        done = []
        for message, device, lane in found:
            try:
                with transaction.atomic(), connection.cursor() as cursor:
                    cursor.execute(_TAKE, [lane, message])
                    row = cursor.fetchone()
            except IntegrityError:
                self.refused += 1
                continue
            if row:  # the other one had just ended: then nothing is wrong with it
                done.append(Released(message_id=message, device_id=device, release_no=row[0]))
        self.released.update(item.message_id for item in done)
        return done
