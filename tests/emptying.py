"""Emptying the database between tests that commit: only tables that hold something, and all in one statement.

Django's own way empties every table and then makes all content types and permissions anew, which takes longer than most
tests. Those stay here: they say what models there are, and that does not change.
"""

from __future__ import annotations

from typing import Any

from django.db import connections
from django.test import TransactionTestCase

KEPT = ("django_migrations", "django_content_type", "auth_permission")

_EMPTY = """
DO $$
DECLARE
    name text;
    filled boolean;
    found text[] := '{}';
BEGIN
    FOR name IN
        SELECT format('%%I.%%I', n.nspname, c.relname) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition AND n.nspname = 'public' AND c.relname <> ALL (%s)
    LOOP
        EXECUTE format('SELECT EXISTS (SELECT FROM %%s)', name) INTO filled;
        IF filled THEN
            found := found || name;
        END IF;
    END LOOP;
    IF found <> '{}' THEN
        EXECUTE 'TRUNCATE ' || array_to_string(found, ', ') || ' CASCADE';
    END IF;
END $$
"""


def empty_tables(case: TransactionTestCase) -> None:
    """What Django does after a test that commits, for the databases that the test uses."""
    for alias in case._databases_names(include_mirrors=False):  # type: ignore[attr-defined]
        with connections[alias].cursor() as cursor:
            cursor.execute(_EMPTY, [list(KEPT)])


def install() -> Any:
    """Let Django empty tables like this; returns what it did before."""
    before = TransactionTestCase._fixture_teardown  # type: ignore[attr-defined]
    TransactionTestCase._fixture_teardown = empty_tables  # type: ignore[attr-defined]
    return before
