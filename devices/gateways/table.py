"""What each gateway can do, as a table, taken from the drivers alone."""

from __future__ import annotations

from collections.abc import Iterable

from devices.gateways.base import Carries, ContentType, Driver, IdSemantics

TYPES: tuple[ContentType, ...] = ("text", "image", "document", "video", "audio", "template")
HEADINGS = (
    "gateway", "kind", *TYPES, "receipts", "replies", "webhooks signed", "pairing", "published rate", "our ids",
    "a crash after the bytes left ends as",
)  # fmt: skip
START, END = "<!-- gateways: made by “manage.py gateways --markdown” -->", "<!-- end of gateways -->"

_IDS: dict[IdSemantics, str] = {
    "dedups": "repeats dropped",
    "searchable": "searchable",
    "echoed": "named in receipts",
    "none": "not taken",
}
_CRASH: dict[IdSemantics, str] = {
    "dedups": "sent again, arrives once",
    "searchable": "unknown until looked up",
    "echoed": "unknown until a receipt or a person settles it",
    "none": "unknown until a person settles it",
}


def rows(drivers: Iterable[Driver]) -> list[tuple[str, ...]]:
    """One row per driver, in the columns of :data:`HEADINGS`."""
    return [
        (
            driver.label,
            driver.kind,
            *(_carried(driver, kind) for kind in TYPES),
            _yes(driver.receipts),
            _yes(driver.replies),
            _yes(driver.signs_webhooks),
            ", ".join(way for way in ("qr", "code") if way in driver.pairing) or "–",
            driver.rate,
            _IDS[driver.id_semantics],
            _CRASH[driver.id_semantics],
        )
        for driver in drivers
    ]


def markdown(drivers: Iterable[Driver]) -> str:
    """The table as GitHub reads it, without the line break at its end."""
    lines = [HEADINGS, ("---",) * len(HEADINGS), *rows(drivers)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def plain(drivers: Iterable[Driver]) -> str:
    """A paragraph per gateway, for a terminal: a line of all columns fits on none."""
    wide = max(map(len, HEADINGS))
    return "\n\n".join(
        "\n".join(f"{heading:<{wide}}  {cell}" for heading, cell in zip(HEADINGS, row, strict=True))
        for row in rows(drivers)
    )


def _carried(driver: Driver, kind: ContentType) -> str:
    limits = driver.carries.get(kind)
    if limits is None:
        return "no"
    window = f"{driver.window_hours} h window" if driver.window_hours and kind != "template" else ""
    return ", ".join(filter(None, (*_limits(limits), window))) or "yes"


def _limits(limits: Carries) -> list[str]:
    found = ["by link"] if limits.media == "url" else []
    if limits.max_bytes is not None:
        found.append(f"≤ {limits.max_bytes / 1_000_000:g} MB")
    if limits.max_text:
        found.append(f"≤ {limits.max_text} characters")
    return found


def _yes(value: bool) -> str:
    return "yes" if value else "no"
