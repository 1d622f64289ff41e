"""The launch check-list: what the gateways of the devices that would send cannot carry of a content."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from django.conf import settings

from devices.gateways import registry
from devices.gateways.base import Carries, Gateway
from messaging.content.problems import Problem, TemplateProblem
from messaging.content.shape import ATTACHMENTS, Content
from messaging.content.wording import wording
from messaging.media.models import MediaFile

_SEEDS = range(8)
"""Choices are tried in so many ways when a text's length is judged."""


def check_content(content: Content, *, owner_id: int, gateways: Iterable[str], bulk: bool = True) -> list[Problem]:
    """What stands in the way of sending ``content`` through devices of these gateway kinds; one query at most.

    ``bulk``: to people of whom many did not write lately, so that a gateway's window for free text is closed to them.
    A text counts as too long where it is, even for a lead who has no values to put in.
    """
    problems: list[Problem] = []
    media = None
    if content.media is not None:
        media = MediaFile.objects.filter(owner_id=owner_id, pk=content.media).first()
        if media is None:
            problems.append(Problem("media", "does_not_exist", f"You have no file {content.media}: upload it first."))
        elif content.type in ATTACHMENTS and media.kind != content.type:
            text = f"“{media}” was uploaded as {media.kind}: upload it as {content.type}, or change the type."
            problems.append(Problem("media", "wrong_kind", text))
        elif not media.path.exists():
            problems.append(Problem("media", "gone", f"The bytes of “{media}” are gone: upload it again."))
    for kind in sorted(set(gateways)):
        try:
            driver = registry.driver_for(kind)
        except registry.UnknownGateway as unknown:
            problems.append(Problem("type", "unknown_gateway", f"A device that would send: {unknown}"))
        else:
            problems += _cannot_carry(driver, content, media, bulk=bulk)
    return problems


def _cannot_carry(driver: Gateway, content: Content, media: MediaFile | None, *, bulk: bool) -> Iterator[Problem]:
    carries = driver.carries.get(content.type)
    if carries is None:
        can = ", ".join(sorted(driver.carries))
        yield Problem("type", "not_carried", f"{driver.label} carries no message of type {content.type}, only {can}.")
        return
    if bulk and driver.window_hours is not None and content.type != "template":
        yield Problem(
            "type",
            "window",
            f"Through {driver.label}, free text reaches only people who wrote within the last {driver.window_hours} "
            "hours: use an approved template.",
        )
    if content.type != "template" and content.text:
        yield from _too_long(driver, content, carries)
    if content.type in ATTACHMENTS and media is not None:
        yield from _too_heavy(driver, carries, media)


def _too_long(driver: Gateway, content: Content, carries: Carries) -> Iterator[Problem]:
    what = "caption" if content.type in ATTACHMENTS else "text"
    if carries.max_text == 0:
        yield Problem("text", "no_caption", f"{driver.label} carries no text with {content.type}: send it by itself.")
        return
    shortest = _shortest(content.text)
    if carries.max_text is not None and shortest > carries.max_text:
        yield Problem(
            "text",
            "too_long",
            f"{driver.label} carries at most {carries.max_text:,} characters of {what}; this has {shortest:,} before "
            "any value is put in.",
        )


def _too_heavy(driver: Gateway, carries: Carries, media: MediaFile) -> Iterator[Problem]:
    if carries.max_bytes is not None and media.size_bytes > carries.max_bytes:
        yield Problem(
            "media",
            "too_large",
            f"{driver.label} carries at most {_megabytes(carries.max_bytes)} of {media.kind}; “{media}” has "
            f"{_megabytes(media.size_bytes)}.",
        )
    if carries.mime_types is not None and media.mime_type not in carries.mime_types:
        can = ", ".join(sorted(carries.mime_types))
        yield Problem("media", "wrong_type", f"{driver.label} does not carry {media.mime_type} as {media.kind}: {can}.")
    if carries.media == "url" and not settings.FLOTILLA_URL:
        text = f"{driver.label} fetches files from here, but nobody said where that is: set FLOTILLA_URL."
        yield Problem("media", "no_address", text)


def _shortest(source: str) -> int:
    """Length of the text without any value, by the shortest of several choices."""
    try:
        return min(len(wording(source).render({}, seed=seed)) for seed in _SEEDS)
    except TemplateProblem:
        return 0  # which depends on the lead


def _megabytes(number: int) -> str:
    return f"{number / 1_048_576:.1f} MB" if number >= 1_048_576 else f"{number / 1024:.0f} KB"
