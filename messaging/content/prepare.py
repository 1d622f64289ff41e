"""Content and a lead become what goes out. Pure, and on the way of every message: a plain text costs one rendering."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import time
from typing import Any

from devices.gateways.base import ContentType, MessageTemplate
from messaging.content.greeting import NAME
from messaging.content.problems import ContentRefused, TemplateProblem
from messaging.content.shape import Content, parse
from messaging.content.wording import MAX_TEXT, wording

MAX_PARAMETER = 1024
"""Longest value of a template's gap, in characters."""


LocalTime = Callable[[], time]
"""What the clock shows where the lead is. Asked only where the content greets: finding the zone costs something."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """One message, in words. ``text`` is what is kept with the attempt: of a template, which and with what."""

    type: ContentType
    text: str
    media: int | None = None
    template: MessageTemplate | None = None


def variables_of(*, name: str, phone: str, status: str, niches: list[str], triggers: list[str],
                 custom: Mapping[str, Any]) -> dict[str, Any]:  # fmt: skip
    """What texts see of a lead. Own fields are there by their names, and as ``custom['Any name']``."""
    return {
        **custom,
        "custom": custom,
        "name": name,
        "first_name": name.split(" ", 1)[0],
        "phone": phone,
        "status": status,
        "niches": niches,
        "triggers": triggers,
    }


VARIABLES = ("name", "first_name", "phone", "status", "niches", "triggers")
"""What every lead may have; the rest are fields of the owner's own."""


def prepare(raw: Mapping[str, Any], *, variables: Mapping[str, Any], seed: int, local_time: LocalTime) -> Prepared:
    """What ``raw``, a stored content, says to one lead. ``seed`` (the message's id) decides choices, a retry's alike.

    Raises :class:`TemplateProblem` where it cannot be said to this lead, and :class:`ValueMissing` where the author
    chose to hold the message instead of leaving a gap.
    """
    if len(raw) == 2 and raw.get("type") == "text" and "text" in raw:  # nothing but its text: nothing to look at
        return Prepared("text", _said(wording(raw["text"]).render(variables, seed=seed), required=True))
    try:
        content = parse(raw)
    except ContentRefused as problem:
        raise TemplateProblem(str(problem)) from None
    return prepare_parsed(content, variables=variables, seed=seed, local_time=local_time)


def prepare_parsed(content: Content, *, variables: Mapping[str, Any], seed: int, local_time: LocalTime) -> Prepared:
    """The same for a content that was parsed already."""
    hold, greeting = content.on_missing == "hold", content.greets
    greeted = greeting.at(local_time()) if greeting is not None else ""
    if greeting is not None:
        variables = {**variables, NAME: greeted}
    if content.template is not None:
        parameters = tuple(
            _parameter(number, wording(source).render(variables, seed=seed, hold=hold))
            for number, source in enumerate(content.template.parameters, start=1)
        )
        named = content.template
        text = f"{named.name} ({named.language}){': ' if parameters else ''}{' | '.join(parameters)}"
        template = MessageTemplate(named.name, named.language, parameters)
        return Prepared("template", text, media=content.media, template=template)
    text = ""
    if content.text:
        words = wording(content.text)
        text = words.render(variables, seed=seed, hold=hold)
        if greeting is not None and NAME not in words.names:
            text = f"{greeted}!\n\n{text}"
    elif greeting is not None and content.type != "audio":
        text = f"{greeted}!"
    return Prepared(content.type, _said(text, required=content.type == "text"), media=content.media)


def _said(text: str, *, required: bool) -> str:
    if required and not text.strip():
        raise TemplateProblem("The text came out empty for this lead.")
    if len(text) > MAX_TEXT:
        raise TemplateProblem(f"The text came out {len(text):,} characters long; {MAX_TEXT:,} are allowed.")
    return text


def _parameter(number: int, text: str) -> str:
    """A gap of a template takes one line, and no gap may stay open."""
    text = " ".join(text.split())
    if not text:
        raise TemplateProblem(f"Parameter {number} of the template came out empty for this lead.")
    if len(text) > MAX_PARAMETER:
        raise TemplateProblem(
            f"Parameter {number} came out {len(text):,} characters long; {MAX_PARAMETER:,} are allowed."
        )
    return text
