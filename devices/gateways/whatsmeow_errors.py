"""What whatsmeow's error texts mean.

The library and its bridges hand errors over as text only, so this table is all there is to go by. It lists what is
proven to happen before a message leaves, or to be the server's refusal; whatever it does not list may have been sent.
Source of the texts: tulir/whatsmeow send.go, request.go, errors.go, upload.go, store/.
"""

from __future__ import annotations

import re

from devices.gateways.base import Outcome, Rejected, SessionLost, Temporary, Throttled, Unknown

RATE_LIMIT_SECONDS = 600.0
REACH_OUT_SECONDS = 6 * 3600.0
"""Nobody publishes how long these last; a new try after the rest finds out, and costs one refused message."""

_MAX_TEXT = 200
_NUMBER = re.compile(r"\d{6,}")
_SERVER_ERROR = re.compile(r"server returned error (\d+)")

_BEFORE_IT_LEFT: tuple[tuple[str, str, str], ...] = (
    ("client is nil", "not_connected", "the session is not connected"),
    ("websocket not connected", "not_connected", "the session is not connected"),
    ("failed to refresh media connections", "media_servers", "WhatsApp's media servers did not answer"),
    ("upload failed with status code", "upload", "the upload of the attachment was refused for now"),
    ("failed to get user info", "look_up", "the number could not be looked up"),
    ("failed to get LID for PN", "look_up", "the number could not be looked up"),
)
_REFUSED: tuple[tuple[str, str, str], ...] = (
    ("no LID found for", "not_on_whatsapp", "The number is not on WhatsApp."),
    ("message recipient must be a user JID", "bad_recipient", "The recipient is no person's number."),
    ("can't send message to unknown server", "bad_recipient", "The recipient is no person's number."),
)


def outcome_of(error: str) -> Outcome:
    """The outcome behind the text of an error that a send or an upload raised."""
    if "the store doesn't contain a device JID" in error:
        return SessionLost("logged_out", "It was unlinked from its phone.")
    for part, code, text in _REFUSED:
        if part in error:
            return Rejected(code, text)
    for part, code, text in _BEFORE_IT_LEFT:
        if part in error:
            return Temporary(code, f"Not sent: {text}.")
    if "status 429: rate-overlimit" in error:
        return Throttled("429", "WhatsApp asked for a rest.", RATE_LIMIT_SECONDS)
    if found := _SERVER_ERROR.search(error):
        return _refused_by_server(found[1])
    if "timed out waiting for message send response" in error:
        return Unknown("timeout", "The message went out, but WhatsApp did not confirm it in time.")
    if "websocket disconnected before message send returned response" in error:
        return Unknown("connection_lost", "The message went out, but the connection broke before it was confirmed.")
    return Unknown("error", f"It may have been sent; the library says: {readable(error)}")


def upload_outcome_of(error: str) -> Outcome:
    """The outcome behind the text of an error that an upload raised: the message itself has surely not left."""
    known = outcome_of(error)
    if isinstance(known, Unknown):
        return Temporary("upload", f"Not sent: the attachment could not be uploaded ({readable(error)}).")
    return known


def _refused_by_server(number: str) -> Outcome:
    if number == "463":
        return Throttled(
            "463",
            "WhatsApp does not let this device write to new people for now.",
            REACH_OUT_SECONDS,
            scope="new_contacts",
        )
    return Rejected(f"server_{number}", f"WhatsApp's server refused the message (error {number}).")


def readable(error: str) -> str:
    """Words of the library made fit to be stored and shown: one line, bounded, numbers of people blanked out."""
    line = " ".join(_NUMBER.sub(lambda found: "…" + found[0][-3:], error).split())
    return line if len(line) <= _MAX_TEXT else line[: _MAX_TEXT - 1] + "…"
