"""What neonize's events mean: receipts, replies and news of the device.

Events are protobuf messages, told apart by their type's name, so that nothing of the library is imported here. An enum
that is not set reads as its first value, so each is asked for with HasField (proto2). A server-error receipt has no
type: read without that care it would count as delivered. What it does mean is not documented; it also comes when a
phone could not load an attachment, so it proves no failure either, and a failure may be sent again by hand.
"""

from __future__ import annotations

import hashlib
import re
from datetime import UTC, datetime, timedelta
from typing import Any

from devices.gateways.news import DeviceEvent, DeviceStatus, Receipt, ReceiptStatus, Reply

USERS = "s.whatsapp.net"
_FULL_JID = re.compile(r"(?P<user>\d{5,20})(?:\.(?P<agent>\d{1,3}))?(?::(?P<device>\d{1,5}))?@(?P<server>[a-z.]+)\Z")

_DELIVERED, _READ, _PLAYED = 1, 4, 6
_RECEIPTS: dict[int, ReceiptStatus] = {_DELIVERED: "delivered", _READ: "read", _PLAYED: "read"}
_BANS = {
    1: "it wrote to too many people who do not know it",
    2: "too many people blocked it",
    3: "it made too many groups",
    4: "it sent the same message too often",
    5: "it sent too much to broadcast lists",
}
_TEMPORARILY_BANNED = 3
_OUTDATED = "The library is too old for WhatsApp's servers; the link to the phone stays."

OUTDATED = "The library is too old for WhatsApp's servers; the link to the phone stays."
UNLINKED = "It was unlinked from its phone."
BANNED_FOR_GOOD = "WhatsApp banned this account."
REPLACED = "Another program took its session over."


def receipts_of(event: Any) -> tuple[Receipt, ...]:
    """A ``Receipt`` event as one piece of news for each message it names.

    Receipts of our own other devices, retries and whatever else does not speak of the recipient's phone say nothing.
    """
    status = _RECEIPTS.get(event.Type) if event.HasField("Type") else None
    if status is None or event.MessageSource.IsFromMe:
        return ()
    at = datetime.fromtimestamp(event.Timestamp, UTC)
    return tuple(
        Receipt(event_id=f"{status}:{sent_id}", status=status, at=at, external_id=sent_id)
        for sent_id in event.MessageIDs
        if sent_id
    )


def replies_of(event: Any) -> tuple[Reply, ...]:
    """A ``Message`` event as a reply, if a person wrote to this device. ``Info.Timestamp`` is in milliseconds."""
    info = event.Info
    source = info.MessageSource
    phone = _phone_of(source)
    if source.IsFromMe or source.IsGroup or event.IsEdit or phone is None or not info.ID:
        return ()
    return (
        Reply(
            event_id=f"message:{hashlib.sha256(f'{phone}:{info.ID}'.encode()).hexdigest()[:32]}",
            phone=phone,
            text=_text_of(event.Message),
            at=datetime.fromtimestamp(info.Timestamp / 1000, UTC),
            external_id=info.ID,
        ),
    )


def device_event_of(event: Any, *, device_id: int, now: datetime) -> DeviceEvent | None:
    """What an event says about the device itself; None if nothing that anybody must know."""
    found = _status_of(event)
    if found is None:
        return None
    status, code, text = found
    # No event has an id of its own, and none is told twice: the moment makes one.
    return DeviceEvent(
        event_id=f"{device_id}:{status}:{now.isoformat()}",
        status=status,
        at=now,
        device_id=device_id,
        code=code,
        text=text,
    )


def _status_of(event: Any) -> tuple[DeviceStatus, str, str] | None:
    """Status, code and words of an event about the device."""
    match event.DESCRIPTOR.name:
        case "Connected":
            return "connected", "", ""
        case "LoggedOut" if is_ban(event):
            return "banned", "banned", BANNED_FOR_GOOD
        case "LoggedOut":
            return "logged_out", failure_code(event) if event.HasField("Reason") else "logged_out", UNLINKED
        case "StreamReplaced":
            return "replaced", "replaced", REPLACED
        case "TemporaryBan":
            return "banned", "banned", ban_text(event)
        case "ConnectFailure":
            return "disconnected", failure_code(event), failure_text(event)
        case "ClientOutdated":
            return "disconnected", "outdated", OUTDATED
        case _:
            return None


def ban_text(event: Any) -> str:
    """Why a ``TemporaryBan`` came and how long it lasts, in words."""
    why = _BANS.get(event.Code, "no reason was given") if event.HasField("Code") else "no reason was given"
    return f"WhatsApp banned this device for {timedelta(seconds=max(0, int(event.Expire)))}: {why}."


def failure_code(event: Any) -> str:
    """A stable code for a ``ConnectFailure``; the enum's first value also stands for "not set"."""
    return f"refused_{event.Reason}" if event.HasField("Reason") else "refused"


def failure_text(event: Any) -> str:
    """A ``ConnectFailure`` in words."""
    if event.HasField("Reason") and event.Reason == _OUTDATED:
        return OUTDATED
    return "WhatsApp's servers refused the connection."


def is_ban(event: Any) -> bool:
    """Whether a ``LoggedOut`` or ``ConnectFailure`` says that the account is banned."""
    return bool(event.HasField("Reason") and event.Reason == _TEMPORARILY_BANNED)


def phone_of_jid(jid: str) -> str:
    """The number behind a stored identity ``user:device@server``, in E.164; empty if it has none."""
    found = _FULL_JID.match(jid)
    return f"+{found['user']}" if found and found["server"] == USERS else ""


def parts_of_jid(jid: str) -> dict[str, Any] | None:
    """A stored identity as the fields of the library's JID, all of them; None if it is none.

    One without a device number matches no stored row, so it is no identity either.
    """
    found = _FULL_JID.match(jid)
    if found is None or not found["device"]:
        return None
    return {
        "User": found["user"],
        "RawAgent": int(found["agent"] or 0),
        "Device": int(found["device"]),
        "Integrator": 0,
        "Server": found["server"],
        "IsEmpty": False,
    }


def text_of_jid(jid: Any) -> str:
    """The library's JID as the store writes it: ``user.agent:device@server``."""
    agent = f".{jid.RawAgent}" if jid.RawAgent else ""
    device = f":{jid.Device}" if jid.Device else ""
    return f"{jid.User}{agent}{device}@{jid.Server}"


def _phone_of(source: Any) -> str | None:
    """The sender's number: WhatsApp often shows a hidden identity (``lid``), and the number beside it."""
    for jid in (source.Sender, source.SenderAlt):
        if jid.Server == USERS and jid.User.isdecimal():
            return f"+{jid.User}"
    return None


def _text_of(message: Any) -> str:
    """What a person wrote, or the caption of what they sent; empty for a picture without words."""
    for text in (
        message.conversation,
        message.extendedTextMessage.text,
        message.imageMessage.caption,
        message.videoMessage.caption,
        message.documentMessage.caption,
        message.buttonsResponseMessage.selectedDisplayText,
        message.listResponseMessage.title,
        message.templateButtonReplyMessage.selectedDisplayText,
    ):
        if text:
            return str(text)
    return ""
