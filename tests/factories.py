"""Rows for tests, made the way the product makes them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count
from typing import Any

from django.contrib.auth.models import Group, User
from django.utils import timezone

from campaigns.models import Campaign, Routing
from devices.models import Device, Pool
from leads.audience import Audience
from leads.models import Lead
from messaging import fanout, services
from messaging.models import Batch, Message

_numbers = count(1)


def make_user(*, role: str = "staff", **fields: Any) -> User:
    """A user with one of the four roles."""
    user = User.objects.create_user(username=fields.pop("username", f"user{next(_numbers)}"), is_staff=True, **fields)
    user.groups.add(Group.objects.get_or_create(name=role)[0])
    return user


def make_device(*, owner: User, **fields: Any) -> Device:
    """A simulator device without pacing or caps, unless asked for."""
    number = next(_numbers)
    defaults: dict[str, Any] = {
        "name": f"device {number}",
        "gateway": "simulator",
        "credentials": {"token": f"sim-{number}"},
        "delay_min_seconds": 0,
        "delay_max_seconds": 0,
        "cap_per_day": None,
    }
    return Device.objects.create(owner=owner, **{**defaults, **fields})


def make_pool(*, owner: User, devices: int, **fields: Any) -> tuple[Pool, list[Device]]:
    """A pool and its devices."""
    pool = Pool.objects.create(owner=owner, name=f"pool {next(_numbers)}")
    return pool, [make_device(owner=owner, pool=pool, **fields) for _ in range(devices)]


def make_leads(number: int, *, owner: User, **fields: Any) -> list[Lead]:
    """Leads with consent and consecutive Malaysian numbers."""
    defaults: dict[str, Any] = {"consent_at": timezone.now(), "consent_source": "test"}
    rows = []
    for _ in range(number):
        n = next(_numbers)
        rows.append(Lead(owner=owner, phone=f"+6012{n:07d}", name=f"Lead {n}", **{**defaults, **fields}))
    return Lead.objects.bulk_create(rows)


def make_batch(
    *, owner: User, devices: Sequence[Device], leads: int = 1, text: str = "Hello {{ name }}", **fields: Any
) -> Batch:
    """A filled batch whose leads go to ``devices`` turn by turn."""
    people = make_leads(leads, owner=owner)
    batch = services.open_batch(
        owner=owner,
        name=f"batch {next(_numbers)}",
        content={"type": "text", "text": text},
        now=timezone.now(),
        **fields,
    )
    fanout.fill(
        batch_id=batch.pk,
        leads=Audience(owner_id=owner.pk).reachable().filter(pk__in=[lead.pk for lead in people]),
        devices=[device.pk for device in devices],
    )
    batch.refresh_from_db()
    return batch


def make_campaign(*, owner: User, pool: Pool | None = None, **fields: Any) -> Campaign:
    """A campaign that can be launched; pooled if a pool is given."""
    defaults: dict[str, Any] = {
        "name": f"campaign {next(_numbers)}",
        "text": "Hello {{ name }}",
        "routing": Routing.POOLED if pool else Routing.OWN,
        "delay_min_seconds": 0,
        "delay_max_seconds": 0,
    }
    return Campaign.objects.create(owner=owner, pool=pool, **{**defaults, **fields})


def messages_of(batch: Batch) -> list[Message]:
    """The batch's messages in the order they were made."""
    return list(Message.objects.filter(batch=batch).order_by("pk"))
