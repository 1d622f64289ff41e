"""Choices in a text, ``{Hi|Hello {there|you}}``: where they are, and which option a message gets. Pure.

Only the author's braces count. They are exchanged for *marks* in the template's source, before it is compiled; after
rendering only marks are looked at, so a lead whose name is ``{a|b}`` is called ``{a|b}``. Marks are Unicode
noncharacters, which the standard sets aside for a program's inside and which no text may contain.

A choice may hold variables, ``{Hi {{ name }}|Hello}``, and a variable's fallback may be a choice,
``{{ name or '{friend|mate}' }}``. A choice may begin with another, ``{{Hi|Hello} you|Hey}``. Braces without a bar are
plain text; ``\\{``, ``\\|`` and ``\\}`` are always.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from random import Random
from typing import Literal

from messaging.content.problems import TemplateProblem

OPEN, BAR, CLOSE, BRACE = "\ufdd0", "\ufdd1", "\ufdd2", "\ufdd3"
"""The fourth stands for a plain brace that the template language would else take for its own."""

MARKS = re.compile(f"([{OPEN}{BAR}{CLOSE}{BRACE}])")
_PLAIN = str.maketrans({OPEN: "{", BAR: "|", CLOSE: "}", BRACE: "{"})
_WITHOUT_MARKS = str.maketrans(dict.fromkeys((OPEN, BAR, CLOSE, BRACE)))
MAX_DEPTH = 20

Kind = Literal["expression", "statement", "comment"]
_ENDS: dict[str, tuple[Kind, str]] = {"{{": ("expression", "}}"), "{%": ("statement", "%}"), "{#": ("comment", "#}")}
_RAW = re.compile(r"\{%[-+]?\s*raw\s*-?%\}")
_END_RAW = re.compile(r"\{%[-+]?\s*endraw\s*[-+]?%\}")
# One step inside a block: a string with its escapes, or anything else.
_STRING = re.compile(r"'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"", re.DOTALL)
_DJANGO_DEFAULT = re.compile(r"(\|\s*default)\s*:\s*$")


@dataclass(frozen=True, slots=True)
class Block:
    """One ``{{ … }}`` or ``{% … %}``: where it begins in the author's source, and its marked text."""

    offset: int
    kind: Kind
    text: str


@dataclass(frozen=True, slots=True)
class Marked:
    """A source whose choices are marked."""

    source: str
    blocks: tuple[Block, ...]
    spins: bool


@dataclass(slots=True)
class _Choice:
    """A brace that may turn out to be a choice: where it is in the source and in the output, and its bars there."""

    offset: int
    place: int
    bars: list[int] = field(default_factory=list)
    doubled: bool = False
    """Followed by another brace: either a choice that begins with one, or a variable with a typing mistake."""


def mark(source: str) -> Marked:
    """Exchange the choices' braces and bars for marks. Raises TemplateProblem, with the place."""
    if found := MARKS.search(source):
        raise _at(source, found.start(), f"The character U+{ord(found[0]):04X} cannot be sent.")
    out: list[str] = []
    blocks: list[Block] = []
    open_choices: list[_Choice] = []
    offset = 0
    while offset < len(source):
        if source.startswith("\\", offset) and source[offset + 1 : offset + 2] in {"{", "|", "}"}:
            out.append(BRACE if source[offset + 1] == "{" else source[offset + 1])
            offset += 2
        elif block := _block_at(source, offset):
            blocks.append(block[0])
            out.append(block[0].text)
            offset = block[1]
        else:
            _step(source, offset, out, open_choices)
            offset += 1
    if doubled := next((choice for choice in open_choices if choice.doubled), None):
        raise _unclosed(source, doubled.offset, "{{")
    if forgotten := next((choice for choice in open_choices if choice.bars), None):
        raise _at(
            source,
            forgotten.offset,
            "This choice is not closed: write } after its last option, or \\{ for a brace that is none.",
        )
    marked = "".join(out)
    return Marked(marked, tuple(blocks), any(mark in marked for mark in (OPEN, BRACE)))


def _step(source: str, offset: int, out: list[str], open_choices: list[_Choice]) -> None:
    """One plain character of the source."""
    character = source[offset]
    if character == "{":
        if len(open_choices) == MAX_DEPTH:
            raise _at(source, offset, f"Choices within choices go {MAX_DEPTH} deep at most.")
        doubled = source.startswith("{{", offset) and not source.startswith("{{{", offset)
        open_choices.append(_Choice(offset, len(out), doubled=doubled))
        out.append(BRACE if source[offset + 1 : offset + 2] in {"{", "%", "#"} else "{")
        return
    if open_choices and character == "|":
        open_choices[-1].bars.append(len(out))
    elif open_choices and character == "}":
        choice = open_choices.pop()
        if choice.bars:
            out[choice.place], character = OPEN, CLOSE
            for bar in choice.bars:
                out[bar] = BAR
        elif choice.doubled:
            raise _unclosed(source, choice.offset, "{{")
    out.append(character)


def _block_at(source: str, offset: int) -> tuple[Block, int] | None:
    """The template language's block that begins here, and where it ends."""
    opening = source[offset : offset + 2]
    if opening not in _ENDS or source.startswith("{{{", offset):  # of three braces the first is the author's
        return None
    if raw := _RAW.match(source, offset):
        end = _END_RAW.search(source, raw.end())
        if end is None:
            raise _at(source, offset, "“{% raw %}” is not closed: write {% endraw %} after it.")
        return Block(offset, "comment", source[offset : end.end()]), end.end()
    kind, closing = _ENDS[opening]
    pieces, at = [opening], offset + 2
    while not source.startswith(closing, at):
        if at >= len(source):
            raise _unclosed(source, offset, opening)
        if kind == "expression" and source[at] in "{}" and "|" in source[offset:at]:
            return None  # {{Hi|Hello} you|Hey}: no variable holds a brace, so these are two choices
        if kind != "comment" and (string := _STRING.match(source, at)):
            pieces.append(_mark_string(string[0]) if kind == "expression" else string[0])
            if named := _DJANGO_DEFAULT.search(joined := "".join(pieces[:-1])):  # name|default:'friend'
                pieces = [f"{joined[: named.end(1)]}({pieces[-1]})"]
            at = string.end()
        else:
            pieces.append(source[at])
            at += 1
    return Block(offset, kind, f"{''.join(pieces)}{closing}"), at + 2


def _unclosed(source: str, offset: int, opening: str) -> TemplateProblem:
    return _at(source, offset, f"“{opening}” is not closed: write {_ENDS[opening][1]} after it.")


def _mark_string(text: str) -> str:
    """A string within an expression, quotes and all: what is no whole choice stays as it is."""
    return _marked_value(text) if "|" in text and "{" in text else text


def marked_value(text: str) -> str:
    """Mark the choices of a value, because the author said that it holds some. Never raises."""
    return _marked_value(text.translate(_WITHOUT_MARKS))


def _marked_value(text: str) -> str:
    out = list(text)
    open_choices: list[_Choice] = []
    for place, character in enumerate(text):
        if character == "{":
            open_choices.append(_Choice(place, place))
        elif character == "|" and open_choices:
            open_choices[-1].bars.append(place)
        elif character == "}" and open_choices:
            choice = open_choices.pop()
            if choice.bars:
                out[choice.place], out[place] = OPEN, CLOSE
                for bar in choice.bars:
                    out[bar] = BAR
    return "".join(out)


def without_marks(text: str) -> str:
    """A lead's value, which has no say in what is a choice."""
    return text.translate(_WITHOUT_MARKS)


def spin(text: str, *, rng: Random) -> str:
    """Decide every choice. Marks that do not pair, because a condition left one side out, become what they were."""
    levels: list[list[list[str]]] = [[[]]]
    """Open choices, the outermost first; each a list of options, each a list of pieces."""
    for piece in MARKS.split(text):
        match piece:
            case "\ufdd0":
                levels.append([[]])
            case "\ufdd1" if len(levels) > 1:
                levels[-1].append([])
            case "\ufdd2" if len(levels) > 1:
                options = levels.pop()
                levels[-1][-1].extend(options[rng.randrange(len(options))])
            case _:
                levels[-1][-1].append(piece)
    return OPEN.join(BAR.join("".join(option) for option in level) for level in levels).translate(_PLAIN)


def place_of(source: str, offset: int) -> tuple[int, int]:
    """Line and column of an offset, both from 1."""
    return source.count("\n", 0, offset) + 1, offset - (source.rfind("\n", 0, offset) + 1) + 1


def _at(source: str, offset: int, text: str) -> TemplateProblem:
    line, column = place_of(source, offset)
    return TemplateProblem(text, line=line, column=column)
