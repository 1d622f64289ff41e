"""A message as WhatsApp's own format.

The library can build these too, but then text like ``@12345`` becomes a mention, group look-ups go out for more of the
kind, and video and audio need ffmpeg on the host. Built here, what is sent is what was written.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from io import BytesIO
from typing import Any

from PIL import Image

from devices.gateways.base import Outgoing

THUMBNAIL_PIXELS = 100
MAX_PIXELS = 50_000_000


class Unsendable(Exception):  # noqa: N818 - reads as a fact
    """This gateway cannot carry the message."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code


Upload = Callable[[bytes, Any], Any]


def message_of(outgoing: Outgoing, *, library: Any, upload: Upload) -> Any:
    """The library's message for ``outgoing``; ``upload(data, kind)`` puts an attachment on WhatsApp's servers.

    Raises Unsendable, OSError where the attachment is gone, and whatever ``upload`` raises.
    """
    e2e = library.e2e
    if outgoing.type == "text":
        return e2e.Message(conversation=outgoing.text)
    if outgoing.type == "template":
        raise Unsendable("not_supported", "WhatsApp sessions know no templates: send a text.")
    media = outgoing.media
    if media is None:
        raise Unsendable("no_media", "There is no attachment to send.")
    data = media.read()
    if not data:
        raise Unsendable("empty_media", "The attachment is empty.")
    kinds = library.MediaType
    match outgoing.type:
        case "image":
            more = _picture(data)
            put = upload(data, kinds.MediaImage)
            return e2e.Message(
                imageMessage=e2e.ImageMessage(**_file(put, media.mime_type), **_caption(outgoing.text), **more)
            )
        case "video":
            put = upload(data, kinds.MediaVideo)
            return e2e.Message(videoMessage=e2e.VideoMessage(**_file(put, media.mime_type), **_caption(outgoing.text)))
        case "audio":
            put = upload(data, kinds.MediaAudio)
            return e2e.Message(audioMessage=e2e.AudioMessage(**_file(put, _audio_type(media.mime_type)), PTT=False))
        case "document":
            put = upload(data, kinds.MediaDocument)
            return e2e.Message(
                documentMessage=e2e.DocumentMessage(
                    **_file(put, media.mime_type),
                    **_caption(outgoing.text),
                    title=media.filename,
                    fileName=media.filename,
                )
            )
        case other:
            raise Unsendable("not_supported", f"WhatsApp sessions do not carry {other}.")


def _file(put: Any, mime_type: str) -> dict[str, Any]:
    """Where the encrypted file lies and how to read it: what every kind of attachment has."""
    return {
        "URL": put.url,
        "directPath": put.DirectPath,
        "mediaKey": put.MediaKey,
        "fileEncSHA256": put.FileEncSHA256,
        "fileSHA256": put.FileSHA256,
        "fileLength": put.FileLength,
        "mimetype": mime_type,
    }


def _caption(text: str) -> dict[str, str]:
    return {"caption": text} if text else {}


def _audio_type(mime_type: str) -> str:
    """Phones play Ogg only where its codec is named."""
    return "audio/ogg; codecs=opus" if mime_type == "audio/ogg" else mime_type


def _picture(data: bytes) -> dict[str, Any]:
    """Size and a small preview, shown before the phone has loaded the picture. Raises Unsendable."""
    try:
        with Image.open(BytesIO(data)) as image:
            width, height = image.size
            if width * height > MAX_PIXELS:
                raise Unsendable("too_large", f"The picture has more than {MAX_PIXELS:,} pixels.")
            image.thumbnail((THUMBNAIL_PIXELS, THUMBNAIL_PIXELS))
            small = BytesIO()
            image.convert("RGB").save(small, format="JPEG", quality=60)
    except (OSError, ValueError, SyntaxError, struct.error, Image.DecompressionBombError):
        raise Unsendable("bad_image", "The attachment is no picture that can be read.") from None
    return {"width": width, "height": height, "JPEGThumbnail": small.getvalue()}
