"""The JSON that says what a batch sends, and the value it is parsed into. Pure.

::

    {"type": "text",                      text | image | document | video | audio | template
     "text": "Hello {{ name or 'you' }}", the text, or the caption of an attachment
     "media": 17,                         id of a MediaFile: the attachment, or what stands above a template's text
     "template": {"name": "order_sent", "language": "en_US", "parameters": ["{{ first_name }}"]},
     "greeting": "en",                    false | a language | own words for morning, afternoon and evening
     "on_missing": "fallback"}            fallback: nothing is put in its place | hold: the message waits, visibly

Only ``type`` and what the type needs has to be there; :meth:`Content.to_json` leaves out what says nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, cast, get_args

from devices.gateways.base import ContentType
from messaging.content.greeting import LANGUAGES, MAX_WORDS, NAME, PARTS, Greeting
from messaging.content.problems import ContentRefused, Problem, TemplateProblem
from messaging.content.wording import MAX_SOURCE, wording

OnMissing = Literal["fallback", "hold"]

TYPES: tuple[ContentType, ...] = get_args(ContentType)
ON_MISSING: tuple[OnMissing, ...] = get_args(OnMissing)
ATTACHMENTS: frozenset[ContentType] = frozenset({"image", "document", "video", "audio"})
"""Types that carry a media file; audio has no caption anywhere."""

MAX_PARAMETERS = 60
_KEYS = frozenset({"type", "text", "media", "template", "greeting", "on_missing"})
_TEMPLATE_NAME = re.compile(r"[a-z0-9_]{1,512}")
_LANGUAGE = re.compile(r"[a-z]{2,3}(_[A-Za-z]{2,4})?")


@dataclass(frozen=True, slots=True)
class TemplateContent:
    """A text that the gateway approved, by its name and language; each parameter is a text of our own language."""

    name: str
    language: str
    parameters: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Content:
    """What a batch sends. ``greeting`` is as stored: empty, a language, or own words."""

    type: ContentType = "text"
    text: str = ""
    media: int | None = None
    template: TemplateContent | None = None
    greeting: str | Greeting = ""
    on_missing: OnMissing = "fallback"

    @property
    def greets(self) -> Greeting | None:
        """The words to greet with, if any."""
        if isinstance(self.greeting, Greeting):
            return self.greeting
        return LANGUAGES[self.greeting] if self.greeting else None

    def texts(self) -> Iterator[tuple[str, str]]:
        """Every text with variables in it, after the field that holds it."""
        if self.text:
            yield "text", self.text
        for number, parameter in enumerate(self.template.parameters if self.template else ()):
            yield f"template.parameters.{number}", parameter

    def to_json(self) -> dict[str, Any]:
        """As it is stored."""
        found: dict[str, Any] = {"type": self.type}
        if self.text or self.type == "text":
            found["text"] = self.text
        if self.media is not None:
            found["media"] = self.media
        if self.template is not None:
            named = self.template
            found["template"] = {
                "name": named.name, "language": named.language, "parameters": list(named.parameters)
            }  # fmt: skip
        if isinstance(self.greeting, Greeting):
            found["greeting"] = {part: getattr(self.greeting, part) for part in PARTS}
        elif self.greeting:
            found["greeting"] = self.greeting
        if self.on_missing != "fallback":
            found["on_missing"] = self.on_missing
        return found


def parse(raw: object) -> Content:
    """The content behind its JSON. Raises :class:`ContentRefused` with every problem, each at its field.

    Whether the media file exists and whose it is is not looked at here: see :mod:`messaging.content.check`.
    """
    problems: list[Problem] = []
    if not isinstance(raw, Mapping):
        raise ContentRefused([Problem("", "invalid", 'Content must be an object, as {"type": "text", "text": "…"}.')])
    content = _read(raw, problems)
    if not problems:
        problems = list(_problems_of(content))
    if problems:
        raise ContentRefused(problems)
    return content


def of_text(text: str) -> Content:
    """A plain text. Raises :class:`ContentRefused`."""
    return parse({"type": "text", "text": text})


def _read(raw: Mapping[Any, Any], problems: list[Problem]) -> Content:
    """Each field by itself: whether it is of its kind."""
    problems.extend(
        Problem(key, "unknown_field", f"“{key}” is not a part of content: {', '.join(sorted(_KEYS))}.")
        for key in sorted(str(key) for key in raw if key not in _KEYS)
    )
    found = Content()
    type_, text = raw.get("type", "text"), raw.get("text", "")
    if type_ not in TYPES:
        problems.append(Problem("type", "invalid_choice", f"Choose one of {', '.join(TYPES)}."))
    elif not isinstance(text, str):
        problems.append(Problem("text", "invalid", "Text must be a string."))
    else:
        found = replace(found, type=cast("ContentType", type_), text=text)
    media = raw.get("media")
    if media is not None:
        if isinstance(media, bool) or not isinstance(media, int) or media < 1:
            problems.append(Problem("media", "invalid", "Media must be the id of an uploaded file."))
        else:
            found = replace(found, media=media)
    on_missing = raw.get("on_missing", "fallback")
    if on_missing not in ON_MISSING:
        problems.append(Problem("on_missing", "invalid_choice", f"Choose one of {', '.join(ON_MISSING)}."))
    else:
        found = replace(found, on_missing=cast("OnMissing", on_missing))
    return replace(
        found, template=_template(raw.get("template"), problems), greeting=_greeting(raw.get("greeting"), problems)
    )


def _template(raw: object, problems: list[Problem]) -> TemplateContent | None:
    if raw is None:
        return None
    if not isinstance(raw, Mapping):
        problems.append(Problem("template", "invalid", "A template needs a name, a language, and its parameters."))
        return None
    name, language, parameters = raw.get("name"), raw.get("language"), raw.get("parameters", [])
    if not isinstance(name, str) or not _TEMPLATE_NAME.fullmatch(name):
        problems.append(
            Problem(
                "template.name", "invalid", "Give the approved template's name: small letters, digits, underscores."
            )
        )
    if not isinstance(language, str) or not _LANGUAGE.fullmatch(language):
        problems.append(Problem("template.language", "invalid", "Give the template's language, as en or en_US."))
    if not isinstance(parameters, list | tuple) or not all(isinstance(text, str) for text in parameters):
        problems.append(Problem("template.parameters", "invalid", "Parameters must be a list of texts."))
        return None
    if len(parameters) > MAX_PARAMETERS:
        problems.append(Problem("template.parameters", "too_many", f"At most {MAX_PARAMETERS} parameters are allowed."))
    return TemplateContent(str(name), str(language), tuple(parameters))


def _greeting(raw: object, problems: list[Problem]) -> str | Greeting:
    if raw is None or raw is False or raw == "":
        return ""
    if raw is True:
        return "en"
    if isinstance(raw, str):
        if raw in LANGUAGES:
            return raw
    elif isinstance(raw, Mapping) and set(raw) == set(PARTS):
        words = [raw[part] for part in PARTS]
        if all(isinstance(text, str) and text.strip() and len(text) <= MAX_WORDS for text in words):
            return Greeting(*words)
    problems.append(
        Problem(
            "greeting",
            "invalid",
            f"Choose a language ({', '.join(LANGUAGES)}), or give words for {', '.join(PARTS)}, "
            f"each of at most {MAX_WORDS} characters.",
        )
    )
    return ""


def _problems_of(content: Content) -> Iterator[Problem]:
    """What the fields say of one another, and the texts themselves."""
    yield from _unfit(content)
    for field, source in content.texts():
        if len(source) > MAX_SOURCE:
            yield Problem(field, "too_long", f"It is {len(source):,} characters long; {MAX_SOURCE:,} are allowed.")
            continue
        try:
            wording(source)
        except TemplateProblem as problem:
            yield Problem(field, "bad_text", str(problem), problem.line, problem.column)
    if content.greeting and content.type in {"audio", "template"} and not _names_greeting(content):
        yield Problem("greeting", "unused", f"There is no text to greet in: place it yourself, as {{{{ {NAME} }}}}.")


def _unfit(content: Content) -> Iterator[Problem]:
    """What this type needs and lacks, or has and cannot carry."""
    match content.type:
        case "template":
            if content.template is None:
                yield Problem("template", "required", "Name the template that the gateway approved.")
        case "text":
            if not content.text.strip():
                yield Problem("text", "required", "Write the text of the message.")
        case "audio" if content.text:
            yield Problem("text", "no_caption", "Audio has no caption: send the text as a message of its own.")
    if content.type in ATTACHMENTS and content.media is None:
        yield Problem("media", "required", f"Choose the {content.type} to send.")
    if content.type == "text" and content.media is not None:
        yield Problem("media", "unused", "A text carries no file: choose another type.")
    if content.type != "template" and content.template is not None:
        yield Problem("template", "unused", "Only messages of type template name one.")
    if content.type == "template" and content.text:
        yield Problem("text", "unused", "A template's text was approved at the gateway; fill its parameters instead.")


def _names_greeting(content: Content) -> bool:
    try:
        return any(NAME in wording(source).names for _, source in content.texts())
    except TemplateProblem:
        return True  # which is a problem of its own
