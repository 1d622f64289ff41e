"""Making the demo's owner and everything that belongs to them, in one transaction that nobody sees half of."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from django.contrib.auth.models import Group, User
from django.db import transaction

from campaigns import running
from campaigns import services as campaigns
from campaigns.models import Campaign, Routing, Run
from campaigns.states import RunState
from config.models import DemoData
from devices.access import Role
from devices.gateways.news import Reply
from devices.models import Device, Pool
from leads import arriving as arriving_leads
from leads import optout
from leads.imports import LeadRow
from leads.models import ConsentEvent, Lead, LeadStatus, Segment
from messaging import inbound, rehearsing
from messaging.models import Message
from sequences import arriving, entry, services
from sequences.models import EnrolmentState, EntrySource, Sequence

DEVICES: Final = ("Harbour desk", "Lighthouse", "North quay", "South quay")
FIRST: Final = ("Aisyah", "Budi", "Chen", "Dewi", "Farid", "Grace", "Hafiz", "Indra", "Jasmin", "Kumar", "Lina", "Mei")
LAST: Final = ("Abdullah", "Santoso", "Wong", "Lestari", "Rahman")
NICHES: Final = ("sailing", "fishing", "diving")
CONSENT: Final = "Demo: agreed at the counter"
ANSWERS: Final = ("Tell me more", "How much is it?", "Yes, please call me", "Is it still there on Sunday?")
TEXT: Final = "Hello {{ first_name }}, our autumn catalogue is out. Reply STOP and we will not write again."
STEPS: Final = (
    (0, "Welcome aboard, {{ first_name }}! Is there anything you would like to know?"),
    (24 * 60, "{{ first_name }}, our advice costs nothing. Shall we call you?"),
    (72 * 60, "We will not write again, {{ first_name }}. Our door stays open."),
)


class DemoThere(Exception):  # noqa: N818 - reads as a fact
    """There is demo data already."""


@dataclass(frozen=True, slots=True)
class Added:
    """What was made."""

    owner: str
    devices: int
    leads: int
    messages: int
    replies: int


def add(*, now: datetime) -> Added:
    """Everything, or nothing. Raises DemoThere."""
    with transaction.atomic():
        owner = _owner()
        devices = _devices(owner)
        leads = _leads(owner, devices, now=now)
        messages = _past_campaign(owner, devices[0].pool, begin=now - timedelta(days=6))
        Campaign.objects.create(
            owner=owner,
            name="Spring regatta (draft)",
            text="{{ first_name }}, the regatta is on Saturday. Shall we keep a seat for you?",
            niches=["sailing"],
            routing=Routing.POOLED,
            pool=devices[0].pool,
        )
        Segment.objects.create(
            owner=owner, name="Customers who sail", rules={"status": "customer", "niches_any": ["sailing"]}
        )
        replies = _replies(owner, now=now)
        _sequence(owner, leads, now=now)
        return Added(owner.username, len(devices), len(leads), messages, replies)


def _owner() -> User:
    """Somebody who cannot log in, under a name that nobody has."""
    if DemoData.objects.select_for_update().exists():
        raise DemoThere("There is demo data already: “demo_data remove” takes it away.")
    name, number = "demo", 1
    while User.objects.filter(username=name).exists():
        number += 1
        name = f"demo-{number}"
    owner = User(username=name, first_name="Demo", last_name="Harbour Shop", is_staff=True)
    owner.set_unusable_password()
    owner.save()
    owner.groups.add(Group.objects.get(name=Role.STAFF))
    DemoData.objects.create(owner=owner)
    return owner


def _devices(owner: User) -> list[Device]:
    pool = Pool.objects.create(owner=owner, name="Demo harbour")
    return [
        Device.objects.create(
            owner=owner,
            pool=pool,
            name=name,
            gateway="simulator",
            credentials={"token": f"demo-data-{owner.pk}-{number}"},
            delay_min_seconds=10,
            delay_max_seconds=30,
        )
        for number, name in enumerate(DEVICES)
    ]


def _leads(owner: User, devices: list[Device], *, now: datetime) -> list[Lead]:
    """Sixty people. No message ever leaves for them: the simulator is the gateway."""
    names = [f"{first} {last}" for last in LAST for first in FIRST]
    for turn, device in enumerate(devices):
        rows = [
            LeadRow(
                row_number=number,
                phone=f"+6010000{number:04d}",
                name=name,
                status=LeadStatus.CUSTOMER if number % 3 == 0 else LeadStatus.PROSPECT,
                niches=(NICHES[number % len(NICHES)],),
                custom={"boat": "dinghy" if number % 2 else "ketch"},
            )
            for number, name in enumerate(names)
            if number % len(devices) == turn
        ]
        arriving_leads.take_in(
            owner_id=owner.pk, rows=rows, device_id=device.pk, consent_source=CONSENT, note="", by_id=owner.pk, now=now
        )
    leads = list(Lead.objects.filter(owner=owner).order_by("pk"))
    for lead in leads[-2:]:
        optout.opt_out(lead=lead, channel=ConsentEvent.Channel.REPLY, source="STOP", now=now)
    return leads


def _past_campaign(owner: User, pool: Pool | None, *, begin: datetime) -> int:
    campaign = Campaign.objects.create(
        owner=owner, name="Autumn catalogue", text=TEXT, routing=Routing.POOLED, pool=pool, created_at=begin
    )
    run = campaigns.launch(campaign=campaign, now=begin).run
    running.trigger(run_id=run.pk, now=begin)
    run.refresh_from_db()
    if run.batch is None:
        raise AssertionError(f"the demo's run did not start: {run.reason}")
    span = timedelta(hours=52)
    messages = rehearsing.play(batch=run.batch, begin=begin, span=span)
    ended = {"state": RunState.FINISHED, "assigned_at": begin, "finished_at": begin + span}
    Run.objects.filter(pk=run.pk, state=RunState.TRIGGERED).update(**ended)
    return messages


def _replies(owner: User, *, now: datetime) -> int:
    """Some of those who read it answered, days ago."""
    read = Message.objects.filter(batch__owner=owner, state="read").select_related("lead").order_by("pk")
    found = [
        Reply(
            event_id=f"demo-{owner.pk}-{message.pk}",
            device_id=message.device_id,
            phone=message.phone,
            text=ANSWERS[number % len(ANSWERS)],
            at=(message.read_at or now) + timedelta(minutes=4),
        )
        for number, message in enumerate(read[: 3 * len(ANSWERS)])
    ]
    return len(inbound.store_replies(gateway="simulator", replies=found, now=now))


def _sequence(owner: User, leads: list[Lead], *, now: datetime) -> None:
    """Active once, with people at its beginning and at its end; paused, so that nothing leaves by itself."""
    sequence = Sequence.objects.create(owner=owner, name="Welcome aboard", trigger="demo-welcome")
    for position, (minutes, text) in enumerate(STEPS, start=1):
        sequence.steps.create(position=position, text=text, delay_minutes=minutes)
    services.activate(sequence=sequence, by=None, now=now)
    through = {lead.pk: (EnrolmentState.COMPLETED, "") for lead in leads[:8]}
    arriving.note_earlier(sequence=sequence, leads=through, now=now - timedelta(days=1))
    entering = Lead.objects.filter(pk__in=[lead.pk for lead in leads[8:20]])
    entry.enrol(sequence=sequence, leads=entering, source=EntrySource.HAND, now=now)
    services.pause(sequence=sequence)
