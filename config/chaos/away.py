"""Asking a database that may be away just now, because of us."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from django import db
from django.db import connection

T = TypeVar("T")


class Away(Exception):  # noqa: N818 - reads as a fact
    """The database did not answer; ask again later."""


def ask(question: Callable[[], T]) -> T:
    """The answer. Raises :class:`Away` when the connection broke or could not be had, and lets go of it.

    psycopg2 reports a server that vanished in the middle of a statement as a bare DatabaseError; its subclasses other
    than the two below are answers of a server that is there.
    """
    try:
        return question()
    except db.DatabaseError as problem:
        if isinstance(problem, db.OperationalError) or type(problem) is db.DatabaseError:
            connection.close()
            raise Away(str(problem)) from problem
        raise
    except db.InterfaceError as problem:
        connection.close()
        raise Away(str(problem)) from problem
