"""What is wrong with a file, in words for whoever gave it."""

from __future__ import annotations


class MediaRefused(Exception):  # noqa: N818 - reads as a fact
    """A file that cannot be taken; ``code`` is stable, the text says what to do."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = text
