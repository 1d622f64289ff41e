"""What a person can do about a device that needs attention, by the codes that mean the same for every gateway."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

MAX_TEXT = 300

REMEDIES: Final[Mapping[str, str]] = {
    "logged_out": "Pair it again.",
    "not_paired": "Pair it.",
    "unknown_device": "Check its credentials, or pair it again.",
    "replaced": "Another program uses its session: end that one, then refresh this device.",
    "banned": "See on the phone what it says, and appeal there. Its messages wait, or move by your decision.",
    "outdated": "Update the gateway's library, then refresh this device.",
    "unreachable": "Check its connection or proxy, then refresh it, or reconnect all at once.",
    "brought_host_down": "Clear its session and pair it again; resume it to try the old one once more.",
    "secrets_unreadable": "Put the old key back into FLOTILLA_FIELD_KEYS, or enter the credentials again.",
}


def worded(*, code: str, text: str, banned: bool = False) -> str:
    """The reason with the remedy, as it is stored with the device."""
    remedy = REMEDIES.get("banned" if banned else code, "Mend it, then refresh the device.")
    if remedy in text:
        return text[:MAX_TEXT]
    reason = text.strip()[: MAX_TEXT - len(remedy) - 2]
    return f"{reason}{'' if reason.endswith(('.', '!', '?')) else '.'} {remedy}" if reason else remedy
