"""What whatsmeow says when a message was not sent, in gateways that hand its words on, and how WhatsApp names people.

Sources: tulir/whatsmeow ``send.go request.go errors.go types/jid.go``. Its errors carry text only. A text that is not
listed proves nothing, so it is unknown.
"""

from __future__ import annotations

import re

from devices.gateways.base import Outcome, Rejected, SessionLost, Temporary, Throttled, Unknown

REST_SECONDS = 300.0
"""After "rate-overlimit", which names no time."""

REACHOUT_REST_SECONDS = 3600.0
"""WhatsApp locks an account's first messages to strangers for hours, and does not say for how long."""

_TEMPORARY = (
    "client is nil",
    "websocket not connected",
    "failed to refresh media connections",
    "upload failed with status code",
    "failed to get user info",
    "failed to get lid for pn",
)
_NOBODY = "no lid found for"
_NO_USER = ("message recipient must be a user jid", "can't send message to unknown server")
_REFUSED = re.compile(r"server returned error ([0-9]{3})")
_JID = re.compile(r"([1-9][0-9]{5,14})(?::[0-9]+)?@(?:s\.whatsapp\.net|c\.us)")


def reach_out_locked() -> Throttled:
    """The outcome of server error 463."""
    text = "WhatsApp lets this account write to no new contacts for a while. People it has written to are not affected."
    return Throttled("463", text, REACHOUT_REST_SECONDS, scope="new_contacts")


def classify(words: str) -> Outcome:
    """The outcome that whatsmeow's error text proves."""
    said = words.casefold()
    if "status 429: rate-overlimit" in said:
        return Throttled("rate_overlimit", "WhatsApp asked for a rest.", REST_SECONDS)
    if found := _REFUSED.search(said):
        return _refused(found[1])
    if any(known in said for known in _TEMPORARY):
        return Temporary("not_connected", "Not sent: the gateway's connection to WhatsApp is down.")
    if "the store doesn't contain a device jid" in said:
        return SessionLost("logged_out", "The device is logged out: pair it with its phone again.")
    if _NOBODY in said:
        return Rejected("not_on_whatsapp", "This number is not on WhatsApp.")
    if any(known in said for known in _NO_USER):
        return Rejected("bad_recipient", "WhatsApp does not send to this kind of recipient.")
    return Unknown("not_confirmed", "The gateway does not know whether WhatsApp took the message.")


def _refused(status: str) -> Outcome:
    """WhatsApp's own server answered, so nothing was delivered."""
    if status == "463":
        return reach_out_locked()
    if status == "429":
        return Throttled("429", "WhatsApp asked for a rest.", REST_SECONDS)
    if status.startswith("5"):
        return Temporary(f"server_{status}", f"Not sent: WhatsApp's server answered with error {status}.")
    return Rejected(f"server_{status}", f"WhatsApp's server refused the message with error {status}.")


def digits(phone: str) -> str:
    """An E.164 number as WhatsApp gateways want it: without the plus."""
    return phone.removeprefix("+")


def phone_of(jid: object) -> str:
    """The number in a person's address, in E.164; empty for groups, hidden numbers (``@lid``) and anything else."""
    found = _JID.fullmatch(jid) if isinstance(jid, str) else None
    return f"+{found[1]}" if found else ""
