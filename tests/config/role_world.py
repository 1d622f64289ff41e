"""One row of everything that has an address, and the people who ask for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from django.contrib.auth.models import Group, User
from django.utils import timezone

from config.token_models import ApiToken
from devices.models import Device, DeviceShare
from leads.models import ConsentWaiver
from messaging import halting
from messaging.models import InboundMessage
from tests.config.test_api_visibility import RESOURCES
from tests.factories import make_device, make_leads, make_user

PEOPLE = ("anonymous", "roleless", "ops", "team", "team_shared", "staff", "staff_shared", "owner", "admin")
"""Each role, and what they have to do with the rows: nothing, their device is shared with them, they own them."""


@dataclass(frozen=True)
class World:
    """``rows`` holds a row's key by the name it goes by in addresses: ``device`` in both the admin and the API."""

    owner: User
    device: Device
    rows: dict[str, Any]


def build() -> World:
    """All of it belongs to one person, and hangs on one device where it hangs on any."""
    owner = make_user()
    device = make_device(owner=owner)
    rows = {name: RESOURCES[name].make(owner, device).pk for name in RESOURCES}
    now = timezone.now()
    lead, twin = make_leads(2, owner=owner, device=device)
    waiver = ConsentWaiver.objects.create(owner=owner, made_by=owner, reason="they asked")
    said = InboundMessage.objects.create(
        gateway="simulator", event_id="in-1", device=device, lead=lead, phone=lead.phone, text="hi",
        written_at=now, received_at=now,
    )  # fmt: skip
    token, _ = ApiToken.objects.create(user=owner)
    rows |= {
        "lead": lead.pk,
        "twin": twin.pk,
        "waiver": waiver.pk,
        "reply": said.pk,
        "batch": rows["batches"],
        "halt": halting.halt(now=now, by=owner, reason="test").pk,
        "user": owner.pk,
        "group": Group.objects.get_or_create(name="ops")[0].pk,
        "token": token.pk,
        "tokens": token.public_id,
    }
    return World(owner, device, rows)


def person(name: str, world: World) -> User | None:
    """The user behind one of :data:`PEOPLE`."""
    if name == "anonymous":
        return None
    if name == "owner":
        return world.owner
    role = {"roleless": "nobody-in-particular"}.get(name, name.partition("_")[0])
    user = make_user(role=role)
    if name.endswith("_shared"):
        DeviceShare.objects.create(device=world.device, user=user)
    return user
