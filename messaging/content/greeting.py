"""“Good morning”, by the lead's own clock. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import time

NAME = "greeting"
"""The variable that places it; a text that does not name it begins with it."""

MAX_WORDS = 60
"""Longest greeting, in characters."""

PARTS = ("morning", "afternoon", "evening")


@dataclass(frozen=True, slots=True)
class Greeting:
    """What to say in the morning (from 04:00), the afternoon (from 12:00) and the evening (from 18:00)."""

    morning: str
    afternoon: str
    evening: str

    def at(self, clock: time) -> str:
        """The words for this time of the lead's day."""
        if time(4) <= clock < time(12):
            return self.morning
        return self.afternoon if time(12) <= clock < time(18) else self.evening


LANGUAGES: Mapping[str, Greeting] = {
    "en": Greeting("Good morning", "Good afternoon", "Good evening"),
    "ms": Greeting("Selamat pagi", "Selamat petang", "Selamat malam"),
    "id": Greeting("Selamat pagi", "Selamat siang", "Selamat malam"),
    "es": Greeting("Buenos días", "Buenas tardes", "Buenas noches"),
    "pt": Greeting("Bom dia", "Boa tarde", "Boa noite"),
    "fr": Greeting("Bonjour", "Bonjour", "Bonsoir"),
    "de": Greeting("Guten Morgen", "Guten Tag", "Guten Abend"),
    "it": Greeting("Buongiorno", "Buon pomeriggio", "Buonasera"),
    "nl": Greeting("Goedemorgen", "Goedemiddag", "Goedenavond"),
    "tr": Greeting("Günaydın", "İyi günler", "İyi akşamlar"),
    "zh": Greeting("早上好", "下午好", "晚上好"),
}
"""By language code. In the night it is still evening: people are rarely written to then, and it is never wrong."""

LANGUAGE_NAMES: Mapping[str, str] = {
    "en": "English", "ms": "Malay", "id": "Indonesian", "es": "Spanish", "pt": "Portuguese", "fr": "French",
    "de": "German", "it": "Italian", "nl": "Dutch", "tr": "Turkish", "zh": "Chinese",
}  # fmt: skip
