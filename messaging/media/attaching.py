"""What a driver gets of a file: how to read it, and where a gateway may fetch it for a few hours."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from django.utils import timezone

from devices.gateways.base import Media
from messaging.dispatch.pool import Pool, Row
from messaging.dispatch.prepared import Statement
from messaging.media.models import path_of
from messaging.media.signing import address_of


class MediaGone(Exception):  # noqa: N818 - reads as a fact
    """The file that a message was to carry is not there any more."""


_ROW = Statement(
    "media_row", "SELECT sha256, mime_type, name, size_bytes FROM messaging_mediafile WHERE id = %(media)s"
)
_MOST = 1024
_known: dict[int, Row] = {}


def attachment(media_id: int, *, pool: Pool) -> Media:
    """The file of this id. Raises MediaGone. Rows never change, so a process asks for each once."""
    row = _known.get(media_id)
    if row is None:
        found = pool.execute(_ROW, {"media": media_id})
        if not found:
            raise MediaGone("The file that this message was to carry is gone: choose another.")
        if len(_known) >= _MOST:
            _known.clear()
        row = _known[media_id] = found[0]
    sha256, mime_type, name, size_bytes = row
    return Media(
        mime_type=mime_type,
        filename=name,
        size_bytes=size_bytes,
        url=address_of(media_id=media_id, now=timezone.now()),
        read=_reader(path_of(sha256)),
    )


def _reader(path: Path) -> Callable[[], bytes]:
    return partial(path.read_bytes)


forget = _known.clear
"""For tests, whose database forgets too."""
