"""Finding people by name: every word that is typed has to begin a word of the name, in any case and any order.

A part in the middle of a word would need trigrams, and thus an extension that not every PostgreSQL has; beginnings of
words need only an index of words, ``lead_name_words``, which every PostgreSQL keeps. Its words are made here and not by
PostgreSQL's parser for texts, which takes “Tan/Lim” for a file and “ada@home” for an address.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.contrib.postgres.expressions import ArraySubquery
from django.db.models import BooleanField, F, Func, QuerySet, TextField, Value
from django.db.models.functions import Cast

_BETWEEN = "-.,;:/()'\"&+_@\t\n\r\xa0\u3000"
"""What stands between words, besides spaces. Part of the index: to change it takes a migration."""
MANY = 200_000
"""Up to here people are found by the index alone."""


def name_words() -> Func:
    """The words of a lead's name, as the index holds them: a tsvector, which nothing ever reads into Python."""
    spaced = Func(
        Func(F("name"), function="lower", output_field=TextField()),
        Value(_BETWEEN),
        Value(" " * len(_BETWEEN)),
        function="translate",
        output_field=TextField(),
    )
    split = Func(spaced, Value(" "), function="string_to_array", output_field=TextField())
    return Func(
        Func(split, Value(""), function="array_remove", output_field=TextField()),
        function="array_to_tsvector",
        output_field=TextField(),
    )


def words_in(term: str) -> list[str]:
    """What is looked for: ``term`` taken apart as names are."""
    between = str.maketrans(dict.fromkeys(_BETWEEN + "\0", " "))
    return [word for word in term.translate(between).split(" ") if word]


def named(leads: QuerySet[Any], term: str) -> QuerySet[Any]:
    """Those of ``leads`` whose name has, for each word of ``term``, a word that begins with it.

    PostgreSQL takes any beginning for common, and would walk down the whole list for a rare one. So the index is asked
    first: those it has are put into an array, which the list is then read by; only where that are more than
    :data:`MANY` is the list walked, since it meets some of them soon.
    """
    words = words_in(term)
    if not words:
        return leads.none()
    found = leads.filter(_Begins(name_words(), _query(words)))
    ids = found.order_by().values("pk")
    return found if ids[: MANY + 1].count() > MANY else leads.filter(_AnyOf(F("pk"), ArraySubquery(ids)))


def _query(words: Sequence[str]) -> Cast:
    """``'ada':* & 'love':*``, in lower case as PostgreSQL makes it, so that both sides agree."""
    quoted = ("'{}':*".format(word.replace("\\", "\\\\").replace("'", "''")) for word in words)
    return Cast(Func(Value(" & ".join(quoted)), function="lower", output_field=TextField()), _Query())


class _Query(TextField):
    """A tsquery."""

    def db_type(self, connection: Any) -> str:  # noqa: ARG002 - Django's signature
        """For the cast."""
        return "tsquery"

    cast_db_type = db_type


class _Begins(Func):
    """Whether the words on the left match the query on the right."""

    template = "(%(expressions)s)"
    arg_joiner = " @@ "
    output_field = BooleanField()


class _AnyOf(Func):
    """Whether the left is an element of the array on the right."""

    template = "(%(expressions)s))"
    arg_joiner = " = ANY("
    output_field = BooleanField()
