"""Every attack in deploy/SECURITY.md names a test, and every test that it names is there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
NOTES = (ROOT / "deploy" / "SECURITY.md").read_text(encoding="utf-8")
NAMED = re.compile(r"`(tests/[\w/]+\.py)::(test_\w+)`")


def test_each_named_test_exists():
    missing = [
        f"{path}::{name}"
        for path, name in NAMED.findall(NOTES)
        if not (ROOT / path).exists()
        or name
        not in {
            node.name
            for node in ast.walk(ast.parse((ROOT / path).read_text(encoding="utf-8")))
            if isinstance(node, ast.FunctionDef)
        }
    ]
    assert not missing


def test_each_attack_names_a_test():
    rows = [line for line in NOTES.splitlines() if line.startswith("| ") and not line.startswith(("| attack", "| ---"))]
    assert len(rows) > 30
    assert not [row for row in rows if not NAMED.search(row.split("|")[3])]
