"""What a driver gets of a file: how to read it, and where a gateway may fetch it for a few hours."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial
from pathlib import Path

from django.utils import timezone

from devices.gateways.base import Media
from messaging.media.models import MediaFile, path_of
from messaging.media.signing import address_of


class MediaGone(Exception):  # noqa: N818 - reads as a fact
    """The file that a message was to carry is not there any more."""


def attachment(media_id: int) -> Media:
    """The file of this id. Raises MediaGone. Rows never change, so a process asks for each once."""
    sha256, mime_type, name, size_bytes = _row(media_id)
    return Media(
        mime_type=mime_type,
        filename=name,
        size_bytes=size_bytes,
        url=address_of(media_id=media_id, now=timezone.now()),
        read=_reader(path_of(sha256)),
    )


@lru_cache(maxsize=1024)
def _row(media_id: int) -> tuple[str, str, str, int]:
    found = MediaFile.objects.filter(pk=media_id).values_list("sha256", "mime_type", "name", "size_bytes").first()
    if found is None:
        raise MediaGone("The file that this message was to carry is gone: choose another.")
    return found


def _reader(path: Path) -> Callable[[], bytes]:
    return partial(path.read_bytes)


forget = _row.cache_clear
"""For tests, whose database forgets too."""
