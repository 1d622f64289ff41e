"""New migrations are read for what would stop a running installation; the linter sees what it should."""

from __future__ import annotations

import sys
from types import ModuleType

import pytest
from django.core.management import call_command
from django.db import migrations

from config import migration_lint
from config.migration_lint import BASELINE, OTHERWISE, RULE_OF_CODE, is_new, judge

pytestmark = pytest.mark.skipif(migration_lint.program() is None, reason="squawk is not installed: run “make venv”")

LOCKS_NOBODY = """
BEGIN;
ALTER TABLE "messaging_batch" ADD COLUMN "emptied_at" timestamp with time zone NULL;
CREATE TABLE "messaging_new" ("id" bigint NOT NULL PRIMARY KEY, "name" varchar(20) NOT NULL);
CREATE INDEX "new_name" ON "messaging_new" ("name");
COMMIT;
"""


def migration(**attributes: object) -> migrations.Migration:
    """One in a module of its own."""
    module = ModuleType("tomorrow")
    kind = type("Migration", (migrations.Migration,), {"__module__": module.__name__, **attributes})
    return kind("9999_tomorrow", "messaging")


def rules(sql: str, **attributes: object) -> set[str]:
    return {finding.rule for finding in judge(migration(**attributes), sql)}


def test_what_locks_nobody_out_passes():
    assert rules(LOCKS_NOBODY) == set()
    assert rules('CREATE INDEX CONCURRENTLY "x" ON "messaging_batch" ("finished_at");') == set()


@pytest.mark.parametrize(
    ("sql", "rule"),
    [
        ('CREATE INDEX "x" ON "messaging_message" ("phone");', "require-concurrent-index-creation"),
        ('ALTER TABLE "messaging_message" ADD COLUMN "x" integer NOT NULL;', "adding-required-field"),
        # the end of what Django writes for a default that only it knows: the version before inserts without the column
        ('ALTER TABLE "messaging_message" ALTER COLUMN "x" DROP DEFAULT;', "ban-drop-default"),
        ('ALTER TABLE "messaging_message" DROP COLUMN "phone";', "ban-drop-column"),
        ('ALTER TABLE "messaging_message" RENAME COLUMN "phone" TO "number";', "renaming-column"),
        ('ALTER TABLE "messaging_message" ALTER COLUMN "phone" TYPE text;', "changing-column-type"),
        ('ALTER TABLE "messaging_message" ADD CONSTRAINT "x" CHECK (round > 0);', "constraint-missing-not-valid"),
    ],
)
def test_what_stops_or_breaks_others_is_found(sql, rule):
    assert rule in rules(sql)


def test_python_is_found_and_a_reason_lets_it_pass(monkeypatch):
    moving = [migrations.RunPython(migrations.RunPython.noop)]
    assert rules("", operations=moving) == {RULE_OF_CODE}
    told = ModuleType("tomorrow")
    told.SAFE = {RULE_OF_CODE: "The table has one row.", "ban-drop-column": " "}
    monkeypatch.setitem(sys.modules, "tomorrow", told)
    assert rules("", operations=moving) == set()
    assert rules('ALTER TABLE "a" DROP COLUMN "b";', operations=moving) == {"ban-drop-column"}, "no reason is none"


def test_the_baseline_ends_where_it_says():
    assert set(BASELINE) == {"devices", "leads", "messaging", "campaigns", "sequences", "config"}
    assert not is_new("messaging", "0015_outgoing")
    assert is_new("messaging", "0016_something")
    assert not is_new("auth", "9999_theirs")
    assert all(reason for reason in OTHERWISE.values())


@pytest.mark.django_db(transaction=True)  # an index is built concurrently outside transactions only
def test_our_new_migrations_may_run_while_everything_goes_on(capsys):
    assert migration_lint.findings() == []
    call_command("lint_migrations")
    assert "may run" in capsys.readouterr().out
