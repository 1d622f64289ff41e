"""Users and devices, and the sessions that devices send by."""

from __future__ import annotations

from typing import Final

from django.contrib.auth.models import Group, User
from django.core.exceptions import ValidationError
from django.db import transaction

from config.legacy.move import WOULD, Move, first_problem
from config.legacy.words import Row, Unreadable, delays_of, text_of, user_of
from devices import adopting
from devices.access import Role
from devices.adopting import CannotAdopt
from devices.models import Device, DeviceState
from devices.pairing import JID
from devices.secrets import Secrets
from leads.phones import PhoneProblem, parse_phone

USERS, DEVICES = "users", "user_devices"
SESSION: Final = "whatsapp"
PLATFORMS: Final = {"wablas": ("wablas", "token"), "whacenter": ("whacenter", "device_id")}
"""Their platforms: the gateway here, and which credential their column ``jid`` holds."""
_NAME_LENGTH: Final = 100


class StillRunning(Exception):  # noqa: N818 - reads as a fact
    """The old process holds sessions, or may: nothing of them is touched."""


# -- Users -------------------------------------------------------------------------------------------------------------


def take_users(move: Move) -> None:
    """Who is here by e-mail stays; the others come without a password, since what is stored there is none to trust."""
    if move.owner is not None:
        return
    move.each(USERS, ("email", "full_name", "is_active"), _take_user)


def _take_user(move: Move, old_id: str, row: Row) -> None:
    email = text_of(row, "email")
    if not email:
        raise Unreadable("email", "required", "Nobody can be told apart without an e-mail address: fill it in there.")
    here = list(User.objects.filter(email__iexact=email).order_by("pk")[:2])
    if len(here) > 1:
        raise Unreadable("email", "ambiguous", "Several users here have this address: leave it to one of them.")
    name = text_of(row, "full_name")
    user = here[0] if here else User(username=email[:150], email=email, first_name=name[:150], is_staff=True)
    if not here:
        user.is_active = row.get("is_active") is not False
        user.set_unusable_password()
        try:
            user.full_clean(exclude=["password"])
        except ValidationError as error:
            raise first_problem(error) from None
    if not move.dry_run:
        with transaction.atomic():
            if not here:
                user.save()
                user.groups.add(Group.objects.get(name=Role.STAFF))
            move.keep(USERS, old_id, user)
    move.taken(USERS, old_id, user.pk or WOULD)
    if not here:
        move.to_do(USERS, old_id, "password_hash", "password", "Passwords are not taken: set one on the user's page.")


def owner_of(move: Move, row: Row) -> int:
    """Whose row it is here; :data:`WOULD` for a user whom a dry run did not make. Raises Unreadable."""
    if move.owner is not None:
        return move.owner.pk
    old_id = text_of(row, "user_id")
    if old_id not in move.known(USERS):
        text = "Its user has not come over: mend that one there and move over again, or give everything to --owner."
        raise Unreadable("user_id", "no_user", text)
    return move.known(USERS)[old_id]


# -- Devices -----------------------------------------------------------------------------------------------------------


def take_devices(move: Move) -> None:
    """Each as what it sends by here. Sessions are :func:`adopt_sessions`' business."""
    columns = ("user_id", "device_name", "phone", "jid", "min_delay_seconds", "max_delay_seconds", "platform")
    move.each(DEVICES, columns, _take_device)


def _take_device(move: Move, old_id: str, row: Row) -> None:
    platform = text_of(row, "platform").lower()
    if platform and platform not in PLATFORMS:
        text = f"Its platform “{platform[:40]}” has no gateway here by that name: make the device by hand."
        raise Unreadable("platform", "unknown_platform", text)
    owner_id = owner_of(move, row)
    device = Device(owner_id=owner_id or move.by.pk, gateway=SESSION, phone=_phone(move, old_id, row))
    if platform:
        device.gateway, field = PLATFORMS[platform]
        device.credentials = Secrets({field: token} if (token := text_of(row, "jid")) else {})
        device.base_url = move.addresses.get(device.gateway, "")
    device.name = _free_name(move, old_id, owner_id, text_of(row, "device_name"))
    device.delay_min_seconds, device.delay_max_seconds = delays_of(row, least=5, most=15)
    lacks = _lacking(device)
    if lacks:
        device.state, device.state_reason = DeviceState.NEEDS_ATTENTION, " ".join(lacks.values())[:300]
    if not move.dry_run:
        with transaction.atomic():
            device.save()
            move.keep(DEVICES, old_id, device)
    move.taken(DEVICES, old_id, device.pk or WOULD)
    for field, text in lacks.items():
        move.to_do(DEVICES, old_id, "jid" if field == "credentials" else "platform", "incomplete", text)


_ENTERED_LATER: Final = frozenset({"credentials", "base_url"})


def _lacking(device: Device) -> dict[str, str]:
    """What a person has to enter before it can send, by field. Raises Unreadable for what else is wrong with it."""
    try:
        device.full_clean(exclude=["owner"])
    except ValidationError as error:
        if set(error.message_dict) - _ENTERED_LATER:
            raise first_problem(error) from None
        return {field: " ".join(texts) for field, texts in error.message_dict.items()}
    return {}


def _phone(move: Move, old_id: str, row: Row) -> str:
    said = text_of(row, "phone")
    try:
        return parse_phone(said, region=move.region) if said else ""
    except PhoneProblem as problem:
        move.changed(DEVICES, old_id, "phone", problem.code, f"Its own number was left out. {problem.text}")
        return ""


def _free_name(move: Move, old_id: str, owner_id: int, wanted: str) -> str:
    base = " ".join(wanted.split())[:_NAME_LENGTH] or f"Device {old_id}"[:_NAME_LENGTH]
    name, number = base, 1
    while Device.objects.filter(owner_id=owner_id, name=name).exists():
        number += 1
        name = f"{base[: _NAME_LENGTH - 6]} ({number})"
    if name != wanted:
        move.changed(DEVICES, old_id, "device_name", "renamed", f"It is called “{name}” here: names are told apart.")
    return name


# -- Sessions ----------------------------------------------------------------------------------------------------------


def adopt_sessions(move: Move, *, wanted: bool) -> None:
    """Take the stored sessions of devices that have none here; what cannot be taken is listed to be paired again.

    Raises StillRunning, having changed nothing, while somebody else is connected to the old database.
    """
    waiting = _without_session(move)
    if not waiting:
        return
    if not wanted:
        for old_id, _ in waiting:
            _pair_again(move, old_id, "Sessions were left where they are: pair it on its page.")
        return
    with move.source.connection.cursor() as theirs:
        try:
            plan = adopting.plan(theirs=theirs, schema=move.source.schema)
        except CannotAdopt as reason:
            for old_id, _ in waiting:
                _pair_again(move, old_id, str(reason))
            return
        if not move.dry_run:
            adopting.share(plan=plan, theirs=theirs)
        for old_id, jid in waiting:
            _adopt_one(move, old_id, jid, plan=plan, theirs=theirs)


def refuse_while_running(move: Move) -> None:
    """Raises StillRunning while anybody else is connected to the old database."""
    if visitors := move.source.visitors():
        who = "; ".join(f"pid {v.pid} of {v.user or 'nobody'}, {v.program or 'unnamed'}, {v.address}" for v in visitors)
        raise StillRunning(
            f"Somebody is still connected to the old database ({who}). Stop the old system for good and close every"
            " other connection, since two programs under one WhatsApp session throw each other out; or leave the"
            " sessions with --without-sessions and pair again."
        )


def _without_session(move: Move) -> list[tuple[str, str]]:
    """``(old id, jid)`` of the session devices that have come over and are linked to no phone here."""
    found = []
    mine = move.known(DEVICES)
    linked = {
        device.pk: device
        for device in Device.objects.filter(pk__in=[pk for pk in mine.values() if pk], gateway=SESSION)
    }
    for row in move.source.rows(DEVICES, ("jid", "platform")):
        old_id = str(row["id"])
        if old_id not in mine or text_of(row, "platform"):
            continue
        device = linked.get(mine[old_id])
        if (device is not None and not device.credentials.get(JID)) or mine[old_id] == WOULD:
            found.append((old_id, text_of(row, "jid")))
    return found


def _adopt_one(move: Move, old_id: str, jid: str, *, plan: adopting.Plan, theirs: object) -> None:
    if not jid:
        _pair_again(move, old_id, "It was linked to no phone there either: pair it on its page.")
        return
    if not adopting.stored(jid=jid, plan=plan, theirs=theirs):
        _pair_again(move, old_id, "No session is stored for it there: pair it on its page.")
        return
    if move.dry_run:
        move.report.of("sessions").taken += 1
        return
    refuse_while_running(move)
    device = Device.objects.get(pk=move.known(DEVICES)[old_id])
    try:
        phone = f"+{user_of(jid)}"
        adopting.adopt(device=device, jid=jid, phone=phone, plan=plan, theirs=theirs)
    except CannotAdopt as reason:
        _pair_again(move, old_id, str(reason))
        return
    move.report.of("sessions").taken += 1


def _pair_again(move: Move, old_id: str, text: str) -> None:
    move.to_do(DEVICES, old_id, "jid", "pair_again", text)
