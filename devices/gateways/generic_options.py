"""How a person describes an HTTP gateway that has no driver of its own: the options of a ``generic`` device.

============== ======== ============================================================================================
``path``       required where to send to, below the device's address; begins with ``/``
``method``              POST (default), PUT or GET
``format``              how ``body`` travels: ``json`` (default), ``form`` or ``query``
``headers``             texts by name
``body``       required what is sent for a text message
``media_body``          the same for a message with an attachment; without it, attachments are not supported
``success``             ``{"path", "values", "statuses"}``: accepted if the status is one of these (default: 200 to 299)
                        and, with a path, the answer's value there is one of these
``external_id``         where in the answer the gateway's own id stands
``error_code``          where an error's code stands …
``error_text``          … and its words
``rejected``            ``{"statuses", "codes", "words"}``: any of them fits, and it was refused for good;
``throttled``           likewise, and the device has to wait;
``session_lost``        likewise, and a person must look at the device;
``temporary``           likewise, and it was certainly not sent, this time
``check``               ``{"path", "success"}``: a GET that says whether the device can send
============== ======== ============================================================================================

Texts may hold placeholders in braces, see :data:`PLACEHOLDERS`; in ``path`` they are quoted. Paths into an answer are
names and numbers with full stops between: ``data.messages.0.id``. The host is the device's address and never an option,
so that whoever may change options cannot have the credentials sent elsewhere.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, cast, get_args

SECRETS = ("secret", "secret_2", "username")
PLACEHOLDERS = frozenset(
    {"phone", "digits", "text", "reference", "message_id", "attempt", "type", "device_id"}
    | {"media_url", "media_type", "filename", *SECRETS}
)
ONE_LINE = PLACEHOLDERS - {"text", "filename", "media_url"}
"""What may stand in a header: a person's words may have more than one line."""
_PLACEHOLDER = re.compile(r"\{([^{}]*)\}")
_HEADER = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,64}")

Method = Literal["POST", "PUT", "GET"]
Format = Literal["json", "form", "query"]
MAX_DEPTH = 8


class BadOption(ValueError):  # noqa: N818 - reads as a fact
    """An option that makes no sense; the words begin with its name and say what to write."""


@dataclass(frozen=True, slots=True)
class Rule:
    """Which answers mean something: by HTTP status, by the error's code, or by a part of its words."""

    statuses: frozenset[int] = frozenset()
    codes: frozenset[str] = frozenset()
    words: tuple[str, ...] = ()

    def fits(self, *, status: int, code: str, text: str) -> bool:
        """Whether any of the three does."""
        return status in self.statuses or code in self.codes or any(word in text.lower() for word in self.words)


@dataclass(frozen=True, slots=True)
class Success:
    """Which answers mean yes. No statuses: 200 to 299."""

    path: str = ""
    values: frozenset[str] = frozenset()
    statuses: frozenset[int] = frozenset()

    def fits(self, *, status: int, body: object) -> bool:
        """Whether this answer does."""
        named = status in self.statuses if self.statuses else 200 <= status < 300
        return named and (not self.path or text_at(body, self.path) in self.values)


@dataclass(frozen=True, slots=True)
class Check:
    """How to ask whether the device can send."""

    path: str
    success: Success


@dataclass(frozen=True, slots=True)
class Described:
    """The options, understood."""

    path: str
    body: Mapping[str, Any]
    method: Method = "POST"
    format: Format = "json"
    headers: Mapping[str, str] = field(default_factory=dict)
    media_body: Mapping[str, Any] | None = None
    success: Success = Success()
    external_id: str = ""
    error_code: str = ""
    error_text: str = ""
    rejected: Rule = Rule()
    throttled: Rule = Rule(statuses=frozenset({429}))
    session_lost: Rule = Rule()
    temporary: Rule = Rule()
    check: Check | None = None


def understood(options: Mapping[str, Any]) -> Described:
    """The options as values. Raises :class:`BadOption` for the first that makes no sense."""
    parsed, problems = _parsed(options)
    if problems:
        raise BadOption(problems[0])
    return Described(**parsed)


def problems_of(options: Mapping[str, Any]) -> tuple[str, ...]:
    """Everything that is wrong with the options, each beginning with the option's name."""
    return tuple(_parsed(options)[1])


def text_at(body: object, path: str) -> str:
    """What stands at a path of a JSON value, as text: ``true``, ``12``, ``abc``; empty where there is nothing."""
    for step in path.split("."):
        if isinstance(body, Mapping):
            body = body.get(step)
        elif isinstance(body, list) and step.isdecimal() and int(step) < len(body):
            body = body[int(step)]
        else:
            return ""
    return _as_text(body)


def filled(template: Any, values: Mapping[str, str]) -> Any:
    """The template with its placeholders replaced, in whatever it holds."""
    if isinstance(template, str):
        return _PLACEHOLDER.sub(lambda found: values.get(found[1], ""), template)
    if isinstance(template, Mapping):
        return {name: filled(inner, values) for name, inner in template.items()}
    if isinstance(template, list):
        return [filled(inner, values) for inner in template]
    return template


def _as_text(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, str | int | float) else ""


# -- reading each option -----------------------------------------------------------------------------------------------


def _parsed(options: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    parsed: dict[str, Any] = {}
    problems = [
        f"{name}: there is no such option; there are {', '.join(_OPTIONS)}."
        for name in sorted(set(map(str, options)) - set(_OPTIONS))
    ]
    for name, read in _OPTIONS.items():
        if name not in options:
            problems += [f"{name}: it is required."] if name in {"path", "body"} else []
            continue
        try:
            parsed[name] = read(name, options[name])
        except BadOption as problem:
            problems.append(str(problem))
    if parsed.get("format") in {"form", "query"}:
        problems += [
            f"{name}: a form or a query holds texts only, no objects or lists."
            for name in ("body", "media_body")
            if any(isinstance(value, Mapping | list) for value in (parsed.get(name) or {}).values())
        ]
    if parsed.get("method") == "GET" and parsed.get("format", "json") != "query":
        problems.append("format: a GET has no body; write “query”.")
    return parsed, problems


def _mapping(name: str, value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise BadOption(f"{name}: write an object, as {{}}.")
    return value


def _text(name: str, value: object) -> str:
    if not isinstance(value, str) or not value or len(value) > 500:
        raise BadOption(f"{name}: write a text of 1 to 500 characters.")
    return value


def _template(name: str, value: object, *, depth: int = 0, known: frozenset[str] = PLACEHOLDERS) -> Any:
    """A JSON value whose texts hold only placeholders that are known."""
    if depth > MAX_DEPTH:
        raise BadOption(f"{name}: it is nested too deeply.")
    if isinstance(value, str):
        if unknown := sorted(set(_PLACEHOLDER.findall(value)) - known):
            raise BadOption(f"{name}: there is no {{{unknown[0]}}} here; there are {', '.join(sorted(known))}.")
    elif isinstance(value, Mapping):
        for inner_name, inner in value.items():
            _template(f"{name}.{inner_name}", inner, depth=depth + 1)
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            _template(f"{name}.{index}", inner, depth=depth + 1)
    return value


def _target(name: str, value: object) -> str:
    text = str(_template(name, _text(name, value)))
    if not text.startswith("/") or text.startswith("//") or not text.isprintable() or " " in text:
        raise BadOption(f"{name}: write a path below the device's address that begins with one /, as /v1/messages.")
    return text


def _headers(name: str, value: object) -> dict[str, str]:
    headers = _mapping(name, value)
    for header, text in headers.items():
        if not _HEADER.fullmatch(header) or header.lower() in {"host", "content-length", "transfer-encoding"}:
            raise BadOption(f"{name}: “{header[:64]}” cannot be set.")
        if not isinstance(text, str) or not text.isprintable():
            raise BadOption(f"{name}.{header}: write a text on one line.")
        _template(f"{name}.{header}", text, known=ONE_LINE)
    return headers


def _body(name: str, value: object) -> dict[str, Any]:
    return cast("dict[str, Any]", _template(name, _mapping(name, value)))


def _one_of(choices: tuple[str, ...]) -> Callable[[str, object], str]:
    def read(name: str, value: object) -> str:
        if value not in choices:
            raise BadOption(f"{name}: write one of {', '.join(choices)}.")
        return str(value)

    return read


def _known(name: str, value: object, names: set[str]) -> dict[str, Any]:
    given = _mapping(name, value)
    if unknown := sorted(set(given) - names):
        raise BadOption(f"{name}.{unknown[0]}: there is no such part; there are {', '.join(sorted(names))}.")
    return given


def _statuses(name: str, value: object) -> frozenset[int]:
    known = isinstance(value, list) and all(type(each) is int and 100 <= each <= 599 for each in value)
    if not known:
        raise BadOption(f"{name}: write a list of HTTP statuses, as [400, 422].")
    return frozenset(cast("list[int]", value))


def _values(name: str, value: object) -> tuple[str, ...]:
    known = isinstance(value, list) and all(isinstance(each, str | int | float) and each != "" for each in value)
    if not known:
        raise BadOption(f'{name}: write a list of texts, numbers, true or false, as ["queued", true].')
    return tuple(_as_text(each) for each in cast("list[object]", value))


def _rule(name: str, value: object) -> Rule:
    given = _known(name, value, {"statuses", "codes", "words"})
    rule = Rule(
        statuses=_statuses(f"{name}.statuses", given.get("statuses", [])),
        codes=frozenset(_values(f"{name}.codes", given.get("codes", []))),
        words=tuple(word.lower() for word in _values(f"{name}.words", given.get("words", []))),
    )
    if rule == Rule():
        raise BadOption(f"{name}: name at least one status, code or word, or leave it out.")
    return rule


def _success(name: str, value: object) -> Success:
    given = _known(name, value, {"path", "values", "statuses"})
    if ("path" in given) != ("values" in given):
        raise BadOption(f"{name}: path and values belong together: what must stand there.")
    return Success(
        path=_text(f"{name}.path", given["path"]) if "path" in given else "",
        values=frozenset(_values(f"{name}.values", given.get("values", []))),
        statuses=_statuses(f"{name}.statuses", given.get("statuses", [])),
    )


def _check(name: str, value: object) -> Check:
    given = _known(name, value, {"path", "success"})
    return Check(
        path=_target(f"{name}.path", given.get("path")), success=_success(f"{name}.success", given.get("success", {}))
    )


_OPTIONS: Mapping[str, Callable[[str, object], Any]] = {
    "path": _target,
    "method": _one_of(get_args(Method)),
    "format": _one_of(get_args(Format)),
    "headers": _headers,
    "body": _body,
    "media_body": _body,
    "success": _success,
    "external_id": _text,
    "error_code": _text,
    "error_text": _text,
    "rejected": _rule,
    "throttled": _rule,
    "session_lost": _rule,
    "temporary": _rule,
    "check": _check,
}
