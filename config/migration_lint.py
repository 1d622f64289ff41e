"""Whether new migrations may run while everything goes on: their SQL, read by squawk, with the rules that are ours.

What was there before the first release runs on empty tables and is the baseline. A later migration that has to break a
rule says so in its module, rule by rule and with the reason::

    SAFE = {"ban-drop-column": "No release reads it since 1.4."}
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from django.db import connection
from django.db.migrations import Migration
from django.db.migrations.loader import MigrationLoader
from django.db.migrations.operations import RunPython, SeparateDatabaseAndState
from django.db.migrations.operations.base import Operation

BASELINE: Final[Mapping[str, int]] = {
    "devices": 9,
    "leads": 8,
    "messaging": 15,
    "campaigns": 4,
    "sequences": 4,
    "config": 7,
}
"""By app, the number of the last migration that is not read."""

OTHERWISE: Final[Mapping[str, str]] = {
    "require-lock-timeout": "settings.py gives every migration one",
    "require-statement-timeout": "a long index build is no harm, a long wait for a lock is",
    "prefer-robust-stmts": "Django runs a migration once, and in a transaction unless it says otherwise",
    "prefer-text-field": "a length is checked where people can be told",
    "prefer-bigint-over-int": "small numbers are small",
    "prefer-bigint-over-smallint": "the same",
    "prefer-identity": "Django makes the keys",
    "require-table-schema": "there is one",
}
"""Rules of squawk that are not ours, and why."""

RULE_OF_CODE: Final = "python-in-migration"
_NUMBER = re.compile(r"(\d+)_")


class LintProblem(Exception):  # noqa: N818 - reads as a fact
    """Migrations could not be read. Says what to do."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One statement of a migration that may stop others, or break those that still run the version before."""

    migration: str
    rule: str
    text: str

    def __str__(self) -> str:
        return f"{self.migration}: {self.rule}: {self.text}"


def findings() -> list[Finding]:
    """What is to be said about the migrations behind the baseline. Raises :class:`LintProblem`."""
    loader = MigrationLoader(connection, replace_migrations=False)
    found: list[Finding] = []
    for (app, name), migration in sorted(loader.disk_migrations.items()):
        if is_new(app, name):
            sql = "\n".join(loader.collect_sql([(loader.graph.nodes[app, name], False)]))
            found += judge(migration, f"BEGIN;\n{sql}\nCOMMIT;\n" if migration.atomic else sql)
    return found


def is_new(app: str, name: str) -> bool:
    """Whether a migration of ours comes after the baseline."""
    number = _NUMBER.match(name)
    return app in BASELINE and (number is None or int(number[1]) > BASELINE[app])


def judge(migration: Migration, sql: str) -> list[Finding]:
    """What is to be said about one migration and its SQL, without what its module accounts for."""
    label = f"{migration.app_label}.{migration.name}"
    allowed: Mapping[str, str] = getattr(sys.modules.get(type(migration).__module__), "SAFE", {})
    found = [Finding(label, rule, text) for rule, text in (*_of_code(migration.operations), *_of_sql(sql))]
    return [finding for finding in found if not allowed.get(finding.rule, "").strip()]


def _of_code(operations: Sequence[Operation]) -> Iterator[tuple[str, str]]:
    """Python that runs in a migration holds its locks for as long as it takes, and no linter can read it."""
    for operation in operations:
        if isinstance(operation, RunPython):
            yield RULE_OF_CODE, "Move rows in small transactions, by a command or a tick, not in a migration."
        elif isinstance(operation, SeparateDatabaseAndState):
            yield from _of_code(operation.database_operations)


def _of_sql(sql: str) -> Iterator[tuple[str, str]]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "migration.sql")
        path.write_text(sql, encoding="utf-8")
        squawk = program()
        if squawk is None:
            raise LintProblem("squawk is not installed: run “make venv” again.")
        try:
            done = subprocess.run(
                [squawk, "--reporter=json", f"--exclude={','.join(OTHERWISE)}", str(path)],
                capture_output=True,
                text=True,
                check=False,
            )
            told: list[dict[str, Any]] = json.loads(done.stdout or "[]")
        except (OSError, ValueError):
            raise LintProblem("squawk did not answer in its own format: run “make venv” again.") from None
    if done.returncode and not told:
        raise LintProblem("squawk could not read a migration's SQL.")
    for each in told:
        yield str(each["rule_name"]), " ".join(filter(None, (each["message"], each["help"])))


def program() -> str | None:
    """Where squawk is: beside the Python that runs, where its package puts it, or on the PATH."""
    return shutil.which("squawk", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")
