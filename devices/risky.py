"""Who brings session hosts down: written before each native call that may abort the process, cleared after it.

The row survives the process. Whoever comes to the same device next finds it still set and counts a death. Two deaths in
a row, without a session opened in peace in between, set the device aside.
"""

from __future__ import annotations

from uuid import UUID, uuid4

from django.db import connection
from django.db.models import QuerySet

from devices.models import Device
from devices.session_models import RiskyCall

MOST_DEATHS = 2

PROCESS: UUID = uuid4()
"""This process, whatever leases it has had."""

# No process: no call was under way, and nobody died.
_BEGIN = """
INSERT INTO devices_riskycall AS r (device_id, process, call, since, deaths)
VALUES (%(device)s, %(process)s, left(%(call)s, 60), clock_timestamp(), 0)
ON CONFLICT (device_id) DO UPDATE
SET deaths = r.deaths + coalesce((r.process <> EXCLUDED.process)::int, 0), process = EXCLUDED.process,
    call = EXCLUDED.call, since = EXCLUDED.since
RETURNING deaths
"""
_END = """
UPDATE devices_riskycall SET process = NULL, deaths = CASE WHEN %(peace)s THEN 0 ELSE deaths END
WHERE device_id = %(device)s AND process = %(process)s
"""


def begin(*, device_id: int, call: str, process: UUID = PROCESS) -> int:
    """Write down what is about to be done. Returns how many processes have died of this device in a row."""
    with connection.cursor() as cursor:
        cursor.execute(_BEGIN, {"device": device_id, "call": call, "process": process})
        return int(cursor.fetchone()[0])


def end(*, device_id: int, peace: bool = False, process: UUID = PROCESS) -> None:
    """It came back. ``peace``: the session is open, so whatever died before was not its fault."""
    with connection.cursor() as cursor:
        cursor.execute(_END, {"device": device_id, "process": process, "peace": peace})


def deaths(*, device_id: int) -> int:
    """Deaths counted so far, with one that nobody has counted yet."""
    row = RiskyCall.objects.filter(pk=device_id).first()
    return 0 if row is None else row.deaths + (row.process is not None and row.process != PROCESS)


def forgive(*, devices: QuerySet[Device]) -> None:
    """Start afresh: somebody wants them tried again. A call that is under way right now keeps its marker.

    Until then whatever comes to a device that was set aside is refused, also what was waiting for the same connection.
    """
    RiskyCall.objects.filter(device__in=devices, process__isnull=True).delete()
