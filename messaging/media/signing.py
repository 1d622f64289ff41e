"""Addresses of files that work without a log-in until they expire: for gateways, which fetch what they are to send."""

from __future__ import annotations

from datetime import datetime, timedelta

from django.conf import settings
from django.core.signing import BadSignature, Signer

_signer = Signer(salt="flotilla.media")


class NoSuchAddress(Exception):  # noqa: N818 - reads as a fact
    """Not an address that was given out."""


class AddressExpired(NoSuchAddress):
    """It was given out, and its time is over."""


def token_for(*, media_id: int, now: datetime) -> str:
    """What the address of a file ends with; good for FLOTILLA_MEDIA_URL_HOURS from ``now``."""
    until = now + timedelta(hours=settings.FLOTILLA_MEDIA_URL_HOURS)
    return _signer.sign(f"{media_id}-{int(until.timestamp())}").replace(":", ".")


def path_for(*, media_id: int, now: datetime) -> str:
    """The address within this site, for our own pages."""
    return f"/media/{token_for(media_id=media_id, now=now)}"


def address_of(*, media_id: int, now: datetime) -> str:
    """The whole address, as gateways reach it (FLOTILLA_URL)."""
    return f"{settings.FLOTILLA_URL}{path_for(media_id=media_id, now=now)}"


def media_id_of(token: str, *, now: datetime) -> int:
    """The file behind a token. Raises NoSuchAddress or AddressExpired."""
    try:
        value = _signer.unsign(token.replace(".", ":", 1))
        media_id, until = (int(part) for part in value.split("-"))
    except (BadSignature, ValueError):
        raise NoSuchAddress from None
    if now.timestamp() > until:
        raise AddressExpired
    return media_id
