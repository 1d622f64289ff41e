"""Pictures and other files of campaigns and steps: fetched or unpacked, and stored here."""

from __future__ import annotations

from typing import Final
from urllib.parse import urlsplit

from django.contrib.auth.models import User

from config.legacy.move import Move
from config.legacy.words import Row, text_of
from messaging.content.shape import ATTACHMENTS
from messaging.media.models import MediaFile
from messaging.media.problems import MediaRefused
from messaging.media.store import keep_base64, keep_url

_KINDS: Final = {"file": "document", "photo": "image", "voice": "audio", "ptt": "audio"}
"""Words for kinds of message that installs of it use beside ours."""


def kind_of(row: Row) -> str:
    """What a step's attachment is said to be; empty: what it turns out to be."""
    said = text_of(row, "message_type").lower()
    said = _KINDS.get(said, said)
    return said if said in ATTACHMENTS else ""


def attachment(
    move: Move, table: str, row: Row, field: str, *, owner: User, name: str, kind: str
) -> MediaFile | MediaRefused | None:
    """The file that the cell names, under the same guard and limits as any address that a user types in.

    None where it names none, and in a dry run, which lists it and asks nobody. A file that cannot be had is an answer.
    """
    address = text_of(row, field)
    if not address:
        return None
    inside = address.startswith("data:")
    if move.dry_run:
        # the address may hold a key, so its host is all that is told
        where = "unpacked from the row" if inside else f"fetched from {_host(address)}"
        move.changed(table, str(row["id"]), field, "to_fetch", f"Its attachment would be {where} and stored here.")
        return None
    try:
        if inside:
            return keep_base64(owner=owner, text=address, name=name, kind=kind)
        return keep_url(owner=owner, url=address, kind=kind)
    except MediaRefused as problem:
        return problem


def _host(address: str) -> str:
    try:
        return urlsplit(address).hostname or "an address that is none"
    except ValueError:
        return "an address that is none"
