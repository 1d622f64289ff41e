"""What is wrong with a content, in words for its author."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing to mend. ``field`` is a path in the content's JSON; line and column count from 1, where known."""

    field: str
    code: str
    text: str
    line: int | None = None
    column: int | None = None


class ContentRefused(Exception):  # noqa: N818 - reads as a fact
    """A content that cannot be used, with every reason."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("; ".join(problem.text for problem in self.problems))

    def by_field(self) -> dict[str, list[str]]:
        """The texts under their fields, as forms and serializers want them."""
        found: dict[str, list[str]] = {}
        for problem in self.problems:
            found.setdefault(problem.field, []).append(problem.text)
        return found


class TemplateProblem(Exception):  # noqa: N818 - reads as a fact
    """A text that cannot be used, in words for its author; line and column count from 1 where they are known."""

    def __init__(self, text: str, *, line: int | None = None, column: int | None = None) -> None:
        place = "" if line is None else f"Line {line}: " if column is None else f"Line {line}, column {column}: "
        super().__init__(f"{place}{text}")
        self.line = line
        self.column = column


class ValueMissing(Exception):  # noqa: N818 - reads as a fact
    """The lead lacks a value that the text cannot do without, and its author chose to hold such messages."""

    def __init__(self, name: str) -> None:
        super().__init__(f"The lead has no “{name}”, and the text has no fallback for it.")
        self.name = name
