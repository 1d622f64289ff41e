"""The way in. Every door ends in :func:`keep`, which looks at the bytes, makes pictures fit, and stores both once."""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from django.conf import settings
from django.contrib.auth.models import User
from django.db import transaction

from messaging.media import images
from messaging.media.discarding import alone_with
from messaging.media.fetch import fetch
from messaging.media.kinds import Kind, sniff, tidy_name
from messaging.media.models import MediaFile, path_of
from messaging.media.problems import MediaRefused


@dataclass(frozen=True, slots=True)
class _Fit:
    """Bytes as they are stored, and what they are."""

    data: bytes
    kind: Kind
    mime_type: str
    ending: str
    width: int | None = None
    height: int | None = None


def keep(*, owner: User, data: bytes, name: str, kind: str = "") -> MediaFile:
    """The file of these bytes, stored once per owner; ``kind`` empty: by what it is. Raises MediaRefused.

    A picture that is to be sent as a document stays as it is, metadata and all; as an image it is made fit.
    """
    if len(data) > settings.FLOTILLA_MEDIA_MAX_BYTES:
        raise too_large()
    fit = _fit(data, name=name, kind=kind)
    sha256 = hashlib.sha256(fit.data).hexdigest()
    with transaction.atomic():
        alone_with(sha256)  # somebody who removes the same must not find no row between these two
        write(fit.data, path_of(sha256))  # before the row, which must never promise what is not there
        return MediaFile.objects.get_or_create(
            owner=owner,
            sha256=sha256,
            kind=fit.kind,
            defaults={
                "mime_type": fit.mime_type,
                "size_bytes": len(fit.data),
                "width": fit.width,
                "height": fit.height,
                "name": tidy_name(name, ending=fit.ending),
            },
        )[0]


def keep_base64(*, owner: User, text: str, name: str, kind: str = "") -> MediaFile:
    """The same from base64, with or without a ``data:`` head. Raises MediaRefused."""
    if text.startswith("data:"):
        text = text.partition(",")[2]
    if len(text) > settings.FLOTILLA_MEDIA_MAX_BYTES * 4 // 3 + 4096:
        raise too_large()
    try:
        data = base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError):
        raise MediaRefused(
            "bad_base64", "This is not base64: encode the file's bytes, without anything around it."
        ) from None
    return keep(owner=owner, data=data, name=name, kind=kind)


def keep_url(*, owner: User, url: str, name: str = "", kind: str = "") -> MediaFile:
    """The same from an address; see :mod:`messaging.media.fetch`. Raises MediaRefused."""
    found = fetch(
        url,
        max_bytes=settings.FLOTILLA_MEDIA_MAX_BYTES,
        seconds=settings.FLOTILLA_MEDIA_FETCH_SECONDS,
        allow=settings.FLOTILLA_MEDIA_FETCH_ALLOW,
    )
    return keep(owner=owner, data=found.data, name=name or unquote(found.name), kind=kind)


def too_large() -> MediaRefused:
    """The one answer to a file above FLOTILLA_MEDIA_MAX_MB."""
    return MediaRefused("too_large", f"The file is larger than {settings.FLOTILLA_MEDIA_MAX_BYTES / 1_048_576:g} MB.")


def _fit(data: bytes, *, name: str, kind: str) -> _Fit:
    found = sniff(data, name=name)
    wanted: Kind = kind or found.kind  # type: ignore[assignment]
    if wanted not in {found.kind, "document"}:
        raise MediaRefused("wrong_kind", f"This file is {_a(found.kind)} ({found.mime_type}), not {_a(wanted)}.")
    if wanted != "image":
        return _Fit(data, wanted, found.mime_type, found.ending)
    picture = images.fit(data, max_bytes=settings.FLOTILLA_IMAGE_BYTES, max_pixels=settings.FLOTILLA_IMAGE_PIXELS)
    return _Fit(picture.data, "image", picture.mime_type, picture.ending, picture.width, picture.height)


def _a(kind: str) -> str:
    return "audio" if kind == "audio" else f"an {kind}" if kind == "image" else f"a {kind}"


def write(data: bytes, path: Path) -> None:
    """Put bytes at ``path``, whole or not at all, whoever else does the same at the same moment."""
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, unfinished = tempfile.mkstemp(dir=path.parent, prefix=".")
    try:
        with os.fdopen(descriptor, "wb") as out:
            out.write(data)
            out.flush()
            os.fsync(out.fileno())
        Path(unfinished).chmod(0o640)
        Path(unfinished).replace(path)
    except BaseException:
        with suppress(OSError):
            Path(unfinished).unlink()
        raise
