"""The reference of the environment is what settings.py reads, and the file in deploy/ is the reference."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from config.environment import ReferenceProblem, load, markdown, read_by_settings, variables

ROOT = Path(__file__).resolve().parents[2]


def test_the_committed_reference_is_current():
    known, legacy = load()
    assert (ROOT / "deploy" / "ENVIRONMENT.md").read_text(encoding="utf-8") == markdown(known=known, legacy=legacy), (
        "run: manage.py settings_reference --markdown > deploy/ENVIRONMENT.md"
    )


def test_every_way_of_reading_a_variable_is_seen():
    text = (ROOT / "config" / "settings.py").read_text(encoding="utf-8")
    named = set(re.findall(r'(?:\(|\b_\w+\()"(FLOTILLA_[A-Z_]+)"', text))
    assert named <= set(read_by_settings(text))
    assert len(named) > 50


def test_a_variable_without_a_meaning_is_refused_by_name():
    with pytest.raises(ReferenceProblem, match="FLOTILLA_NEW"):
        variables(settings='X = _number("FLOTILLA_NEW", 3)', table={"group": []}, root=ROOT)


def test_a_meaning_without_a_variable_is_refused_by_name():
    table = {"group": [{"title": "Old", "variable": [{"name": "FLOTILLA_GONE", "means": "nothing"}]}]}
    with pytest.raises(ReferenceProblem, match="FLOTILLA_GONE"):
        variables(settings="", table=table, root=ROOT)


def test_successors_are_variables_that_exist():
    known, legacy = load()
    names = {variable.name for variable in known}
    assert "BROADCAST_POOL_CLEANUP_MINUTES" in {row.name for row in legacy}
    for row in legacy:
        assert set(re.findall(r"FLOTILLA_[A-Z_]+", row.here)) <= names, row
