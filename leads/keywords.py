"""What somebody means who writes back: no more, more again, or perhaps no more. Pure; the words are in keywords.toml.

A refusal is only ever a *whole* message: STOP, ``stop!!``, ``¡Arrêt !``. A message that holds such a word among others
("STOP please", "when does the bus stop here?") is for a person to judge; so is a single word that is nearly one
("unsubcribe"). "Don't stop" says the opposite.
"""

from __future__ import annotations

import re
import tomllib
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cache
from pathlib import Path

WORDS = Path(__file__).with_name("keywords.toml")
_LONGEST = 2000
"""Characters of a message that are looked at."""

# Marks of Latin, Greek, Cyrillic, Hebrew and Arabic that people leave out when they type. In other scripts marks are
# vowels, and without them a word is another word.
_MARKS = re.compile("[\u0300-\u036f\u0483-\u0487\u0591-\u05c7\u0610-\u061a\u0640\u064b-\u065f\u0670\u06d6-\u06ed]")
_LETTERS = str.maketrans({"ı": "i", "ł": "l", "ø": "o", "đ": "d", "æ": "ae", "œ": "oe", "ي": "ی", "ى": "ی", "ك": "ک"})
_APOSTROPHES = re.compile("['’‘`´ʼ＇]")
_INVISIBLE = frozenset({"Cf", "Cc"})
_VARIATION = re.compile("[\ufe00-\ufe0f]")


class Kind(StrEnum):
    """What a message is taken for."""

    OPT_OUT = "opt_out"
    OPT_IN = "opt_in"
    REVIEW = "review"
    NOTHING = "nothing"


@dataclass(frozen=True, slots=True)
class Meaning:
    """``word`` is what decided, as keywords.toml has it, and ``language`` its table there."""

    kind: Kind
    word: str = ""
    language: str = ""


@dataclass(slots=True)
class _Reading:
    """One way to read messages, with and without marks, and the words that are compared in it.

    Values are (word as written in the file, language). ``inside`` are looked for in longer messages: as runs of whole
    words, keyed by their first, or as ``glued`` text for scripts without spaces.
    """

    stop: dict[str, tuple[str, str]] = field(default_factory=dict)
    start: dict[str, tuple[str, str]] = field(default_factory=dict)
    inside: dict[str, list[tuple[list[str], str, str]]] = field(default_factory=dict)
    glued: list[tuple[str, str, str]] = field(default_factory=list)
    keep: dict[str, list[list[str]]] = field(default_factory=dict)
    keep_glued: list[str] = field(default_factory=list)


def meaning_of(text: str) -> Meaning:
    """What this message says about being written to."""
    for marks, reading in _readings().items():
        joined = normal(text[:_LONGEST], marks=marks).replace(" ", "")
        if joined in reading.stop:
            return Meaning(Kind.OPT_OUT, *reading.stop[joined])
        if joined in reading.start:
            return Meaning(Kind.OPT_IN, *reading.start[joined])
    for marks, reading in _readings().items():
        found = _inside(reading, normal(text[:_LONGEST], marks=marks))
        if found:
            return Meaning(Kind.REVIEW, *found)
    nearly = _nearly(normal(text[:_LONGEST], marks=False))
    return Meaning(Kind.REVIEW, *nearly) if nearly else Meaning(Kind.NOTHING)


def normal(text: str, *, marks: bool) -> str:
    """``text`` in one form: folded case, words only, single spaces; without diacritics unless ``marks``."""
    text = unicodedata.normalize("NFKC", text)
    text = _VARIATION.sub("", _APOSTROPHES.sub("", text))
    text = "".join(c for c in text if c.isspace() or unicodedata.category(c) not in _INVISIBLE).casefold()
    if not marks:
        text = _MARKS.sub("", unicodedata.normalize("NFD", text)).translate(_LETTERS)
    text = unicodedata.normalize("NFC", text)
    return " ".join("".join(c if unicodedata.category(c)[0] in "LMN" else " " for c in text).split())


def languages() -> frozenset[str]:
    """Languages whose words are known."""
    return frozenset(tomllib.loads(WORDS.read_text(encoding="utf-8")))


# -- Inside longer messages --------------------------------------------------------------------------------------------


def _inside(reading: _Reading, text: str) -> tuple[str, str] | None:
    """A stop word among others, once everything that asks for the opposite is taken away."""
    words: list[str] = list(_without_runs(text.split(), reading.keep))
    for position, word in enumerate(words):
        for run, written, language in reading.inside.get(word, ()):
            if words[position : position + len(run)] == run:
                return written, language
    joined = text.replace(" ", "")
    for opposite in reading.keep_glued:
        joined = joined.replace(opposite, "\n")
    return next(((written, language) for glued, written, language in reading.glued if glued in joined), None)


def _without_runs(words: list[str], runs: dict[str, list[list[str]]]) -> Iterator[str]:
    position = 0
    while position < len(words):
        run = next((r for r in runs.get(words[position], ()) if words[position : position + len(r)] == r), None)
        # What is taken away leaves a gap, so that the words around it do not meet.
        yield "\n" if run else words[position]
        position += len(run) if run else 1


def _nearly(text: str) -> tuple[str, str] | None:
    """The stop word that a message of one Latin word nearly is: a slip of the finger, or letters held down."""
    if not (4 <= len(text) <= 40 and text.isascii() and text.isalpha()):
        return None
    for known, (written, language) in _readings()[False].stop.items():
        if not (known.isascii() and len(known) >= 4):
            continue
        if _squeezed(text) == _squeezed(known) or (len(known) < 6 and _swapped(text, known)):
            return written, language
        if len(known) >= 6 and _within(text, known, 2 if len(known) >= 10 else 1):
            return written, language
    return None


def _squeezed(word: str) -> str:
    return re.sub(r"(.)\1+", r"\1", word)


def _swapped(one: str, other: str) -> bool:
    """Whether two letters beside each other changed places."""
    if len(one) != len(other):
        return False
    wrong = [n for n, (a, b) in enumerate(zip(one, other, strict=True)) if a != b]
    return len(wrong) == 2 and wrong[1] == wrong[0] + 1 and one[wrong[0]] == other[wrong[1]] != one[wrong[1]]


def _within(one: str, other: str, most: int) -> bool:
    """Whether at most ``most`` letters are added, missing, wrong or swapped (optimal string alignment distance)."""
    if abs(len(one) - len(other)) > most:
        return False
    before: list[int] = []
    row = list(range(len(other) + 1))
    for i, a in enumerate(one, 1):
        before, last, row = row, before, [i]
        for j, b in enumerate(other, 1):
            cost = min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (a != b))
            if i > 1 and j > 1 and a == other[j - 2] and one[i - 2] == b:
                cost = min(cost, last[j - 2] + 1)
            row.append(cost)
        if min(row) > most:
            return False
    return row[-1] <= most


# -- The words ---------------------------------------------------------------------------------------------------------


@cache
def _readings() -> dict[bool, _Reading]:
    """The two readings, by whether marks are kept. With marks first: it is the finer one."""
    found = {True: _Reading(), False: _Reading()}
    for language, table in tomllib.loads(WORDS.read_text(encoding="utf-8")).items():
        marks, spaced = table.get("marks", False), table.get("spaced", True)
        reading = found[marks]
        for word, text in _normalised((*table["stop"], *table["whole"]), marks):
            reading.stop.setdefault(text.replace(" ", ""), (word, language))
        for word, text in _normalised(table["start"], marks):
            reading.start.setdefault(text.replace(" ", ""), (word, language))
        for word, text in _normalised(table["stop"], marks):
            if spaced:
                reading.inside.setdefault(text.split()[0], []).append((text.split(), word, language))
            else:
                reading.glued.append((text.replace(" ", ""), word, language))
        for _, text in _normalised(table["keep"], marks):
            if spaced:
                reading.keep.setdefault(text.split()[0], []).append(text.split())
            else:
                reading.keep_glued.append(text.replace(" ", ""))
    return found


def _normalised(words: Iterable[str], marks: bool) -> list[tuple[str, str]]:
    return [(word, normal(word, marks=marks)) for word in words]
