"""Deleting a device, a lead or a file: up here, because every app has something that hangs on them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import structlog
from django.contrib.admin.models import DELETION, LogEntry
from django.contrib.auth.models import User
from django.contrib.contenttypes.models import ContentType
from django.db import transaction
from django.db.models import F

from campaigns.models import Campaign, CampaignState
from devices.models import Device
from leads import optout, suppression
from leads.models import Lead
from messaging import removing
from messaging.media import discarding
from messaging.media.models import MediaFile
from messaging.removing import RemovalRefused
from sequences.models import Enrolment, Step, StepVersion

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class DeviceHolds:
    """What hangs on a device. Leads stay, without one, unless they are to go as well."""

    leads: int
    messages: int
    waiting: int
    replies: int


@dataclass(frozen=True, slots=True)
class LeadHolds:
    """What hangs on a lead. Messages and replies stay, the rest goes with it."""

    messages: int
    waiting: int
    replies: int
    enrolments: int
    consent: int
    changes: int


def device_holds(device: Device) -> DeviceHolds:
    """What :func:`delete_device` would take along."""
    told = removing.of_device(device)
    leads = Lead.objects.filter(device=device).count()
    return DeviceHolds(leads=leads, messages=told.messages, waiting=told.waiting, replies=told.replies)


def lead_holds(lead: Lead) -> LeadHolds:
    """What :func:`delete_lead` would take along, and what would stay."""
    told = removing.of_lead(lead)
    return LeadHolds(
        messages=told.messages,
        waiting=told.waiting,
        replies=told.replies,
        enrolments=Enrolment.objects.filter(lead=lead).count(),
        consent=lead.consent_events.count(),
        changes=lead.changes.count(),
    )


def delete_device(*, device: Device, expect: int | None, with_leads: bool, by: User, now: datetime) -> DeviceHolds:
    """Delete the device with its messages, attempts and replies, and its leads if ``with_leads``, in one transaction.

    ``expect`` is how many messages the caller has been told of; a device that has any does not go without. Who refused
    stays suppressed. Lock order: the suppression's door, the device, its leads, messages, streams. Raises
    :class:`RemovalRefused`.
    """
    with transaction.atomic():
        if with_leads:
            suppression.close_door()
        locked = Device.objects.select_for_update().filter(pk=device.pk).first()
        if locked is None:
            raise RemovalRefused("gone", "Somebody has just deleted this device.")
        _refuse_if_chosen(locked)
        told = device_holds(locked)
        if expect != told.messages and not (expect is None and told.messages == 0):
            raise RemovalRefused("changed" if expect is not None else "has_messages", _take_along(told), "expect")
        mine = Lead.objects.filter(device=locked)
        going = list(mine.select_for_update().order_by("pk").values_list("pk", flat=True)) if with_leads else []
        if not with_leads:
            mine.update(device=None)
        removing.remove(device=locked)
        optout.delete_leads(ids=going, owner_id=locked.owner_id, now=now)
        _write_down(locked, told, by)
        locked.delete()
    log.info("device.deleted", device_id=device.pk, by=by.pk, leads=len(going), messages=told.messages)
    return told


def delete_lead(*, lead: Lead, now: datetime) -> LeadHolds:
    """Delete the lead; that it refused is kept. What went, and what stays."""
    with transaction.atomic():
        told = lead_holds(lead)
        optout.delete_lead(lead=lead, now=now)
    return told


def delete_media(*, media: MediaFile, by: User) -> None:
    """Delete the file, unless somebody still means to send it. Raises :class:`RemovalRefused`."""
    with transaction.atomic():
        locked = MediaFile.objects.select_for_update().filter(pk=media.pk).first()
        if locked is None:
            raise RemovalRefused("gone", "Somebody has just deleted this file.")
        user = _user_of(locked)
        if user:
            raise RemovalRefused("in_use", f"{user} names it: choose another file there first.")
        batch = discarding.waiting_with(locked)
        if batch is not None:
            text = f"Messages of “{batch}” wait to be sent with it: let them go out, or cancel them first."
            raise RemovalRefused("in_use", text)
        discarding.discard(media=locked)
    log.info("media.deleted", media_id=media.pk, by=by.pk)


def _user_of(media: MediaFile) -> str:
    """What would send it: a campaign, a step of a sequence as drafted or as in force; empty if nothing."""
    campaign = Campaign.objects.filter(media=media).order_by("pk").first()
    if campaign is not None:
        return f"The campaign “{campaign}”"
    step = Step.objects.filter(media=media).select_related("sequence").order_by("pk").first()
    if step is not None:
        return f"Step {step.position} of the sequence “{step.sequence}”"
    in_force = StepVersion.objects.filter(content__media=media.pk, version=F("version__sequence__version"))
    live = in_force.select_related("version__sequence").order_by("pk").first()
    return f"Step {live.position} in force of the sequence “{live.version.sequence}”" if live is not None else ""


def _refuse_if_chosen(device: Device) -> None:
    """A campaign to the leads of this device would speak to everybody without it."""
    chosen = Campaign.objects.filter(lead_device=device).exclude(state=CampaignState.CANCELLED).order_by("pk").first()
    if chosen is not None:
        text = f"The campaign “{chosen}” speaks to the leads of this device only: change or cancel it first."
        raise RemovalRefused("chosen", text)


def _take_along(told: DeviceHolds) -> str:
    return (
        f"It takes {told.messages:,} messages ({told.waiting:,} of them waiting) and {told.replies:,} replies along,"
        f" and {told.leads:,} leads lose it: repeat with expect={told.messages}."
    )


def _write_down(device: Device, told: DeviceHolds, by: User) -> None:
    LogEntry.objects.create(
        user=by,
        content_type=ContentType.objects.get_for_model(Device),
        object_id=str(device.pk),
        object_repr=str(device)[:200],
        action_flag=DELETION,
        change_message=f"Deleted with {told.messages:,} messages and {told.replies:,} replies.",
    )
