"""Pictures made fit to be sent: upright, flat, in sRGB, without metadata, and below a size with the least visible loss.

What is lossless and small enough stays lossless (PNG). Everything else becomes JPEG. Below the size there is a choice
between fewer pixels and coarser ones, and neither is always right: a photograph bears a low quality, lettering bears
fewer pixels. So the best quality that fits is found for several sizes, and what differs least from the original, both
looked at as large as a phone shows them, wins.

Refused, in words: what has more pixels than a worker should hold (before any is decoded), broken and cut-off files, and
animations, because a still of one is not what anybody meant to send.
"""

from __future__ import annotations

import io
from dataclasses import dataclass

from PIL import Image, ImageChops, ImageCms, ImageOps, ImageStat, UnidentifiedImageError

from messaging.media.problems import MediaRefused

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
LOSSLESS = frozenset({"PNG", "GIF", "BMP", "TIFF"})
MAX_SIDE = 2560
"""Longest side, in pixels, of what is sent: no phone shows more."""

VIEW_SIDE = 1280
"""Longest side, in pixels, at which two versions are compared: what a phone's screen shows of a picture in a chat."""

SIDES = (2560, 2048, 1600, 1280, 1024, 800, 640, 480, 320, 200)
QUALITIES = range(25, 96)
"""Below 25 JPEG falls apart; above 95 it only grows."""

_ORIENTATION = 0x0112
BACKGROUND = (255, 255, 255)
"""What shows through a transparent picture: a sheet of paper."""


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture ready to be stored; ``loss`` is the mean difference to the original, 0 to 255, as a phone shows it."""

    data: bytes
    mime_type: str
    ending: str
    width: int
    height: int
    loss: float


def fit(data: bytes, *, max_bytes: int, max_pixels: int) -> Picture:
    """The picture in ``data``, in at most ``max_bytes``. Raises MediaRefused, saying what is wrong with it."""
    try:
        return _fit(data, max_bytes=max_bytes, max_pixels=max_pixels)
    except MediaRefused:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning, MemoryError):
        raise MediaRefused("too_many_pixels", _too_many(max_pixels)) from None
    except UnidentifiedImageError:
        raise MediaRefused("image_unreadable", "This picture cannot be read: save it as JPEG or PNG.") from None
    except Exception:  # noqa: BLE001 - a broken file makes Pillow's decoders raise whatever they stumble over
        raise MediaRefused("file_broken", "The picture is broken or cut off: save or download it again.") from None


def _fit(data: bytes, *, max_bytes: int, max_pixels: int) -> Picture:
    with Image.open(io.BytesIO(data), formats=FORMATS) as opened:
        if opened.width * opened.height > max_pixels:
            raise MediaRefused("too_many_pixels", _too_many(max_pixels))
        if opened.format != "MPO" and getattr(opened, "n_frames", 1) > 1:
            raise MediaRefused("animation", "Pictures do not move in a message: send it as a video, or save one frame.")
        source = opened.format or ""
        if source in {"JPEG", "MPO"}:
            opened.draft("RGB", (MAX_SIDE, MAX_SIDE))  # decodes to a half, a quarter, an eighth where that is enough
        opened.load()
        if (kept := _as_it_is(opened, max_bytes=max_bytes)) is not None:
            return Picture(kept, "image/jpeg", ".jpg", *opened.size, loss=0.0)
        picture = _flat(_in_srgb(ImageOps.exif_transpose(opened)))
        picture.info.clear()  # comments and profiles would be saved along
    if source in LOSSLESS and max(picture.size) <= MAX_SIDE:
        kept = _png(picture)
        if len(kept) <= max_bytes:
            return Picture(kept, "image/png", ".png", *picture.size, loss=0.0)
    return _smallest_loss(picture, max_bytes=max_bytes)


def _as_it_is(opened: Image.Image, *, max_bytes: int) -> bytes | None:
    """A JPEG that needs nothing but to lose its metadata, with its own tables: encoding it anew would only cost."""
    upright = opened.getexif().get(_ORIENTATION, 1) == 1
    if opened.format != "JPEG" or opened.mode not in {"RGB", "L"} or not upright or opened.info.get("icc_profile"):
        return None
    if max(opened.size) > MAX_SIDE:
        return None
    out = io.BytesIO()
    opened.save(out, "JPEG", quality="keep", optimize=True, comment=b"")
    return out.getvalue() if out.tell() <= max_bytes else None


def _in_srgb(picture: Image.Image) -> Image.Image:
    """Colours as a phone understands them; a profile that cannot be used is as good as none."""
    profile = picture.info.get("icc_profile")
    if not profile or picture.mode not in {"RGB", "RGBA", "CMYK", "L"}:
        return picture
    try:
        return (
            ImageCms.profileToProfile(
                picture,
                ImageCms.ImageCmsProfile(io.BytesIO(profile)),
                ImageCms.createProfile("sRGB"),
                outputMode="RGBA" if picture.mode == "RGBA" else "RGB",
            )
            or picture
        )
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return picture


def _flat(picture: Image.Image) -> Image.Image:
    """Plain RGB: transparent parts show the background, sixteen bits become eight."""
    if picture.mode.startswith("I;16") or picture.mode in {"I", "F"}:
        picture = picture.convert("F")
        _, high = picture.getextrema()
        factor = 1 / 257 if isinstance(high, float) and high > 255 else 1.0
        return picture.point(lambda value: value * factor + 0.0).convert("L").convert("RGB")
    if picture.mode in {"RGBA", "LA", "PA", "La", "RGBa"} or "transparency" in picture.info:
        layer = picture.convert("RGBA")
        paper = Image.new("RGBA", layer.size, (*BACKGROUND, 255))
        return Image.alpha_composite(paper, layer).convert("RGB")
    return picture.convert("RGB")


def _smallest_loss(picture: Image.Image, *, max_bytes: int) -> Picture:
    shown = _within(picture, VIEW_SIDE)
    best: Picture | None = None
    longest = max(picture.size)
    for side in (min(longest, MAX_SIDE), *(side for side in SIDES if side < min(longest, MAX_SIDE))):
        resized = _within(picture, side)
        data = _best_quality(resized, max_bytes=max_bytes)
        if data is None:
            continue
        found = Picture(data, "image/jpeg", ".jpg", *resized.size, loss=_difference(data, shown))
        if best is not None and found.loss > best.loss:
            break  # from here on fewer pixels only cost
        best = found
    if best is None:
        raise MediaRefused("image_too_large", f"The picture cannot be made smaller than {max_bytes // 1024} KB.")
    return best


def _best_quality(picture: Image.Image, *, max_bytes: int) -> bytes | None:
    """The highest quality that fits, by halving: six or seven encodings. None if not even the lowest does."""
    low, high, best = QUALITIES.start, QUALITIES.stop - 1, None
    while low <= high:
        quality = (low + high + 1) // 2
        data = _jpeg(picture, quality)
        if len(data) <= max_bytes:
            best, low = data, quality + 1
        else:
            high = quality - 1
    return best


def _difference(data: bytes, shown: Image.Image) -> float:
    """Root of the mean squared difference to the original, 0 to 255, at the size at which it is shown."""
    with Image.open(io.BytesIO(data), formats=("JPEG",)) as decoded:
        again = decoded.convert("RGB").resize(shown.size, Image.Resampling.BICUBIC)
    channels = ImageStat.Stat(ImageChops.difference(again, shown)).rms
    return sum(channels) / len(channels)


def _within(picture: Image.Image, side: int) -> Image.Image:
    """The picture with its longest side at most ``side``; never enlarged."""
    if max(picture.size) <= side:
        return picture
    factor = side / max(picture.size)
    size = (max(round(picture.width * factor), 1), max(round(picture.height * factor), 1))
    return picture.resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)


def _jpeg(picture: Image.Image, quality: int) -> bytes:
    out = io.BytesIO()
    # Colour at full resolution where quality is high enough for anybody to see it. A fresh save carries no metadata.
    picture.save(out, "JPEG", quality=quality, optimize=True, subsampling=0 if quality >= 90 else 2)
    return out.getvalue()


def _png(picture: Image.Image) -> bytes:
    out = io.BytesIO()
    picture.save(out, "PNG", optimize=True)
    return out.getvalue()


def _too_many(max_pixels: int) -> str:
    return f"The picture has more than {max_pixels / 1_000_000:g} million pixels: save it smaller."
