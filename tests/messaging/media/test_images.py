"""Pictures: real ones, made here, in every state in which people hand them in."""

from __future__ import annotations

import io
import math
import zlib
from contextlib import suppress
from random import Random
from typing import Any

import pytest
from PIL import Image, ImageChops, ImageDraw, ImageStat

from messaging.media.images import VIEW_SIDE, fit
from messaging.media.problems import MediaRefused

LIMIT = 350 * 1024


def photograph(width: int, height: int, *, seed: int = 1) -> Image.Image:
    """Something with smooth parts, edges and grain, as a photograph has them."""
    rng = Random(seed)
    sky = Image.radial_gradient("L").resize((width, height))
    ground = Image.linear_gradient("L").resize((width, height))
    picture = Image.merge("RGB", (sky, ground, ImageChops.invert(sky)))
    draw = ImageDraw.Draw(picture)
    for _ in range(60):
        x, y, r = rng.randrange(width), rng.randrange(height), rng.randrange(5, max(width // 12, 6))
        colour = tuple(rng.randrange(256) for _ in range(3))
        draw.ellipse((x - r, y - r, x + r, y + r), fill=colour, outline=(0, 0, 0))
    grain = Image.effect_noise((width, height), 40)
    return Image.blend(picture, Image.merge("RGB", (grain, grain, grain)), 0.15)


def saved(picture: Image.Image, format_: str, **options: Any) -> bytes:
    out = io.BytesIO()
    picture.save(out, format_, **options)
    return out.getvalue()


def opened(data: bytes) -> Image.Image:
    picture = Image.open(io.BytesIO(data))
    picture.load()
    return picture


def made(data: bytes, *, max_bytes: int = LIMIT, max_pixels: int = 60_000_000) -> Image.Image:
    found = fit(data, max_bytes=max_bytes, max_pixels=max_pixels)
    picture = opened(found.data)
    assert len(found.data) <= max_bytes
    assert picture.size == (found.width, found.height)
    assert picture.mode in {"RGB", "L"}
    assert not picture.getexif()
    assert not {"exif", "icc_profile", "comment", "xmp"} & set(picture.info)
    return picture


def psnr(one: Image.Image, other: Image.Image, *, side: int = VIEW_SIDE) -> float:
    """Likeness in decibels as a phone shows both; above 30 is hard to tell apart."""
    factor = min(side / max(other.size), 1)
    size = (round(other.width * factor), round(other.height * factor))
    channels = ImageStat.Stat(
        ImageChops.difference(
            one.convert("RGB").resize(size, Image.Resampling.LANCZOS), other.resize(size, Image.Resampling.LANCZOS)
        )
    ).rms
    rms = math.sqrt(sum(value**2 for value in channels) / 3)
    return 99.0 if rms == 0 else 20 * math.log10(255 / rms)


def test_a_large_photograph_fits_with_a_loss_nobody_sees() -> None:
    original = photograph(2600, 1800)
    data = saved(original, "JPEG", quality=97)
    assert len(data) > 3 * LIMIT
    picture = made(data)
    assert psnr(picture, original) > 30
    assert picture.width / picture.height == pytest.approx(2600 / 1800, abs=0.01)


def test_neither_quality_nor_size_alone_does_as_well() -> None:
    """The same bytes spent on full size at low quality, or on a third of the size at a high one, show more loss."""
    original = photograph(1600, 1200, seed=2)
    limit = 60 * 1024
    chosen = psnr(made(saved(original, "PNG"), max_bytes=limit), original)
    rivals = [original, original.resize((533, 400), Image.Resampling.LANCZOS)]
    for rival in rivals:
        fitting = [data for quality in range(5, 96, 9) if len(data := saved(rival, "JPEG", quality=quality)) <= limit]
        assert chosen >= psnr(opened(fitting[-1]), original) - 0.5 if fitting else True
    assert chosen > 24


def test_lettering_that_fits_loses_nothing() -> None:
    drawing = Image.new("RGB", (900, 600), "white")
    ImageDraw.Draw(drawing).text((50, 50), "Open on Sunday", fill="black", font_size=80)
    picture = made(saved(drawing, "BMP"))
    assert picture.format == "PNG"
    assert ImageChops.difference(picture, drawing).getbbox() is None


def test_a_small_jpeg_keeps_its_own_tables() -> None:
    original = opened(saved(photograph(640, 480), "JPEG", quality=80, comment=b"shot at home"))
    picture = made(saved(original, "JPEG", quality="keep", comment=b"shot at home"))
    assert picture.quantization == original.quantization  # type: ignore[attr-defined]
    assert psnr(picture, original) > 38


def test_a_turned_picture_stands_upright_and_forgets_where_it_was_taken() -> None:
    turned = Image.new("RGB", (300, 200), "red")
    turned.paste("blue", (0, 0, 150, 200))  # the left half, which orientation 6 puts at the top
    exif = Image.Exif()
    exif[0x0112] = 6
    exif.get_ifd(0x8825)[1] = "N"
    picture = made(saved(turned, "JPEG", exif=exif, quality=95)).convert("RGB")
    assert picture.size == (200, 300)
    assert picture.getpixel((100, 20))[2] > 200
    assert picture.getpixel((100, 280))[0] > 200


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparent_parts_show_paper(mode: str) -> None:
    picture = Image.new("RGBA", (40, 40), (255, 0, 0, 0))
    picture.paste((0, 0, 255, 255), (0, 0, 20, 40))
    data = saved(picture.quantize() if mode == "P" else picture.convert(mode), "PNG")
    flat = made(data).convert("RGB")
    assert flat.getpixel((35, 20)) == (255, 255, 255)
    assert flat.getpixel((5, 20)) != (255, 255, 255)


def test_printers_colours_and_deep_greys_become_a_screens() -> None:
    paper = made(saved(Image.new("CMYK", (60, 60), (0, 255, 255, 0)), "JPEG", quality=95)).convert("RGB")
    red, green, blue = paper.getpixel((30, 30))
    assert red > 200
    assert max(green, blue) < 80
    deep = Image.new("I;16", (30, 30), 65535)
    assert made(saved(deep, "PNG")).convert("RGB").getpixel((10, 10)) == (255, 255, 255)


@pytest.mark.parametrize("format_", ["GIF", "PNG", "WEBP"])
def test_an_animation_is_refused_in_words(format_: str) -> None:
    frames = [Image.new("RGB", (20, 20), colour) for colour in ("red", "blue", "green")]
    data = saved(frames[0], format_, save_all=True, append_images=frames[1:], duration=100)
    with pytest.raises(MediaRefused, match="do not move") as refused:
        fit(data, max_bytes=LIMIT, max_pixels=10_000)
    assert refused.value.code == "animation"


@pytest.mark.parametrize("format_", ["GIF", "WEBP", "TIFF"])
def test_other_formats_are_taken(format_: str) -> None:
    assert made(saved(photograph(200, 100), format_)).size == (200, 100)


def test_too_many_pixels_are_refused_before_any_is_decoded() -> None:
    small = saved(Image.new("1", (8, 8)), "PNG")
    for side in (8_000, 20_000, 2_000_000):
        header = b"IHDR" + side.to_bytes(4) * 2 + small[24:29]  # says that it is large; 29: after depth and the like
        claims = small[:12] + header + zlib.crc32(header).to_bytes(4) + small[33:]
        with pytest.raises(MediaRefused, match="million pixels") as refused:
            fit(claims, max_bytes=LIMIT, max_pixels=60_000_000)
        assert refused.value.code == "too_many_pixels"


def test_broken_files_are_refused_in_words() -> None:
    whole = {name: saved(photograph(150, 100), name) for name in ("JPEG", "PNG", "WEBP", "GIF")}
    rng = Random(3)
    for name, data in whole.items():
        for cut in (30, len(data) // 2, len(data) - 40):
            with pytest.raises(MediaRefused):
                fit(data[:cut], max_bytes=LIMIT, max_pixels=10**6)
        for _ in range(12):
            hurt = bytearray(data)
            for _ in range(8):
                hurt[rng.randrange(len(hurt))] = rng.randrange(256)
            with suppress(MediaRefused):  # and nothing else, whatever is wrong
                assert fit(bytes(hurt), max_bytes=LIMIT, max_pixels=10**6).width, name


def test_what_cannot_be_made_small_enough_is_refused() -> None:
    with pytest.raises(MediaRefused, match="cannot be made smaller"):
        fit(saved(photograph(400, 400), "JPEG"), max_bytes=300, max_pixels=10**6)
