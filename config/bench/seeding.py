"""Rows for benches, made set-based.

:func:`clear` empties tables: it is only ever called on a database that belongs to the bench.
"""

from __future__ import annotations

from collections.abc import Sequence

from django.contrib.auth.models import User
from django.db import connection

from devices.models import Device, Pool

TEXT = "Hello {{ first_name or 'there' }}, our autumn catalogue is out. Reply STOP and we will not write again."


def clear() -> None:
    """Forget every device, lead and message."""
    with connection.cursor() as cursor:
        cursor.execute("TRUNCATE devices_device, devices_pool, leads_lead, messaging_batch RESTART IDENTITY CASCADE")


def clear_messages() -> None:
    """Forget every message, and the moments at which devices sent; devices and leads stay."""
    with connection.cursor() as cursor:
        cursor.execute("TRUNCATE messaging_batch RESTART IDENTITY CASCADE")
        cursor.execute("UPDATE devices_device SET wake_at = NULL, next_send_at = NULL, last_sent_at = NULL")


def settle() -> None:
    """Statistics, and nothing left over for autovacuum or a checkpoint to do in the middle of a measurement."""
    with connection.cursor() as cursor:
        cursor.execute("VACUUM (ANALYZE) devices_device, leads_lead, messaging_batch, messaging_stream")
        cursor.execute("VACUUM (ANALYZE) messaging_message, messaging_attempt")
        cursor.execute("CHECKPOINT")


def make_owner() -> User:
    """Whom everything belongs to."""
    return User.objects.get_or_create(username="bench")[0]


def make_fleet(
    *, owner: User, number: int, lanes: int = 1, delay_min_seconds: float = 0, delay_max_seconds: float = 0
) -> tuple[Pool, list[Device]]:
    """A pool of simulated devices without caps."""
    pool = Pool.objects.create(owner=owner, name="Bench fleet")
    devices = [
        Device(
            owner=owner,
            pool=pool,
            name=f"Bench {n:06d}",
            gateway="simulator",
            credentials={"token": token(n)},
            lanes=lanes,
            delay_min_seconds=delay_min_seconds,
            delay_max_seconds=delay_max_seconds,
            cap_per_day=None,
            warm_up=False,
        )
        for n in range(number)
    ]
    return pool, Device.objects.bulk_create(devices, batch_size=1000)


def token(number: int) -> str:
    """What the simulator knows device ``number`` of the fleet by."""
    return f"bench-{number}"


def make_leads(*, owner: User, number: int) -> None:
    """Leads who agreed, with consecutive numbers."""
    with connection.cursor() as cursor:
        cursor.execute(
            """INSERT INTO leads_lead (owner_id, phone, name, status, niches, triggers, notes, custom, consent_at,
                                       consent_source, created_at, updated_at)
               SELECT %s, '+6012' || lpad(n::text, 7, '0'), 'Lead ' || n, 'prospect', '{}', '{}', '', '{}', now(),
                      'bench', now(), now()
               FROM generate_series(0, %s - 1) n""",
            [owner.pk, number],
        )


def spread_starts(*, devices: Sequence[Device], after_seconds: float, within_seconds: float) -> None:
    """Let each device have sent something lately: its next moment lies anywhere in that time."""
    with connection.cursor() as cursor:
        cursor.execute(
            """UPDATE devices_device SET next_send_at = now() + make_interval(secs => %s + random() * %s)
               WHERE id = ANY(%s)""",
            [after_seconds, within_seconds, [device.pk for device in devices]],
        )
