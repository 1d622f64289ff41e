"""The demo's cast: the first admin, a fleet of simulated devices, a campaign. Found again on a second run."""

from __future__ import annotations

from dataclasses import dataclass

from django.contrib.auth.models import User
from django.db import transaction
from django.utils import timezone

from campaigns.models import Campaign, Routing
from devices.models import Device, Pool

POOL = "Demo fleet"

TEXT = """Hello {{ first_name or 'there' }},
our autumn catalogue is out. Reply STOP and we will not write again."""

FAULTS: list[dict[str, object]] = [
    {"fault": "reject", "code": "not_on_whatsapp", "text": "This number is not on WhatsApp.", "phone_prefix": "+8190"},
    {"fault": "latency", "min_seconds": 0.01, "max_seconds": 0.08},
    {"fault": "throttle", "retry_after_seconds": 1, "probability": 0.02, "seed": 1},
    {"fault": "error", "status": 503, "phase": "before", "probability": 0.02, "seed": 2},
    {"fault": "reset", "phase": "after", "probability": 0.02, "seed": 3},
]
"""A gateway on an ordinary day: slow, now and then busy, now and then cutting the line after it took the message."""


@dataclass(frozen=True, slots=True)
class Cast:
    """Who plays."""

    owner: User
    pool: Pool
    devices: list[Device]


def make_cast(*, devices: int) -> Cast:
    """The first admin and a pool of ``devices`` simulated devices, from quick to leisurely."""
    with transaction.atomic():
        owner = User.objects.filter(is_superuser=True).earliest("pk")
        pool, _ = Pool.objects.get_or_create(owner=owner, name=POOL)
        known = set(Device.objects.filter(owner=owner, pool=pool).values_list("name", flat=True))
        for number in range(1, devices + 1):
            name = f"Demo {number:03d}"
            if name not in known:
                pace = 0.1 + 0.9 * (number % 10) / 9
                Device.objects.create(
                    owner=owner,
                    pool=pool,
                    name=name,
                    gateway="simulator",
                    credentials={"token": f"demo-{number}"},
                    delay_min_seconds=round(pace, 2),
                    delay_max_seconds=round(2 * pace, 2),
                    cap_per_day=None,
                )
        fleet = list(Device.objects.filter(owner=owner, pool=pool).order_by("pk")[:devices])
        return Cast(owner=owner, pool=pool, devices=fleet)


def make_campaign(*, cast: Cast) -> Campaign:
    """A campaign to everybody who agreed, turn by turn over the fleet, as fast as the devices allow."""
    return Campaign.objects.create(
        owner=cast.owner,
        name=f"Autumn catalogue {timezone.localtime():%Y-%m-%d %H:%M:%S}",
        text=TEXT,
        routing=Routing.POOLED,
        pool=cast.pool,
        delay_min_seconds=0,
        delay_max_seconds=0,
    )
